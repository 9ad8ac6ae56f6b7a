"""Mamba-2 in Megatron Core: TransformerEngine's projections around mamba_ssm's scan.

megatron/core/ssm/mamba_mixer.py (core 0.16, `_ssm_training`): the scan takes whole sequences one behind the other, so
where a micro-batch has several, what goes in and comes out is copied from and to [tokens, sequences], and so are
gradients. The gate is the scan's own, which reads it and writes its output before and behind it, and has a kernel of
its own backward (mamba_ssm, ops/triton/ssd_combined.py, `_chunk_scan_bwd_dz`); the norm of heads' groups stands behind.
"""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import copy, norm
from hwmodels.refused import Refused
from sim.models.blocks.mamba import Mamba
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.deepseek import mamba as scan
from sim.models.stacks.megatron.casts import normed, transposed
from sim.models.stacks.megatron.linear import (
    first,
    first_dgrad,
    first_wgrad,
    fused,
    last,
    last_dgrad,
    last_wgrad,
    norm_backward,
)
from sim.models.stacks.sharing import END, piece


def forward(site: Shared, m: Mamba) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind. Raises Refused."""
    if site.groups.context > 1:
        raise Refused("parallel.context is not built for mamba layers; legal: 1")
    t, h = site.tokens, site.shape.hidden
    out = [*normed(site, "input_norm", site.own, h), *first(site, "in_proj", m.columns, h)]
    out += [*_turned(site, "scan_in", m.columns), *scan.forward_scan(site, m, gated=True)]
    out += [*_turned(site, "scan_out", m.inner), Kernel("scan_norm", norm(t, m.inner))]
    out += last(site, "out_proj", h, m.inner)
    return [*out, fused("residual", site.own, h, 2, 1)]


def backward(site: Shared, m: Mamba) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, own, h = site.tokens, site.own, site.shape.hidden
    out = [*last_dgrad(site, "out_proj", h, m.inner), *norm_backward("scan_norm_bwd", t, m.inner)]
    out += [*_turned(site, "dscan_out", m.inner), *scan.again(site, m)]
    out += [scan.gate_backward(site, m), *scan.backward_scan(site, m)]
    out += [*_turned(site, "dscan_in", m.columns), *first_dgrad(site, "in_proj", m.columns, h)]
    end = [*transposed(site, "input_norm", own, h), *norm_backward("input_norm_bwd", own, h)]
    return out + piece(site, END, [*end, fused("add_residual", own, h, 2, 1)])


def weight(site: Shared, m: Mamba) -> list[Kernel]:
    h = site.shape.hidden
    return [*last_wgrad(site, "out_proj", h, m.inner), *first_wgrad(site, "in_proj", m.columns, h)]


def kept(site: Shared, m: Mamba) -> float:
    """Bytes of a token until the input gradient: those that scans keep everywhere, the input of the norm behind, and
    that of the product behind it."""
    return scan.kept(site, m) + PLAIN_BF16.row_bytes(m.inner) + site.recipe.activation.row_bytes(m.inner)


def _turned(site: Shared, name: str, width: int) -> list[Kernel]:
    """Tokens of sequences one behind the other, or back, where there are several."""
    return [Kernel(name, copy(site.tokens, width))] if site.sequences > 1 else []
