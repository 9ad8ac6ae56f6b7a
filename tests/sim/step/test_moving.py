"""Gathers and reductions among the parts of a step: in which order, and what waits for what."""

from hwmodels.op import Collective, Memory
from sim.layout.buckets import Bucket, Traffic
from sim.layout.shards import AGAIN, EVERY, Moves
from sim.layout.traffic import Ring
from sim.models.layer import COMMUNICATION, Kernel, Part, Unit
from sim.step.overlap import Composition, compose

TICK = Kernel("tick", Memory("tiny", 1, 0.0, 0.0))
UNITS = (Unit("embedding", -1), Unit("dense", 0, True), Unit("dense", 1, True), Unit("head", -1))
RING = Ring(0, False, 1.0, 4, 1)


def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
    return (Part("mlp" if unit.block else unit.kind, direction, unit.layer, (TICK,)),)


def bucket(units: tuple[int, ...], label: str, layer: int) -> Bucket:
    around = {kind: ((RING, Collective(kind, 8.0, 4, 1)),) for kind in ("all_gather", "reduce_scatter")}
    return Bucket(units, label, layer, 4.0, around["all_gather"], around["reduce_scatter"])


WHOLE = (bucket((0, 3), "embedding", -1), bucket((1,), "dense", 0), bucket((2,), "dense", 1))


def composed(kind: str, ahead: bool = True, beside: bool = True, copied: bool = True) -> Composition:
    moves = Moves(3, EVERY, AGAIN, beside, ahead, True, copied, False)
    traffic = Traffic(WHOLE, True, True, True, moves)
    return compose(kind, UNITS, UNITS, parts, (traffic, traffic))


def names(composition: Composition, lane: int | None = None) -> list[str]:
    return [f"{p.label}{p.layer if p.layer >= 0 else ''}" for p in composition.phases if lane in (None, p.lane)]


def needs(composition: Composition, name: str) -> set[str]:
    every = names(composition)
    return {every[i] for i in composition.phases[every.index(name)].needs}


def test_a_forward_has_one_gather_ahead() -> None:
    forward = composed("F")
    assert names(forward, COMMUNICATION) == ["gather embedding(F)", "gather(F)0", "gather(F)1"]
    assert needs(forward, "gather(F)0") == {"copy out embedding(F)"}
    assert needs(forward, "gather(F)1") == {"copy out(F)0"}
    assert needs(forward, "copy out(F)1") == {"gather(F)1", "mlp(F)0"}
    assert needs(forward, "mlp(F)1") == {"copy out(F)1"}
    assert names(forward)[forward.forward_out] == "head(F)"


def test_parameters_that_lie_as_they_came_need_no_copy() -> None:
    """The next bucket is asked for when the one before begins."""
    forward = composed("F", copied=False)
    assert needs(forward, "gather(F)1") == {"embedding(F)"} and needs(forward, "mlp(F)1") == {"gather(F)1", "mlp(F)0"}


def test_a_backward_gathers_layers_again_and_reduces_ends_last() -> None:
    backward = composed("BW")
    assert names(backward, COMMUNICATION) == [
        "gather(B)1", "gather(B)0", "reduce(W)1", "reduce(W)0", "reduce embedding(W)",
    ]  # fmt: skip
    assert needs(backward, "gather(B)1") == set() and needs(backward, "gather(B)0") == {"copy out(B)1"}
    assert needs(backward, "copy in(W)0") == {"mlp(B)0", "mlp(W)0"} and needs(backward, "reduce(W)0") == {"copy in(W)0"}
    assert needs(backward, "copy in embedding(W)") == {"head(B)", "head(W)", "embedding(B)", "embedding(W)"}
    assert names(backward)[backward.backward_out] == "embedding(B)"  # gradients go on while others are reduced


def test_halves_that_are_split_move_what_they_need() -> None:
    """Input gradients read weights, weight gradients are reduced."""
    assert names(composed("B"), COMMUNICATION) == ["gather(B)1", "gather(B)0"]
    assert names(composed("W"), COMMUNICATION) == ["reduce(W)1", "reduce(W)0", "reduce embedding(W)"]
    both = names(composed("F+BW"), COMMUNICATION)
    assert sorted(both) == sorted(names(composed("F"), COMMUNICATION) + names(composed("BW"), COMMUNICATION))


def test_without_overlap_everything_is_in_the_chain() -> None:
    forward, backward = composed("F", ahead=False), composed("BW", ahead=False, beside=False)
    assert "mlp(F)0" in needs(forward, "gather(F)1") and "gather(F)1" in needs(forward, "copy out(F)1")
    assert "reduce(B)1" in needs(backward, "gather(B)0") and "copy in(W)1" in needs(backward, "reduce(B)1")
    assert names(backward)[backward.backward_out] == "reduce embedding(B)"


def sending(unit: Unit, direction: str) -> tuple[Part, ...]:
    """Units whose parts begin with something that they send."""
    sent = Kernel("send", Collective("all_gather", 1.0, 2, 1), COMMUNICATION)
    return (Part("mlp" if unit.block else unit.kind, direction, unit.layer, (sent, TICK)),)


