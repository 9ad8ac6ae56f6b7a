"""Mamba-2 (arXiv:2405.21060): its norm, projections, convolution and chunked scan, and their gradients.

Kernels, and what backward computes again (convolution, states, the output's norm), are those of
MambaSplitConv1dScanCombinedFn in github.com/state-spaces/mamba, mamba_ssm/ops/triton/ssd_combined.py. That function
has no other way, so of the choices only `norm` is felt, by the first one. The scan's products are narrow: on an H200
they reach a seventh of the tensor core's rate at most, so each is a kind of memory-bound kernel, by the bytes that it
takes and leaves, and as long as one was timed (numerics/card/timed/mamba.json).
"""

from typing import NamedTuple

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory, cast_transpose, elementwise, norm
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


class Streams(NamedTuple):
    """Bytes of a token: x (as many: z and gradients), B or C, a chunk's products of both (FP32), states in BF16, and a
    number a head in FP32."""

    x: int
    b: int
    cb: int
    states: float
    head: int


def streams(site: Shared, m: Mamba) -> Streams:
    """Of a scan."""
    states = BF16_WIDTH * m.inner * m.state * _chunks(site, m) / site.tokens
    b = BF16_WIDTH * m.groups * m.state
    return Streams(BF16_WIDTH * m.inner, b, FP32_WIDTH * m.groups * m.chunk, states, FP32_WIDTH * m.heads)


def _kernel(site: Shared, name: str, kind: str, read: float, write: float) -> Kernel:
    return Kernel(name, Memory(f"scan_{kind}", site.tokens, read, write))


def _states(site: Shared, m: Mamba, tail: str = "") -> list[Kernel]:
    """Decays, states of chunks, what they hand on, and the products of C and B; again in backward, where what is handed
    on stays in FP32."""
    x, b, cb, states, head = streams(site, m)
    return [
        _kernel(site, f"chunk_cumsum{tail}", "cumsum", head / 2, 2 * head),
        _kernel(site, f"chunk_state{tail}", "chunk_state", x + b + 2 * head, 2 * states),
        _kernel(site, f"state_passing{tail}", "passing", 2 * states, 2 * states if tail else states),
        _kernel(site, f"bmm_chunk{tail}", "bmm", 2 * b, cb),
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


def forward_scan(site: Shared, m: Mamba, gated: bool = False) -> list[Kernel]:
    """Convolution and scan, whose last kernel has what the state holds and what is inside the chunk; where it is gated,
    the gate too, with the output before and behind it."""
    x, b, cb, states, head = streams(site, m)
    convolution = Kernel("conv1d", elementwise(site.tokens, m.convolved))
    outputs = 1 + gated
    scan = _kernel(site, "chunk_scan", "chunk_scan", cb + outputs * x + 2 * head + b + states, outputs * x)
    return [convolution, *_states(site, m), scan]


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
    return [Kernel("conv1d_recompute", elementwise(site.tokens, m.convolved)), *_states(site, m, "_recompute")]


def gate_backward(site: Shared, m: Mamba) -> Kernel:
    """Gradients of the gate and of what it took."""
    x = streams(site, m).x
    return _kernel(site, "chunk_scan_bwd_dz", "dz", 4 * x, 2 * x)


def backward_scan(site: Shared, m: Mamba) -> list[Kernel]:
    """Gradients of the scan and of the convolution."""
    x, b, cb, states, head = streams(site, m)
    sums = {"dB": 2 * b, "dC": 2 * b, "dcb": cb}
    return [
        _kernel(site, "chunk_scan_bwd_dstates", "dstates", b + x + head, 2 * states),
        _kernel(site, "state_passing_bwd", "passing_backward", 4 * states, 2 * states),
        _kernel(site, "chunk_scan_chunk_state_bwd_dx", "dx", 2 * x + b + cb + states + 2 * head, x + head),
        _kernel(site, "chunk_state_bwd_db", "db", x + states + b + 2 * head, 2 * b + head),
        _kernel(site, "chunk_scan_bwd_dC", "dc", x + states + b + head, 2 * b + head),
        _kernel(site, "chunk_scan_bwd_dcb", "dcb", 2 * x + 2 * head, cb),
        _kernel(site, "bmm_chunk_bwd_dB", "bmm_backward", cb + 3 * b, b),
        _kernel(site, "bmm_chunk_bwd_dC", "bmm_backward", cb + 3 * b, b),
        # parts of the gradients of B and C and of their products', which torch sums
        *(Kernel(f"sum_{name}", Memory("elementwise", site.tokens, width, width)) for name, width in sums.items()),
        *[Kernel("scan_small", Memory("tiny", 1, 0.0, 0.0))] * SMALL,
        # decays inside a chunk, from all pairs of its tokens again
        _kernel(site, "chunk_scan_bwd_ddA", "dda", 2 * x + cb + 2 * head, head),
        _kernel(site, "chunk_cumsum_bwd", "cumsum_backward", 2.5 * head, head / 2),
        Kernel("conv1d_bwd", elementwise(site.tokens, m.convolved, 2)),
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
