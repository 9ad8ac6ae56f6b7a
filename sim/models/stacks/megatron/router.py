"""The router of a mixture in Megatron Core: the norm before it, its product, scores, the chosen of them, balance.

`moe_router_fusion`: scores and top-k in one kernel, the auxiliary loss in two. Without it (`stack.router` plain) all of
it is single operations of torch over tokens and experts in FP32, as megatron/core/transformer/moe has them (core 0.14
to 0.17: router.py, TopKRouter.routing; moe_utils.py, topk_routing_with_score_function, group_limited_topk,
compute_routing_scores_for_aux_loss, switch_load_balancing_loss_func); what is of a token's few chosen alone is small.

`moe_router_dtype` FP32 (`stack.gating`; RouterGatingLinearFunction in moe_utils.py): forward reads BF16 and writes
FP32, but backward copies its input and its weights to FP32 and multiplies those, which cuBLAS does in TF32
(TransformerEngine, common/gemm/cublaslt_gemm.cu), and the input's gradient comes back to BF16. TF32 has half of BF16's
peak and twice its bytes, so such a product is priced as one in BF16 over twice the inner dimension.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Gemm, Memory, norm, small
from sim.models.blocks.experts import Experts
from sim.models.blocks.made import Made
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron.host import BALANCED, OPERATION, ROUTED, SCORED, work
from sim.models.stacks.megatron.linear import fused, norm_backward
from sim.models.stacks.stack import FP32_GATING, PLAIN_ROUTER

SIGMOID = "sigmoid"
NUMBER, TRUTH = 8, 0.25
"""Bytes of the number of an expert that a token chose; of a truth value, over those in FP32."""


CAPACITY = ("room_topk", "room_sort", "room_zeros", "room_scatter", "room_bool", "room_probs")
"""Small kernels of a router that chooses each expert's best tokens (`topk_softmax_with_capacity`)."""


def gate(site: Shared, made: Made) -> list[Kernel]:
    """The norm before a mixture, and its router."""
    experts = _experts(made)
    t, h, e = site.tokens, site.shape.hidden, experts.number
    row = PLAIN_FP32.row_bytes(e)
    out = [
        Kernel("mlp_norm", norm(t, h)),
        Kernel("router", Gemm(t, e, h, "fprop", "bf16"), host=work(ROUTED["F"], "F")),
    ]
    if site.stack.router == PLAIN_ROUTER:
        out += [*_chosen(site, made), *_balanced(site, made)]
    else:
        out += [
            Kernel("router_topk", Memory("softmax", t, row, 2 * row), host=work(SCORED["F"], "F")),
            Kernel("aux_scores", Memory("softmax", t, row, row), host=work(SCORED["F"], "F")),
            Kernel("aux_loss", small("tiny"), host=work(BALANCED["F"], "F")),
            *_tiny("aux_each", "aux_told", host=0.0),
        ]
    out += _tiny(*CAPACITY) if site.stack.padded else []
    return [*out, Kernel("counts", Memory("elementwise", t, row / 4, 0.0))]


def gate_backward(site: Shared, made: Made) -> list[Kernel]:
    """Gradients of the scores, of the router's input, and of the norm's."""
    experts = _experts(made)
    t, h, row = site.tokens, site.shape.hidden, PLAIN_FP32.row_bytes(experts.number)
    if site.stack.router == PLAIN_ROUTER:
        out = _scores_backward(site, made)
    else:
        out = [
            *_tiny("aux_one_bwd", "aux_scale_bwd", host=work(OPERATION, "B")),
            Kernel("aux_loss_bwd", small("tiny"), host=work(BALANCED["B"], "B")),
            Kernel("router_topk_bwd", Memory("softmax_backward", t, 2 * row, row), host=work(SCORED["B"], "B")),
        ]
    out += [*_dgrad(site, experts), fused("add_dx", t, h, 2, 1)]
    out += [fused("add_shared_dx", t, h, 2, 1)] if experts.shared.width else []
    return [*out, *norm_backward("mlp_norm_bwd", t, h), fused("add_residual", t, h, 2, 1)]


def gate_weight(site: Shared, made: Made) -> list[Kernel]:
    t, h, e = site.tokens, site.shape.hidden, _experts(made).number
    added = _tiny("router_wgrad_added")  # to the sum of micro-batches, which TransformerEngine's products do themselves
    if site.stack.gating != FP32_GATING:
        return [Kernel("router_wgrad", Gemm(e, h, t, "wgrad", "bf16")), *added]
    wide = Kernel("router_x_fp32", Memory("convert", t, PLAIN_BF16.row_bytes(h), PLAIN_FP32.row_bytes(h)))
    return [wide, Kernel("router_wgrad", Gemm(e, h, 2 * t, "wgrad", "bf16")), *_tiny("router_dw_bf16"), *added]


def _dgrad(site: Shared, experts: Experts) -> list[Kernel]:
    t, h, e = site.tokens, site.shape.hidden, experts.number
    launch = work(ROUTED["B"], "B")
    if site.stack.gating != FP32_GATING:
        return [Kernel("router_dgrad", Gemm(t, h, e, "dgrad", "bf16"), host=launch)]
    narrow = Memory("convert", t, PLAIN_FP32.row_bytes(h), PLAIN_BF16.row_bytes(h))
    product = Kernel("router_dgrad", Gemm(t, h, 2 * e, "dgrad", "bf16"), host=launch)
    return [*_tiny("router_w_fp32"), product, Kernel("router_dx_bf16", narrow)]


def _experts(made: Made) -> Experts:
    assert made.routed
    return made.routed


def _sigmoid(made: Made) -> bool:
    return made.gate is not None and made.gate.score == SIGMOID