def test_what_units_send_passes_the_gather_ahead() -> None:
    """It has a communicator of its own: the gather stands behind it, a collective a unit, so that none waits for all of
    a bucket; the bucket is there before its first unit all the same."""
    units = (*UNITS[:3], Unit("dense", 2, True), Unit("head", -1))
    pieces = ((RING, Collective("all_gather", 8.0, 4, 1)),) * 2
    wide = Bucket((1, 2), "dense", 0, 4.0, pieces, ())
    last = Bucket((3, 4), "dense", 2, 4.0, pieces, ())
    moves = Moves(1, "never", "first", True, True, False, False, False)
    traffic = Traffic((bucket((0,), "embedding", -1), wide, last), True, False, False, moves)
    found = compose("F", units, (), sending, (traffic, None))
    assert names(found, COMMUNICATION) == [
        "gather embedding(F)", "embedding(F)", "gather(F)0", "gather rest(F)0",
        "mlp(F)0", "gather(F)2", "mlp(F)1", "gather rest(F)2", "mlp(F)2", "head(F)",
    ]  # fmt: skip
    assert needs(found, "mlp(F)0") >= {"gather(F)0"} and needs(found, "mlp(F)2") >= {"gather(F)2"}
    plain = compose("F", units, (), parts, (traffic, None))
    assert names(plain, COMMUNICATION)[:3] == ["gather embedding(F)", "gather(F)0", "gather rest(F)0"]


def test_one_tensor_of_a_unit_is_gathered_in_place_and_reduced_behind_three_passes() -> None:
    """Joined of its parameters' gradients, cast, divided; tensors of their own are copied in the reduction's format."""
    moves = Moves(3, EVERY, AGAIN, True, True, True, False, False, flat=True)
    flat = compose("F+BW", UNITS, UNITS, parts, (Traffic(WHOLE, True, True, True, moves),) * 2)
    assert not [name for name in names(flat) if name.startswith("copy out")]
    assert needs(flat, "reduce(W)0") == {"copy in(W)0"}

    def copies(found: Composition) -> list[tuple[str, float]]:
        (phase,) = [p for p, name in zip(found.phases, names(found), strict=True) if name == "copy in(W)0"]
        return [(kernel.name, kernel.op.bytes()) for kernel in phase.kernels]

    # four parameters, whose collective moves eight bytes of each
    assert copies(flat) == [("flat_join", 16.0), ("flat_cast", 40.0), ("flat_divide", 64.0)]
    assert copies(composed("F+BW")) == [("copy_in", 40.0)]


def test_what_ranks_tell_each_other_ends_a_pass() -> None:
    """Behind the last part of each pass, which is through with it; weight gradients alone tell nothing."""
    told = (TICK, Kernel("share", Collective("all_reduce", 8.0, 4, 1), COMMUNICATION), TICK)
    traffic = Traffic((), False, False, False, Moves(1, "never", "never", False, False, False, False, False), told)
    forward, backward = (compose(kind, UNITS, UNITS, parts, (traffic, traffic)) for kind in ("F", "BW"))
    assert names(forward)[-3:] == ["amax(F)"] * 3 and names(forward)[:-3] == names(compose("F", UNITS, (), parts))
    assert forward.forward_out == len(forward.phases) - 1 and needs(forward, "amax(F)") == {"head(F)"}
    assert names(backward).count("amax(B)") == 3 and names(backward)[backward.backward_out] == "amax(B)"
    assert "amax(B)" not in names(compose("W", (), UNITS, parts, (None, traffic)))


ROUTED = (Unit("dense", 0, True), Unit("moe", 1, True, True), Unit("moe", 2, True, True))
EXPERTS = Ring(0, True, 1.0, 2, 1)


def exchanging(unit: Unit, direction: str) -> tuple[Part, ...]:
    sent = Kernel("send", Collective("all_to_all", 8.0, 4, 1), COMMUNICATION)
    routed = [("dispatch", sent), ("mlp", TICK), ("combine", sent)] if unit.routed else [("mlp", TICK)]
    named = enumerate([("attn", TICK), *routed])
    return tuple(Part(name, direction, unit.layer, (each,), place=place) for place, (name, each) in named)


def test_a_forward_that_asks_for_its_parameters_waits_for_all_of_them_and_for_experts_where_it_needs_them() -> None:
    """Megatron Core without aligned gathers: one bucket of a stage, and one of its experts, asked for behind their
    first dispatch."""
    around = tuple((ring, Collective("all_gather", 8.0, ring.ranks, 1)) for ring in (RING, EXPERTS))
    moves = Moves(1, "never", "first", True, True, False, False, False)
    traffic = Traffic((Bucket((0, 1, 2), "dense", 0, 4.0, around, ()),), True, False, False, moves, routed=1)
    forward = compose("F", ROUTED, (), exchanging, (traffic, None))
    assert names(forward, COMMUNICATION)[:3] == ["gather(F)0", "dispatch(F)1", "gather experts(F)0"]
    assert needs(forward, "attn(F)0") == {"gather(F)0"} and needs(forward, "gather(F)0") == set()
    assert needs(forward, "gather experts(F)0") == {"dispatch(F)1"}
    assert "gather experts(F)0" in needs(forward, "mlp(F)1") and "gather experts(F)0" not in needs(forward, "mlp(F)2")


def test_what_was_gathered_is_copied_out_in_its_own_format() -> None:
    """Of a bucket of 4 parameters as many bytes each as its gather brought: 2, or 1 in FP8."""
    for size, each in ((8.0, 2.0), (4.0, 1.0)):
        narrow = WHOLE[1]._replace(gather=((RING, Collective("all_gather", size, 4, 1)),))
        traffic = Traffic(
            (WHOLE[0], narrow, WHOLE[2]), True, True, True, Moves(3, EVERY, AGAIN, True, True, True, True, False)
        )
        composition = compose("F", UNITS, UNITS, parts, (traffic, traffic))
        copied = next(p for p in composition.phases if p.label == "copy out(F)" and p.layer == 0)
        assert [(k.op.read, k.op.write) for k in copied.kernels] == [(each, each)]
