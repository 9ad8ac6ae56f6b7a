"""Keys of a served load that somebody gave and its run does not feel: a line each."""

from collections.abc import Iterator

from sim.models.blocks.mla import Latent
from sim.models.family import family
from sim.serving.form import ServeForm
from sim.serving.measured import engines
from sim.serving.values import DECODE, PREFILL, PREFIX, SGLANG_0_4_6, Serve

MOONCAKE = "mooncake"
"""The format whose traces name the blocks that prompts share."""


def unfelt(form: ServeForm, serve: Serve) -> Iterator[str]:
    """Lines such as "serve.router changes nothing: ..."."""
    for key, why in (*_of_router(form), *_of_cache(form), *_of_deployment(form, serve)):
        yield f"serve.{key} changes nothing: {why}"


def _of_router(form: ServeForm) -> Iterator[tuple[str, str]]:
    apart = [
        sum(pool.instances for pool in form.pools if (pool.does == DECODE) is decodes) for decodes in (False, True)
    ]
    if "router" in form.model_fields_set and max(apart) == 1:
        yield "router", "there is one instance to go to"
    elif form.router == PREFIX and not form.cache.prefix:
        yield "router", "cache.prefix is 0, so no prompt is kept; requests go to the least loaded"
    elif form.router == PREFIX and form.requests.format != MOONCAKE:
        yield "router", f"no request names what it shares but those of {MOONCAKE}; they go to the least loaded"


def _of_cache(form: ServeForm) -> Iterator[tuple[str, str]]:
    if form.cache.prefix and form.requests.format != MOONCAKE:
        yield "cache.prefix", f"but that others have less room: no request names what it shares but those of {MOONCAKE}"
    if "acceptance" in form.speculation.model_fields_set and not form.speculation.depth:
        yield "speculation.acceptance", "nothing is drafted (speculation.depth is 0)"


def _of_deployment(form: ServeForm, serve: Serve) -> Iterator[tuple[str, str]]:
    card = serve.node.device.name
    if form.engine == SGLANG_0_4_6 and not _latent(serve) and all(pool.expert <= pool.tensor for pool in serve.pools):
        yield "engine", f"{SGLANG_0_4_6} has other kernels for latent attention and for exchanges alone"
    elif "engine" in form.model_fields_set and form.engine != SGLANG_0_4_6 and not engines(card):
        yield "engine", f"nobody's own kernels were measured on {card}"
    inside = all(pool.gpus <= serve.node.gpus and pool.does not in (PREFILL, DECODE) for pool in serve.pools)
    if serve.fabric and inside:
        yield "fabric", "no instance is larger than a node, and no cache is sent"
    for i, pool in enumerate(form.pools):
        if pool.does == DECODE and "chunk" in pool.model_fields_set:
            yield f"pools.{i}.chunk", "prompts are computed elsewhere"


def _latent(serve: Serve) -> bool:
    """Whether a model attends to latents."""
    own = family(serve.model.family)
    return any(isinstance(own.made(serve.model, unit).mixer, Latent) for unit in own.units(serve.model))
