"""The units of a DeepSeek model in order, and how tokens choose among its experts."""

from functools import cache

from sim.models.blocks.made import Made
from sim.models.deepseek.shape import DeepSeekShape
from sim.models.layer import Unit
from sim.models.mixture import Mixture


@cache
def units(shape: DeepSeekShape) -> tuple[Unit, ...]:
    """Embedding, layers, head; a multi-token-prediction module is projection, layer, head."""
    out = [Unit("embedding", -1), *(_block(shape, i) for i in range(shape.layers)), Unit("head", -1)]
    for depth in range(shape.mtp_depth):
        layer = shape.layers + depth
        out += [Unit("projection", layer, beside=True, title="MTP projection")]
        out += [_mixed(layer)._replace(beside=True), Unit("head", layer, beside=True)]
    return tuple(out)


def _block(shape: DeepSeekShape, layer: int) -> Unit:
    return Unit("dense", layer, block=True) if layer < shape.dense_layers else _mixed(layer)


def _mixed(layer: int) -> Unit:
    return Unit("moe", layer, block=True, routed=True, title="MoE")


def mixture(shape: DeepSeekShape) -> Mixture:
    """Mixture of its routed layers."""
    return Mixture(shape.experts, shape.experts_per_token, shape.groups, shape.groups_per_token, shape.score)


def made(shape: DeepSeekShape, unit: Unit) -> Made:
    """What a unit is made of."""
    norm, biased = shape.hidden, shape.score == "sigmoid"
    if not unit.block:
        return Made(unit.kind, norm_parameters=norm)
    if unit.kind == "dense":
        return Made("", shape.latent, shape.dense, norm_parameters=norm)
    return Made("", shape.latent, shape.mixed, mixture(shape), biased, norm)
