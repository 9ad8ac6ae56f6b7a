"""A pool's instances as priced machines: what a rank weighs, how many tokens its cache holds, what a step takes."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

from hwmodels.collectives import wires
from hwmodels.node import Link
from hwmodels.units import seconds_to_ns
from sim.models.family import family
from sim.serving.cache import BITS, BYTE, token_bytes, weight_bytes
from sim.serving.experts import Gating
from sim.serving.grid import Grid
from sim.serving.measured import whole_experts
from sim.serving.prices import Prices
from sim.serving.rank import Rank
from sim.serving.step import Stepper
from sim.serving.values import NVLINK, SGLANG_0_4_6, TENSORRT_LLM, Pool, Serve

KEPT = 16
"""Pools whose prices are kept."""


@dataclass(frozen=True)
class Deployed:
    """An instance of a pool. memory_bytes: of a GPU, for weights and cache. token_bytes: of the cache, on a rank.
    tokens: that the cache of an attention group holds, whole blocks; prefix_tokens: of those, for prompts of the past;
    host_tokens: that host memory holds for it. rate: bytes/s at which a rank gets cache from other nodes; host: link of
    a GPU to host memory."""

    pool: Pool
    grid: Grid
    weight_bytes: float
    memory_bytes: float
    token_bytes: float
    tokens: int
    prefix_tokens: int
    host_tokens: int
    rate: float
    host: Link

    def host_ns(self, tokens: int) -> int:
        """Of a cache of so many tokens to or from host memory, all ranks of a group at once."""
        return seconds_to_ns(self.host.latency_s + self.token_bytes * tokens / self.host.effective)


@dataclass(frozen=True)
class _Priced:
    """A pool by what decides its prices. key: all of that."""

    key: str
    serve: Serve = field(compare=False)
    pool: Pool = field(compare=False)


@lru_cache(maxsize=KEPT)
def _deployed(priced: _Priced) -> Deployed:
    serve, pool = priced.serve, priced.pool
    own, element = family(serve.model.family), BITS[serve.cache.form] / BYTE
    part = serve.model.part(pool.tensor, pool.tensor if pool.expert == 1 else 1)
    split = pool.tensor, pool.expert, serve.node.gpus
    apart = serve.engine == SGLANG_0_4_6
    device = serve.node.device
    whole = pool.expert > 1 and serve.precision == "fp8" and whole_experts(device.name, serve.engine)
    gathers = (
        serve.engine == TENSORRT_LLM
        and device.architecture == "hopper"
        and pool.tensor < pool.expert <= serve.node.gpus
    )
    rank = Rank(
        part, *split, serve.precision, element, serve.cache.attention, pool.neighbours == NVLINK, apart, whole, gathers
    )
    links = wires(serve.node, serve.fabric)
    alone, beside = (
        Prices(serve.node.device, links, beside=each, engine=serve.engine, draw=serve.draw) for each in (False, True)
    )
    gating = _gating(serve, pool)
    deep = serve.speculation.depth
    decoding = Stepper(rank, alone, gating, pool.overlap, deep)
    prefilling = Stepper(rank, beside if pool.overlap else alone, gating, pool.overlap)
    units = [own.made(part, unit) for unit in own.units(part) if unit.block and not unit.beside]
    each, weights = token_bytes(units, element), weight_bytes(rank, pool.redundant_experts)
    memory = serve.node.device.hbm.capacity_bytes * serve.cache.memory
    held = int(max(0.0, memory - weights) / each) // serve.cache.block * serve.cache.block if each else 0
    kept = int(held * serve.cache.prefix) // serve.cache.block * serve.cache.block
    grid = Grid(decoding, prefilling, 1 + deep)
    beyond = int(serve.cache.host / each) // serve.cache.block * serve.cache.block if each else 0
    return Deployed(pool, grid, weights, memory, each, held - kept, kept, beyond, links.network, links.pcie)


def deployed(serve: Serve, pool: Pool) -> Deployed:
    """An instance of a pool; what it takes for steps is kept for scenarios that change none of it."""
    decide = (
        serve.model, serve.node, serve.node.figures, serve.node.device.figures, serve.fabric, serve.precision,
        serve.engine, serve.cache, serve.routing, serve.drift, serve.speculation.depth, serve.seed, serve.draw,
        pool._replace(instances=1),
    )  # fmt: skip
    return _deployed(_Priced(repr(decide), serve, pool))


def _gating(serve: Serve, pool: Pool) -> Gating | None:
    """Of the expert group of a pool."""
    own = family(serve.model.family)
    mixture = own.mixture(serve.model)
    if mixture is None:
        return None
    routed = sum(unit.routed and not unit.beside for unit in own.units(serve.model))
    routing = replace(serve.routing, redundant_experts=pool.redundant_experts)
    return Gating(mixture, pool.expert, serve.node.gpus, routing, serve.seed, routed, serve.drift)
