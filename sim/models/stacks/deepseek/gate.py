"""The gate of a mixture of experts: router logits, the choice of experts, and their gradients."""

from hwmodels.op import Gemm, cast, elementwise, small
from sim.models.layer import Kernel
from sim.models.stacks.deepseek.linear import Shared, norm_before, quantized

ROUTING_KERNELS = {"F": 37, "B": 26}
"""Tiny kernels of the gate (scores, group limit, top-k, normalisation) in the profile, after and before its GEMM."""


def forward(site: Shared, experts: int) -> list[Kernel]:
    """From the norm's output: logits in BF16, the choice, and the rows to dispatch."""
    t, h = site.tokens, site.shape.hidden
    out = [Kernel("gate", Gemm(t, experts, h, "fprop", "bf16"))]
    out += [Kernel("routing", small("routing_forward", t, 4.0 * experts, ROUTING_KERNELS["F"]))]
    return out + quantized(site, Kernel("cast_x_for_dispatch", cast(t, h)))


def again(site: Shared, experts: int) -> list[Kernel]:
    """The gate a second time, where the mixture behind it is computed again."""
    norms = norm_before(site)[:1]  # the rows to dispatch are cast behind the gate
    return [*norms, *forward(site, experts)]


def backward(site: Shared, experts: int) -> list[Kernel]:
    """Gradients of logits, of the gate's weights, and of its input."""
    t, h = site.tokens, site.shape.hidden
    return [
        Kernel("routing_bwd", small("routing_backward", t, 4.0 * experts, ROUTING_KERNELS["B"])),
        Kernel("gate_dgrad", Gemm(t, h, experts, "dgrad", "bf16")),
        Kernel("gate_wgrad", Gemm(experts, h, t, "wgrad", "bf16")),
        Kernel("grad_add", elementwise(t, h, 2)),
    ]
