"""What the page of serving shows beside published rows: overlap, drafts, copies and the cache over the load."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from hwmodels.document import Document
from hwmodels.units import NS_PER_S, US_NS
from sim.serving import files
from sim.serving.attention import attention
from sim.serving.deployment import Deployed, deployed
from sim.serving.rank import Batch
from sim.serving.values import NIC, SGLANG_0_4_6, Serve

KEYS = 2048.0
"""Keys of a sequence in the curves, unless one says otherwise."""
BATCHES = (8, 16, 32, 64, 128, 256)
ACCEPTANCE = 0.85
"""Of second tokens, the lower end of what DeepSeek-V3's report says (arXiv:2412.19437 sec 5.4.3)."""


def made(node: str, pool: Mapping[str, Any], **more: Any) -> tuple[Serve, Deployed]:
    """An instance of a pool, and its scenario. more: keys of `serve`."""
    asked = {"arrivals": "closed", "clients": 1, "count": 1, "prompt": 1, "output": 1}
    own = {"model": "deepseek_v3", "node": node, "fabric": "ndr", "pools": [pool], "requests": asked, **more}
    serve = files.resolve(Document({"name": "curve", "serve": own}, {}))
    return serve, deployed(serve, serve.pools[0])


class Overlap(NamedTuple):
    """ns of a step of `batch` sequences a GPU in one micro-batch and in two; and of half of them in one."""

    batch: int
    one: int
    two: int
    half: int


def overlap() -> Iterator[Overlap]:
    """EP72 of H100s, by the kernels of SGLang's page: rows go to the own node's GPUs through the NIC."""
    pool = {"expert": 72, "redundant_experts": 32, "neighbours": NIC}
    both = (made("h100x8", {**pool, "overlap": each}, engine=SGLANG_0_4_6) for each in (False, True))
    apart, together = (own.grid.decoding for _, own in both)
    for batch in BATCHES:
        own = Batch(batch, 1, KEYS)
        yield Overlap(batch, apart.ns(own), together.ns(own), apart.ns(own._replace(sequences=batch // 2)))


def drafts(depths: tuple[int, ...] = (1, 2, 3)) -> Iterator[tuple[int, list[float]]]:
    """Sequences of a GPU, and how many times as fast with so many drafts: EP32 of H800s."""
    serve, own = made("h800x8", {"expert": 32})
    for batch in (1, *BATCHES):
        alone = own.grid.decoding.ns(Batch(batch, 1, KEYS))
        gains = []
        for depth in depths:
            drafting = replace(own.grid.decoding, drafts=depth, known={})
            tokens = serve.speculation._replace(depth=depth, acceptance=ACCEPTANCE).tokens
            gains.append(tokens * alone / drafting.ns(Batch(batch, 1 + depth, KEYS)))
        yield batch, gains


def copies(copied: int = 32, batch: int = 128) -> Iterator[tuple[float, float, float, float]]:
    """How far the most popular expert is above the mean, the busiest rank over the mean without and with copies, and
    how many times as long a decode step takes without: EP32 of H100s."""
    for above in (0.5, 1.0, 2.0, 4.0):
        routing = {"kind": "skewed", "max_vio": above}
        steps = [
            made("h100x8", {"expert": 32, "redundant_experts": count}, routing=routing)[1].grid.decoding
            for count in (0, copied)
        ]
        own = Batch(batch, 1, KEYS)
        busiest = [sum(load.above for load in step.loads(own)) / len(step.loads(own)) for step in steps]
        yield above, busiest[0], busiest[1], steps[0].ns(own) / steps[1].ns(own)


def sizes(batches: tuple[int, ...] = (1, 4, 8, 16, 32, 64, 128)) -> Iterator[tuple[int, float, float]]:
    """Sequences of a GPU, and tokens/s of a GPU by EP16 and by EP32 of H20s: one draft, all in FP8."""
    cache = {"format": "fp8", "attention": "fp8"}
    speculation = {"depth": 1, "acceptance": ACCEPTANCE}
    both = [made("h20x8", {"expert": ranks}, cache=cache, speculation=speculation) for ranks in (16, 32)]
    for batch in batches:
        ns = (own.grid.decoding.ns(Batch(batch, 2, 2 * KEYS)) for _, own in both)
        tokens = batch * both[0][0].speculation.tokens * NS_PER_S
        one, other = (tokens / each for each in ns)
        yield batch, one, other


def forms() -> Iterator[tuple[int, float, float]]:
    """New tokens of a sequence of 4,096 keys, and microseconds of a layer's attention absorbed and plain: 8 H200s."""
    own = made("h200x8", {"tensor": 8})[1].grid.prefilling
    block = next(unit for unit in own.units if unit.routed)
    for queries in (1, 16, 64, 128, 256, 512, 2048):
        batch = Batch(1, queries, 4096.0, prefill=True)
        times = (own.prices.kernels_ns(attention(own.rank, block, batch, form)) / US_NS for form in (True, False))
        absorbed, plain = times
        yield queries, absorbed, plain


class Room(NamedTuple):
    """What a node of 8 H800s does at most with a model: sequences in the cache, and tokens/s of a decode step."""

    model: str
    sequences: int
    rate: float


def rooms(keys: int = 4096) -> list[Room]:
    """DeepSeek-V2 in FP8 with its cache in 6 bits, experts over 8 GPUs; DeepSeek 67B in BF16 over 8."""
    pairs = (
        ("deepseek_v2", {"expert": 8}, {"cache": {"format": "fp6"}}),
        ("deepseek_67b", {"tensor": 8}, {"precision": "bf16"}),
    )
    out = []
    for model, pool, more in pairs:
        own = made("h800x8", pool, model=model, **more)[1]
        count = own.tokens // keys
        ns = own.grid.decoding.ns(Batch(count, 1, float(keys)))
        groups = own.pool.groups
        out.append(Room(model, count * groups, count * groups / (ns / NS_PER_S)))
    return out
