"""Mamba-2 (arXiv:2405.21060): its norm, projections, convolution and chunked scan, and their gradients.

Kernels, and what backward computes again (convolution, states, the output's norm), are those of
MambaSplitConv1dScanCombinedFn in github.com/state-spaces/mamba, mamba_ssm/ops/triton/ssd_combined.py. The scan's
products are batched ones, one a chunk and head (or group), priced as such; inside a chunk half of all pairs count, as
in causal attention. That function has no other way, so of the choices only `norm` is felt, by the first one.
"""

from functools import partial

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import SCAN, SCAN_BACKWARD, GroupedGemm, Memory, cast_transpose, elementwise, norm
from sim.models.blocks.mamba import Mamba
from sim.models.layer import Kernel
from sim.models.stacks.deepseek.linear import (
    BF16_WIDTH,
    Shared,
    dgrad,
    linear,
    norm_again,
    norm_backward,
    norm_output,
    quantized,
    wgrad,
)  # fmt: skip

FP32_WIDTH = 4
"""Bytes of an FP32 element: states, and cumulated decays."""
SMALL = 17
"""Operations of torch beside the scan's kernels backward whose tensors are small (of decays, time steps and skips:
five are filled, four summed, two each cumulated, turned round and added, two copied), as a profile of one call has
them: numerics/card/timed/mamba.json."""


