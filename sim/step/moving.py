"""Parameters gathered and gradients reduced beside the units that need and make them: a pass over the rounds of a step.

A bucket's parameters are there before its first unit begins. One bucket is gathered ahead: while the units of one are
at work the next one is on its way (FSDP2 lets no second all-gather begin before the first is copied out,
torch/distributed/fsdp/_fully_shard; Megatron Core asks for the next bucket when a module of the one before begins). In
backward the gather of the next bucket is asked for before gradients of the last are reduced. A bucket's gradients are
reduced when the last of its units has made its own; the step ends when they are. All of it is on the communication
stream, in that order: compute beside it runs at the contended rates of the tables (`hwmodels.price`). What units send
by themselves has a stream of its own where a bucket lies as it came (a communicator of NCCL's each: Megatron Core's
data-parallel, tensor and context groups), and so passes the gather ahead: that stands behind it, a collective a unit.
"""

from collections.abc import Sequence

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Collective, Memory
from sim.layout.buckets import GATHER, REDUCE, REST, Bucket, Traffic, gathered_again, named_part
from sim.layout.traffic import REPLICA, SHARD, Ring
from sim.models.layer import COMMUNICATION, Kernel, Part

Round = tuple[Part, ...]
"""Parts of a unit in a step."""
Key = tuple[str, str, int]
"""Direction, name and layer of a part."""
COPY_OUT, COPY_IN, COPY_BACK, SUM = "copy out", "copy in", "copy back", "sum"
HALF = PLAIN_BF16.row_bytes(1)
"""Bytes of a parameter in BF16."""
SHARED = "amax"
OWN, OPENS, AHEAD, ENDS, COPIED, REDUCED, BACK = -3, -2, -1, 96, 97, 98, 99
"""Places in a round, before and behind those of a family's parts: a gather of the round's own bucket, what copies it
out, the gather of the next one; what ranks tell each other at the end of a pass; gradients copied, reduced, and copied
back."""


def moved(rounds: Sequence[Round], direction: str, traffic: Traffic | None) -> list[Round]:
    """The rounds of a half, F or B, with what its stage moves. rounds: of all of its units, in order of the pass."""
    if traffic is None or not rounds:
        return list(rounds)
    out = [list(parts) for parts in rounds]
    if direction == "F" and traffic.forward and traffic.routed >= 0:
        _on_demand(out, traffic.buckets[0], traffic.routed)
    elif traffic.forward if direction == "F" else traffic.backward:
        _gather(out, direction, traffic)
    if direction == "B" and (traffic.reduce or traffic.sums):
        _reduce(out, traffic)
    if traffic.shared and any(part.direction == direction for part in out[-1]):
        out[-1].append(Part(SHARED, direction, out[-1][0].layer, traffic.shared, place=ENDS))
    return [tuple(parts) for parts in out]


def _rounds(bucket: Bucket, direction: str, count: int) -> list[int]:
    """Rounds of a bucket's units, ascending."""
    return sorted(unit if direction == "F" else count - 1 - unit for unit in bucket.units)


def _gather(out: list[list[Part]], direction: str, traffic: Traffic) -> None:
    """Gathers before the first round of each bucket's units."""
    ahead, copied = traffic.moves.ahead, traffic.moves.copied
    asked = traffic.buckets if direction == "F" else gathered_again(traffic.buckets, traffic.moves)
    ordered = sorted((_rounds(bucket, direction, len(out))[0], bucket) for bucket in traffic.buckets)
    begins, last = 0, tuple[Key, ...]()
    for first, bucket in ordered:
        if bucket.gather and bucket in asked:
            at = begins if ahead else first
            after = _all(out, at) if not ahead else last if copied else _done(out, at, direction)
            place, whole = (AHEAD if at < first else OWN), copied or not ahead
            pieces = _pieces(bucket, whole)
            keys = [(direction, name, bucket.layer) for name, _ in pieces]
            if place == AHEAD and not whole and _sends(out[at]):
                _passed(out, (at, first), direction, bucket, after)
            else:
                out[at] += [
                    Part(name, direction, bucket.layer, kernels, place=place, chained=not ahead, after=after)
                    for name, kernels in pieces
                ]
            last = _open(out[first], direction, bucket, keys, copied) or last
        begins = first


