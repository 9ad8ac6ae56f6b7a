"""Attention of a DeepSeek layer with what follows it there: the residual's scale, the second norm and the gate."""

from hwmodels.op import cast, elementwise, norm
from sim.models.deepseek.shape import Site
from sim.models.layer import Kernel
from sim.models.stacks.deepseek import gate, mla
from sim.models.stacks.deepseek.linear import norm_backward, quantized


def attention_forward(site: Site, moe: bool) -> list[Kernel]:
    s, t = site.shape, site.tokens
    out = mla.forward(site, s.latent)
    out += [Kernel("residual_scale", elementwise(t, s.hidden)), Kernel("rmsnorm2", norm(t, s.hidden, 2, 2))]
    if moe:
        return out + gate.forward(site, s.experts)
    return out + quantized(site, Kernel("cast_x_recompute", cast(t, s.hidden)))


def attention_backward(site: Site, moe: bool) -> list[Kernel]:
    s, t = site.shape, site.tokens
    out = gate.backward(site, s.experts) if moe else []
    # dY of the shared and routed paths and of the residual meet here
    out += [*norm_backward("rmsnorm2_bwd", t, s.hidden, 5), Kernel("residual_scale_bwd", elementwise(t, s.hidden))]
    return out + mla.backward(site, s.latent)


def attention_weight(site: Site, moe: bool) -> list[Kernel]:
    return mla.weight(site, site.shape.latent)
