"""Biases of experts' last products in Megatron Core, in plain operations of torch, expert by expert.

`TEGroupedMLP._apply_bias` (megatron/core/transformer/moe/experts.py, core 0.15 to 0.17) splits rows by expert, adds to
each its bias times the row's probability, which is FP32, so that sums are too, joins them, and makes BF16 of them. The
first product's bias is added by TransformerEngine, which hands out its gradient with those of weights. Where the whole
step is one graph TransformerEngine's fused operations do all that (`use_transformer_engine_op_fuser`).
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32, Layout
from hwmodels.op import Memory
from sim.models.blocks.experts import Experts
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron.host import FUNCTION, LAUNCH, PIECE, work

Layouts = tuple[Layout, ...]
HALF, WIDE = (PLAIN_BF16,), (PLAIN_FP32,)


def added(site: Shared, experts: Experts) -> list[Kernel]:
    """Forward: bias times probability and the sum, an expert each; rows joined, and made BF16."""
    if not _apart(site, experts):
        return []
    own, pieces = site.local_experts, work(2 * PIECE * site.local_experts, "F")
    each = [_each(site, "scale", (), WIDE), _each(site, "add", HALF + WIDE, WIDE)]
    return [*each * own, _all(site, "join", WIDE, WIDE, 1.0 + pieces), _all(site, "bf16", WIDE, HALF)]


def added_backward(site: Shared, experts: Experts) -> list[Kernel]:
    """Backward: FP32 again; of each expert the rows' own gradient in BF16, and products with the probabilities and with
    the bias, which are summed up by columns and by rows; the rows' joined."""
    if not _apart(site, experts):
        return []
    fitted = work(LAUNCH, "B")  # what the engine does by itself to fit a gradient to its tensor
    each = [_each(site, "rows", WIDE, HALF, fitted)]
    for name in ("probabilities", "bias"):
        product, total = _each(site, f"by_{name}", WIDE, WIDE), _each(site, f"sum_{name}", WIDE, (), fitted, "reduce")
        each += [product, total]
    join = _all(site, "rows_join", HALF, HALF, 1.0 + work(FUNCTION["B"], "B"))
    return [_all(site, "fp32", HALF, WIDE), *each * site.local_experts, join]


def _apart(site: Shared, experts: Experts) -> bool:
    return experts.routed.bias and not (site.stack.cuda_graphs or site.stack.fused_experts)


def _each(
    site: Shared, name: str, read: Layouts, write: Layouts, host: float = 1.0, kind: str = "elementwise"
) -> Kernel:
    """Over the rows of an expert."""
    return _kernel(site, name, -(-site.expert_rows // site.local_experts), (read, write), host, kind)


def _all(site: Shared, name: str, read: Layouts, write: Layouts, host: float = 1.0) -> Kernel:
    """Over those of all."""
    return _kernel(site, name, site.expert_rows, (read, write), host, "elementwise")


def _kernel(site: Shared, name: str, rows: int, ends: tuple[Layouts, Layouts], host: float, kind: str) -> Kernel:
    read, write = (sum(form.row_bytes(site.shape.sent) for form in forms) for forms in ends)
    return Kernel(f"expert_bias_{name}", Memory(kind, rows, read, write), host=host)