def _chunks(site: Shared, m: Mamba) -> int:
    return site.sequences * -(-site.length // m.chunk)


def _batched(site: Shared, m: Mamba, each: int, rows: int, n: int, k: int, role: str = SCAN) -> GroupedGemm:
    """One product [rows, k] x [k, n] for each chunk and each of `each` heads or groups."""
    groups = _chunks(site, m) * each
    return GroupedGemm(groups, groups * rows, n, k, role, "bf16")


def _convolution(site: Shared, m: Mamba, reads: int = 1) -> Memory:
    """Its bytes forward, or backward (two tensors read)."""
    return elementwise(site.tokens, m.convolved, reads)._replace(kind="conv1d" if reads == 1 else "conv1d_backward")


def _states(site: Shared, m: Mamba, tail: str) -> list[Kernel]:
    """Decays, states of chunks, what they hand on, and the products of C and B; run again in backward."""
    t, passed = site.tokens, FP32_WIDTH * m.inner * m.state
    return [
        Kernel(f"chunk_cumsum{tail}", Memory("elementwise", t, BF16_WIDTH * m.heads, 2 * FP32_WIDTH * m.heads)),
        Kernel(f"chunk_state{tail}", _batched(site, m, m.heads, m.width, m.state, m.chunk)),
        Kernel(f"state_passing{tail}", Memory("elementwise", _chunks(site, m), passed, passed)),
        Kernel(f"bmm_chunk{tail}", _batched(site, m, m.groups, m.chunk, m.chunk // 2, m.state)),
    ]


def forward(site: Shared, m: Mamba) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]; the norm also adds the residual: two streams in, two out."""
    t, h = site.tokens, site.shape.hidden
    out = [Kernel("rmsnorm1", norm(t, h, 2, 2)), *linear(site, "in_proj", m.columns, h, "cast_x_for_in_proj")]
    return [
        *out,
        *forward_scan(site, m),
        Kernel("gated_norm", norm(t, m.inner, 2, 1)),
        *linear(site, "out_proj", h, m.inner, "cast_y"),
    ]


def forward_scan(site: Shared, m: Mamba) -> list[Kernel]:
    """Convolution and scan."""
    # what the state holds and what is inside the chunk, in one kernel
    inside = _batched(site, m, m.heads, m.chunk, m.width, m.state + m.chunk // 2)
    convolution = Kernel("conv1d", _convolution(site, m))
    return [convolution, *_states(site, m, ""), Kernel("chunk_scan", inside)]


def backward(site: Shared, m: Mamba) -> list[Kernel]:
    """Input gradients, from the output's to the residual's."""
    t, h = site.tokens, site.shape.hidden
    out = dgrad(site, "out_proj", h, m.inner, "cast_dY_out_proj")
    # reads y, z and the gradient; writes both gradients, and the output again for the weight gradient
    out += [*again(site, m), Kernel("gated_norm_bwd", norm(t, m.inner, 3, 3, "backward")), *backward_scan(site, m)]
    out += dgrad(site, "in_proj", m.columns, h, "cast_dzxbcdt")
    out += [Kernel("rmsnorm1_recompute", norm(t, h, 2, 2))] if norm_again(site, published=False) else []
    out += quantized(
        site, Kernel("castT_y", cast_transpose(t, m.inner)), Kernel("castT_dY_out_proj", cast_transpose(t, h)),
        Kernel("castT_dzxbcdt", cast_transpose(t, m.columns)),
        Kernel("castT_x_in_proj", cast_transpose(t, h, norm_output(site, published=False))),
    )  # fmt: skip
    return out + norm_backward("rmsnorm1_bwd", t, h, 3)


def again(site: Shared, m: Mamba) -> list[Kernel]:
    """What backward computes again."""
    return [Kernel("conv1d_recompute", _convolution(site, m)), *_states(site, m, "_recompute")]


def backward_scan(site: Shared, m: Mamba) -> list[Kernel]:
    """Gradients of the scan and of the convolution."""
    product = partial(_batched, site, m, role=SCAN_BACKWARD)
    q, n, p, passed = m.chunk, m.state, m.width, FP32_WIDTH * m.inner * m.state
    sums = {name: FP32_WIDTH * m.groups * width for name, width in (("dB", n), ("dC", n), ("dcb", q))}
    return [
        Kernel("chunk_scan_bwd_dstates", product(m.heads, p, n, q)),
        Kernel("state_passing_bwd", Memory("elementwise", _chunks(site, m), 2 * passed, passed)),
        Kernel("chunk_scan_chunk_state_bwd_dx", product(m.heads, q, p, n + q // 2)),
        Kernel("chunk_state_bwd_db", product(m.heads, q, n, p)),
        Kernel("chunk_scan_bwd_dC", product(m.heads, q, n, p)),
        Kernel("chunk_scan_bwd_dcb", product(m.heads, q, q // 2, p)),
        Kernel("bmm_chunk_bwd_dB", product(m.groups, q, n, q // 2)),
        Kernel("bmm_chunk_bwd_dC", product(m.groups, q, n, q // 2)),
        # parts of the gradients of B and C and of their products', which torch sums
        *(Kernel(f"sum_{name}", Memory("elementwise", site.tokens, width, width)) for name, width in sums.items()),
        *[Kernel("scan_small", Memory("tiny", 1, 0.0, 0.0))] * SMALL,
        # decays inside a chunk, from all pairs of its tokens again
        Kernel("chunk_scan_bwd_ddA", product(m.heads, q, q // 2, p)),
        Kernel("chunk_cumsum_bwd", Memory("elementwise", site.tokens, 2 * FP32_WIDTH * m.heads, BF16_WIDTH * m.heads)),
        Kernel("conv1d_bwd", _convolution(site, m, 2)),
    ]


def weight(site: Shared, m: Mamba) -> list[Kernel]:
    h = site.shape.hidden
    return [wgrad(site, "out_proj", h, m.inner), wgrad(site, "in_proj", m.columns, h)]


def kept(site: Shared, m: Mamba) -> float:
    """Bytes of a token until the input gradient: inputs of the norm and (where it is not computed again) of the first
    product, what that product makes, and the scan's output."""
    h = site.shape.hidden
    again = norm_again(site, published=False)
    inputs = PLAIN_BF16.row_bytes(h) + (0.0 if again else site.recipe.activation.row_bytes(h))
    return inputs + PLAIN_BF16.row_bytes(m.columns + m.inner)


def kept_for_weight(site: Shared, m: Mamba) -> float:
    """Bytes of a token until a split weight gradient: both sides of both products."""
    row, h = site.recipe.activation.row_bytes, site.shape.hidden
    return row(h) + row(m.columns) + row(m.inner) + row(h)


def workspace(site: Shared, m: Mamba) -> float:
    """Bytes in backward: the gradient of the first product's output, states and their gradients in FP32."""
    states = 2 * FP32_WIDTH * m.inner * m.state * _chunks(site, m)
    return site.tokens * PLAIN_BF16.row_bytes(m.columns + m.inner) + states