def _on_demand(out: list[list[Part]], bucket: Bucket, routed: int) -> None:
    """What forward asks for when it comes to it: the parameters of a stage before its first unit, those of experts
    behind the exchange that sends them their first tokens. routed: number of the first unit with experts."""
    for experts, at, place in ((False, 0, OWN), (True, routed, None)):
        kernels = tuple(_around(ring, op) for ring, op in bucket.gather if ring.experts == experts)
        chain = sorted((part for part in out[at] if _computes(part, "F")), key=lambda part: part.place)
        reader = next((n for n, part in enumerate(chain) if not experts or part.name.startswith("mlp")), -1)
        if not kernels or reader < 0:
            continue
        before, name = chain[max(0, reader - 1)], f"{named_part(GATHER, bucket)}{' experts' * experts}"
        after = (("F", before.name, before.layer),) if experts and reader else ()
        own = before.place if place is None else place
        out[at].append(Part(name, "F", bucket.layer, kernels, place=own, chained=False, after=after))
        part = chain[reader]
        out[at][out[at].index(part)] = part._replace(after=(*part.after, ("F", name, bucket.layer)))


def _pieces(bucket: Bucket, whole: bool) -> list[tuple[str, tuple[Kernel, ...]]]:
    """Names and kernels of the parts that gather a bucket: of one that its tensors fill more than once, the first
    collective and the rest."""
    kernels, name = tuple(_around(*each) for each in bucket.gather), GATHER
    if whole or len(kernels) == 1:
        return [(named_part(name, bucket), kernels)]
    return [(named_part(name, bucket), kernels[:1]), (named_part(REST, bucket), kernels[1:])]


def _sends(row: list[Part]) -> bool:
    """Whether a unit sends something by itself."""
    return any(kernel.lane == COMMUNICATION for part in row if part.place >= 0 for kernel in part.kernels)


def _passed(
    out: list[list[Part]], rounds: tuple[int, int], direction: str, bucket: Bucket, after: tuple[Key, ...]
) -> None:
    """Collectives of a bucket that is gathered ahead, spread over the rounds of the one before, each behind what its
    round sends. rounds: the first of those, and the bucket's own."""
    (begin, end), names = rounds, [name for name, _ in _pieces(bucket, whole=False)]
    for number, each in enumerate(bucket.gather):
        at, name = begin + number * (end - begin) // len(bucket.gather), names[min(number, len(names) - 1)]
        own = after if number == 0 else ()
        out[at].append(Part(name, direction, bucket.layer, (_around(*each),), place=COPIED, chained=False, after=own))


def _open(row: list[Part], direction: str, bucket: Bucket, keys: Sequence[Key], copied: bool) -> tuple[Key, ...]:
    """The first of a bucket's parts waits for its parameters, copied out of a buffer first where they come in one; that
    copy, or nothing. Where they come in pieces it waits for the first, the part behind it for all."""
    if copied:
        each = sum(op.size for _, op in bucket.gather) / bucket.size
        kernel = _copy(COPY_OUT, bucket.size, read=each, write=each)
        row.append(
            Part(named_part(COPY_OUT, bucket), direction, bucket.layer, (kernel,), place=OPENS, after=(keys[0],))
        )
        return ((direction, named_part(COPY_OUT, bucket), bucket.layer),)
    chain = sorted((part for part in row if _computes(part, direction)), key=lambda part: part.place)
    waits = [keys[:1], keys[1:]] if len(chain) > 1 else [keys]
    for part, own in zip(chain, waits, strict=False):
        row[row.index(part)] = part._replace(after=(*part.after, *own))
    return ()


def _computes(part: Part, direction: str) -> bool:
    return part.direction == direction and part.chained and bool(part.kernels) and part.place >= 0


