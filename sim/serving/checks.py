"""What no deployment can be, each with the key that says it."""

from collections.abc import Iterator

from hwmodels.document import KeyPath, indivisible
from hwmodels.units import format_quantity
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.family import family, main_units
from sim.models.mixture import Mixture
from sim.serving.deployment import Deployed, deployed
from sim.serving.prices import EXCHANGE_SMS
from sim.serving.values import BOTH, CLOSED, DECODE, GAMMA, NIC, POISSON, PREFILL, SWAP, TRACE, Pool, Serve

NEEDED = {
    POISSON: ("rate", "prompt", "output", "count"), GAMMA: ("rate", "variation", "prompt", "output", "count"),
    CLOSED: ("clients", "prompt", "output", "count"), TRACE: ("file",),
}  # fmt: skip
"""Arrivals -> keys that they need."""

OF_ROUTING = {"spread": "sampled", "max_vio": "skewed", "histogram": "recorded"}
"""Keys of routing, and the kind that has them."""

Odd = tuple[KeyPath, str]


def check(serve: Serve) -> Iterator[Odd]:
    """Keys below `serve`, and a line for each."""
    wrong = [*_requests(serve), *_pools(serve), *_precision(serve), *_cache(serve), *_routing(serve), *_failures(serve)]
    for i, pool in enumerate(serve.pools):
        wrong += [(("pools", i, key), text) for key, text in _pool(serve, pool)]
    yield from wrong
    if not wrong:
        for i, pool in enumerate(serve.pools):
            yield from ((("pools", i), text) for text in _room(serve, pool, deployed(serve, pool)))


def _requests(serve: Serve) -> Iterator[Odd]:
    asked, given = serve.requests, serve.resolved["serve"]["requests"]
    for key in NEEDED[asked.arrivals]:
        if given.get(key) in (None, 0):
            yield ("requests", key), f"missing; requests that arrive by {asked.arrivals} need it"
    for key in ("rate", "variation", "clients", "prompt", "output", "file", "format", "speed"):
        belongs = key in NEEDED[asked.arrivals] or (asked.arrivals == TRACE and key in ("format", "speed"))
        if given.get(key) is not None and not belongs:
            yield ("requests", key), f"requests that arrive by {asked.arrivals} have none"


def _cache(serve: Serve) -> Iterator[Odd]:
    given, own = serve.cache, family(serve.model.family)
    if given.attention == "fp8" and given.form != "fp8":
        yield ("cache", "format"), f"found {given.form}; attention in fp8 needs fp8"
    latent = any(isinstance(own.made(serve.model, unit).mixer, Latent) for unit in own.units(serve.model))
    if given.attention == "fp8" and not latent:
        yield ("cache", "attention"), f"{serve.model.name} has no attention on latents; legal: bf16"
    if given.preempt == SWAP and not given.host:
        yield ("cache", "host"), "missing; sequences that are swapped go there"
    elif given.host and given.preempt != SWAP and not given.prefix:
        yield ("cache", "host"), "nothing goes there; legal: 0 unless prefix is above 0 or preempt is swap"


def _routing(serve: Serve) -> Iterator[Odd]:
    given, kind = serve.resolved["serve"]["routing"], serve.routing.kind
    for key, own in OF_ROUTING.items():
        if given.get(key) is not None and kind != own:
            yield ("routing", key), f"{kind} routing has none; legal with routing.kind: {own}"
        elif given.get(key) is None and kind == own and key != "spread":
            yield ("routing", key), f"missing; {own} routing needs it"
    rows, mixture = serve.routing.histogram or (), family(serve.model.family).mixture(serve.model)
    if not rows or mixture is None:
        return
    if len(rows[0]) != mixture.experts:
        what = f"found {len(rows[0])} experts a layer; {serve.model.name} has {mixture.experts}"
        yield ("routing", "histogram"), what
    routed = [unit for unit in family(serve.model.family).units(serve.model) if unit.routed]
    legal = sorted({1, len(main_units(routed)), len(routed)})
    if len(rows) not in legal:
        what = f"legal: {', '.join(map(str, legal))} (1 for all, or those with experts, MTP last)"
        yield ("routing", "histogram"), f"found {len(rows)} layers; {what}"


def _failures(serve: Serve) -> Iterator[Odd]:
    given = serve.resolved["serve"]["failures"]
    if given and not given["mtbf"]:
        yield ("failures", "mtbf"), "found 0 s; legal: above 0, or no failures where none happen"