# --- single operations ------------------------------------------------------------------------------------------------


def _tiny(*names: str, host: float = 1.0) -> list[Kernel]:
    return [Kernel(name, small("tiny"), host=host) for name in names]


def _whole(
    site: Shared, experts: Experts, name: str, read: float, write: float, kind: str = "elementwise"
) -> list[Kernel]:
    """One over tokens and experts: FP32 numbers read and written of each pair."""
    row = PLAIN_FP32.row_bytes(experts.number)
    return [Kernel(name, Memory(kind, site.tokens, read * row, write * row))]


def _topk(site: Shared, experts: Experts, name: str) -> list[Kernel]:
    """The best experts of each token, and their order."""
    few = (PLAIN_FP32.row_bytes(1) + NUMBER) * experts.chosen
    row = PLAIN_FP32.row_bytes(experts.number)
    return [Kernel(name, Memory("topk", site.tokens, row, few)), *_tiny(f"{name}_sort")]


def _map(site: Shared, experts: Experts, name: str) -> list[Kernel]:
    """Truth values of who was chosen: zeros, as whole numbers, a copy into which ones are scattered, as truths."""
    return [
        *_whole(site, experts, f"{name}_zeros", 0, 1, "fill"), *_whole(site, experts, f"{name}_int", 1, 1, "convert"),
        *_whole(site, experts, f"{name}_copy", 1, 1), *_tiny(f"{name}_scatter"),
        *_whole(site, experts, f"{name}_bool", 1, TRUTH, "convert"),
    ]  # fmt: skip


def _chosen(site: Shared, made: Made) -> list[Kernel]:
    """Scores, the best of them, made weights, and both spread over all experts. Sigmoids are
    divided by the sum of the chosen ones; a softmax is of the chosen alone."""
    experts, sigmoid = _experts(made), _sigmoid(made)
    out = _whole(site, experts, "router_scores", 1, 1) if sigmoid else []
    out += _whole(site, experts, "router_bias", 1, 1) if made.gate_bias else []
    if made.gate and made.gate.groups > 1:
        out += _topk(site, experts, "router_groups")
        out += _tiny("groups_sum", "groups_topk", "groups_zeros", "groups_scatter")
        out += [
            *_whole(site, experts, "groups_mask", 0, 1), *_whole(site, experts, "groups_bool", 1, TRUTH, "convert"),
            *_whole(site, experts, "groups_not", TRUTH, TRUTH), *_whole(site, experts, "groups_fill", 1 + TRUTH, 1),
        ]  # fmt: skip
    out += _topk(site, experts, "router_topk")
    weights = ("gather", "sum", "epsilon", "divided", "scaled") if sigmoid else ("softmax",)
    out += _tiny(*(f"weights_{each}" for each in weights))
    out += [
        *_whole(site, experts, "router_probs_zeros", 0, 1, "fill"), *_whole(site, experts, "router_probs_copy", 1, 1),
        *_tiny("router_probs_scatter"),
    ]  # fmt: skip
    return out + _map(site, experts, "router_map")


def _balanced(site: Shared, made: Made) -> list[Kernel]:
    """The auxiliary loss: scores over their sums, whom they would choose, counts of those, sums over tokens; what is
    told of it; and the counts that a bias goes by."""
    experts = _experts(made)
    if _sigmoid(made):
        out = [
            *_whole(site, experts, "aux_scores", 1, 1), *_whole(site, experts, "aux_sums", 1, 0, "reduce"),
            *_tiny("aux_epsilon"), *_whole(site, experts, "aux_divided", 1, 1),
        ]  # fmt: skip
    else:
        out = _whole(site, experts, "aux_scores", 1, 1, "softmax")
    out += [*_topk(site, experts, "aux_topk"), *_map(site, experts, "aux_map")]
    out += [
        *_whole(site, experts, "aux_counts", TRUTH, 0, "reduce"), *_whole(site, experts, "aux_means", 1, 0, "reduce"),
        *_tiny("aux_product", "aux_loss", "aux_scaled", "aux_each", "aux_told", "aux_added"),
    ]  # fmt: skip
    if made.gate_bias:
        out += [*_whole(site, experts, "bias_counts", TRUTH, 0, "reduce"), *_tiny("bias_added")]
    return out


def _scores_backward(site: Shared, made: Made) -> list[Kernel]:
    """Gradients of both uses of the scores, and their sum."""
    experts = _experts(made)
    out = _tiny("aux_one_bwd", "aux_scale_bwd", "aux_each_bwd", "aux_loss_bwd", "aux_product_bwd")
    own = _tiny("probs_gather_bwd")
    if _sigmoid(made):
        out += [
            *_whole(site, experts, "aux_divided_bwd", 1, 1), *_whole(site, experts, "aux_negative", 2, 1),
            *_whole(site, experts, "aux_by_sum", 1, 1), *_whole(site, experts, "aux_sums_bwd", 1, 0, "reduce"),
            *_whole(site, experts, "aux_both", 1, 1), *_whole(site, experts, "aux_scores_bwd", 2, 1),
        ]  # fmt: skip
        own += _tiny("scaled_bwd", "divided_bwd", "sum_negative", "sum_bwd", "weights_bwd")
        last = _whole(site, experts, "router_scores_bwd", 2, 1)
    else:
        out += _whole(site, experts, "aux_scores_bwd", 2, 1, "softmax_backward")
        own, last = own + _tiny("weights_softmax_bwd"), []
    chosen = [*_whole(site, experts, "chosen_zeros", 0, 1, "fill"), *_tiny("chosen_scatter"), *last]
    return [*out, *own, *chosen, *_whole(site, experts, "add_dlogits", 2, 1)]