def _done(out: list[list[Part]], before: int, direction: str) -> tuple[Key, ...]:
    """The last part of what comes before a round."""
    for row in reversed(out[:before]):
        chain = sorted((part for part in row if _computes(part, direction)), key=lambda part: part.place)
        if chain:
            return ((direction, chain[-1].name, chain[-1].layer),)
    return ()


def _all(out: list[list[Part]], before: int) -> tuple[Key, ...]:
    """Everything in the round before one."""
    return tuple((p.direction, p.name, p.layer) for row in out[max(0, before - 1) : before] for p in row if p.kernels)


def _reduce(out: list[list[Part]], traffic: Traffic) -> None:
    """Reductions behind the last round of each bucket's units, and before them, or alone, sums over micro-batches."""
    beside, whole = traffic.moves.beside, any(part.direction == "B" for row in out for part in row)
    for bucket in traffic.buckets:
        rounds = _rounds(bucket, "B", len(out))
        made = tuple((p.direction, p.name, p.layer) for r in rounds for p in out[r] if p.kernels and p.place >= 0)
        if not made or not bucket.reduce:
            continue
        row, after = out[rounds[-1]], made
        if traffic.sums:
            name, wide = named_part(SUM, bucket), _wide(bucket)
            added = (_copy(SUM, bucket.size, read=HALF + wide, write=wide),)
            row.append(Part(name, "W", bucket.layer, added, place=COPIED, chained=False, after=made))
            after = (("W", name, bucket.layer),)
        if not traffic.reduce:
            continue
        if traffic.moves.copied or traffic.moves.flat:
            name = named_part(COPY_IN, bucket)
            copies = _to_reduce(bucket, traffic)
            row.append(Part(name, "W", bucket.layer, copies, place=COPIED, chained=False, after=after))
            after = (("W", name, bucket.layer),)
        half = "W" if beside or not whole else "B"
        kernels = tuple(_around(*each) for each in bucket.reduce)
        name = named_part(REDUCE, bucket)
        row.append(Part(name, half, bucket.layer, kernels, place=REDUCED, chained=half == "B", after=after))
        if traffic.moves.copied and not traffic.moves.zero:  # DDP's gradients are tensors of their own
            back, done = named_part(COPY_BACK, bucket), ((half, name, bucket.layer),)
            copy = (_copy(COPY_BACK, bucket.size),)
            out[-1].append(Part(back, "W", bucket.layer, copy, place=BACK, chained=False, after=done))


def _around(ring: Ring, op: Collective) -> Kernel:
    """A collective of the ranks that share a copy of what is sharded, or that have the same shard of copies."""
    return Kernel(op.kind, op, COMMUNICATION, meets=(REPLICA if ring.between else SHARD)[ring.experts])


def _copy(name: str, size: float, kind: str = "elementwise", read: float = HALF, write: float = HALF) -> Kernel:
    """Parameters or gradients of a bucket from or to the buffer of its collective. read, write: bytes of each."""
    return Kernel(name.replace(" ", "_"), Memory(kind, round(size), read, write))


def _wide(bucket: Bucket) -> float:
    """Bytes of a gradient in the format that is reduced."""
    ring, op = bucket.reduce[0]
    return op.size / ring.parameters


def _to_reduce(bucket: Bucket, traffic: Traffic) -> tuple[Kernel, ...]:
    """What makes gradients of a bucket, in BF16 or summed up, into what its collective reads: a copy in its format
    (fully_shard: torch._chunk_cat); of one tensor they are joined (the gradient of its split), cast, and divided by a
    part of the ranks, so that no sum overflows (torch/distributed/fsdp/_runtime_utils.py, _post_backward_hook;
    torch/distributed/algorithms/_comm_hooks/default_hooks.py, reduce_scatter_hook)."""
    wide = _wide(bucket)
    if not traffic.moves.flat:
        return (_copy(COPY_IN, bucket.size, read=wide if traffic.sums else HALF, write=wide),)
    cast = (_copy("flat_cast", bucket.size, "convert", HALF, wide),) if wide != HALF else ()
    return (_copy("flat_join", bucket.size, "join"), *cast, _copy("flat_divide", bucket.size, read=wide, write=wide))