def _pools(serve: Serve) -> Iterator[Odd]:
    kinds = {pool.does for pool in serve.pools}
    if kinds not in ({BOTH}, {PREFILL, DECODE}):
        words = ", ".join(sorted(kinds)) or "none"
        yield ("pools",), f"found {words}; legal: pools that do both, or some that prefill and some that decode"
    if serve.fabric is None and any(pool.gpus > serve.node.gpus for pool in serve.pools):
        yield ("fabric",), "missing; instances of more than a node need it"


def _precision(serve: Serve) -> Iterator[Odd]:
    device = serve.node.device
    if serve.precision not in device.peak_flops:
        legal = ", ".join(name for name in ("fp8", "bf16") if name in device.peak_flops)
        yield ("precision",), f"{device.name} has no {serve.precision} tensor cores; legal: {legal}"
    own = family(serve.model.family)
    if any(isinstance(own.made(serve.model, unit).mixer, Mamba) for unit in own.units(serve.model)):
        yield ("model",), f"{serve.model.name} has layers of Mamba-2, which are not served; legal: attention alone"
    mixture = own.mixture(serve.model)
    if serve.speculation.depth and not any(unit.beside for unit in own.units(serve.model)):
        yield ("speculation", "depth"), f"{serve.model.name} has no prediction heads to draft by; legal: 0"
    if mixture is None and serve.routing.kind != "balanced":
        yield ("routing", "kind"), f"{serve.model.name} has no experts to choose; legal: balanced"
    if mixture is None and serve.drift:
        yield ("routing", "drift"), f"{serve.model.name} has no experts to choose; legal: 0"


def _pool(serve: Serve, pool: Pool) -> Iterator[tuple[str, str]]:
    mixture = family(serve.model.family).mixture(serve.model)
    for key, value, ranks in serve.model.splits(pool.tensor, pool.tensor if pool.expert == 1 else 1):
        yield "tensor", indivisible(f"model.{key} {value}", value, "tensor", ranks)
    if pool.tensor > serve.node.gpus and pool.tensor % serve.node.gpus:
        yield "tensor", f"found {pool.tensor}; legal: 1 to {serve.node.gpus} (the GPUs of a node), or whole nodes"
    if pool.expert > 1:
        yield from _experts(pool, mixture)
    elif pool.redundant_experts:
        yield "redundant_experts", "copies need ranks of their own; legal: 0 where expert is 1"
    if pool.neighbours == NIC and (pool.expert <= pool.tensor or pool.does == PREFILL):
        yield "neighbours", "no decode step exchanges anything; legal: nvlink unless expert is above tensor"
    if pool.overlap and pool.expert <= pool.tensor:
        yield "overlap", "nothing is exchanged that two micro-batches hide; legal: false unless expert is above tensor"
    elif pool.overlap and serve.node.device.sms <= EXCHANGE_SMS:
        what = f"{serve.node.device.name} has {serve.node.device.sms}; legal: false"
        yield "overlap", f"exchanges of prompts hold {EXCHANGE_SMS} SMs beside compute, and {what}"


def _experts(pool: Pool, mixture: Mixture | None) -> Iterator[tuple[str, str]]:
    if mixture is None:
        yield "expert", "the model has no experts; legal: 1"
        return
    slots = mixture.experts + pool.redundant_experts
    if pool.expert > slots:
        what = f"{pool.expert} ranks for {mixture.experts} experts and {pool.redundant_experts} copies"
        yield "expert", f"{what}; legal: up to {slots}"
    elif slots % pool.expert:
        yield "expert", indivisible(f"{slots} experts and copies", slots, "expert", pool.expert)
    if pool.expert % pool.tensor:
        yield "expert", f"found {pool.expert}; legal: multiples of tensor ({pool.tensor}), or 1"


def _room(serve: Serve, pool: Pool, own: Deployed) -> Iterator[str]:
    """Whether weights fit, and one request with them."""
    have, weights = own.memory_bytes, own.weight_bytes
    if weights >= have:
        shown, of = (format_quantity(size, "data") for size in (weights, have))
        yield f"weights take {shown} of the {of} that a GPU has for them and the cache; more ranks hold less each"
        return
    longest = serve.requests.prompt.most + serve.requests.output.most  # of prompts alone too: answers begin anew there
    if serve.requests.arrivals != TRACE and longest > own.tokens:
        yield f"a request of {longest:,} tokens does not fit: the cache of an attention group holds {own.tokens:,}"
