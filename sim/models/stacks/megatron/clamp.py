"""Limits on what experts' activations read (gpt-oss), in plain operations of torch around the fused activation.

`weighted_bias_quick_geglu_impl` (megatron/core/fusions/fused_bias_geglu.py, core 0.15 to 0.18) cuts the first product
in two, clamps each half, joins them, and only then calls the kernel that it is named for; its offset it makes anew on
the device each time, a copy that the host waits for. The gradient of a clamp is not one kernel either: comparisons that
write masks, and a choice between the gradient and zero; that of the cut joins both halves. Kernels are those of
torch 2.11 in a profile on an H200 (2026-11-30; 16,384 and 69,632 rows, halves of 2,880): those that read a half of a
row go element by element and reach 1.2 to 1.8 TB/s, the joins 3.9. Where the whole step is one graph, and where
TransformerEngine's fused operations make the experts (`use_transformer_engine_op_fuser`), the clamp is in their kernel.
"""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory, small
from sim.models.blocks.experts import Experts
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared

MASK = 1
"""Bytes of an element of a mask."""
ONE = PLAIN_BF16.row_bytes(1)
BACKWARD = {
    "up_least": (ONE, MASK), "up_most": (ONE, MASK), "up_both": (2 * MASK, MASK), "up_choice": (ONE + MASK, ONE),
    "gate_most": (ONE, MASK), "gate_choice": (ONE + MASK, ONE),
}  # fmt: skip
"""Kernel -> bytes of an element of a half that it reads and writes: gates have one limit, their companions two."""


def clamped(site: Shared, experts: Experts) -> list[Kernel]:
    """Forward, behind the first product: a clamp of each half, both joined, and the offset."""
    if not _apart(site, experts):
        return []
    halves = [_half(site, experts, f"clamp_{half}", "strided", ONE, ONE) for half in ("gate", "up")]
    return [*halves, _joined(site, experts, "clamp_join"), Kernel("clamp_offset", small("tiny"), waits=True)]


def clamped_backward(site: Shared, experts: Experts) -> list[Kernel]:
    """Backward, behind the activation's. Zeros to choose between are made by a kernel each."""
    if not _apart(site, experts):
        return []
    out = []
    for name, sizes in BACKWARD.items():
        if name.endswith("choice"):
            out.append(Kernel(f"clamp_bwd_{name}_zero", small("tiny")))
        kind = "elementwise" if name == "up_both" else "strided"  # masks are whole tensors
        out.append(_half(site, experts, f"clamp_bwd_{name}", kind, *sizes))
    return [*out, _joined(site, experts, "clamp_bwd_join")]


def kept(site: Shared, experts: Experts) -> float:
    """Bytes of a row: halves before their clamps, beside those behind."""
    return PLAIN_BF16.row_bytes(experts.routed.first) if _apart(site, experts) else 0.0


def _apart(site: Shared, experts: Experts) -> bool:
    return experts.routed.clamped and not (site.stack.cuda_graphs or site.stack.fused_experts)


def _half(site: Shared, experts: Experts, name: str, kind: str, read: float, write: float) -> Kernel:
    width = experts.routed.width
    return Kernel(name, Memory(kind, site.expert_rows, read * width, write * width))


def _joined(site: Shared, experts: Experts, name: str) -> Kernel:
    row = PLAIN_BF16.row_bytes(experts.routed.first)
    return Kernel(name, Memory("join", site.expert_rows, row, row))
