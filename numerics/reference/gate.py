"""The router: scores, a choice of groups of experts, the best k experts within them, and their weights.

Sources: DeepSeek-V3 (arXiv 2412.19437) eq. 12 to 16: sigmoid scores, a bias that decides who is chosen and not how
much it weighs, groups ranked by the sum of their two best, weights normalised; DeepSeek-V2 (arXiv 2405.04434) sec
2.1.3 and its published code: softmax scores, groups ranked by their best, weights not normalised.
"""

import torch
from torch import Tensor

SCORES = ("sigmoid", "softmax")
SMALLEST_SUM = 1e-20
"""Added to the sum of weights before dividing, as in DeepSeek-V3's published code."""


def gate(
    logits: Tensor,
    bias: Tensor | None,
    groups: int,
    chosen_groups: int,
    k: int,
    score: str = "sigmoid",
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """logits [T, E], bias [E] or None -> idx int32 [T, k], weights float32 [T, k], by falling biased score.

    Equal scores go to the lower index, of groups and of experts. Raises ValueError for shapes that do not fit.
    """
    check(logits, bias, groups, chosen_groups, k, score)
    scores = affinities(logits.float(), score)
    choice = scores if bias is None else scores + bias.float()
    best = 2 if score == "sigmoid" and logits.shape[1] > groups else 1
    grouped = choice.view(choice.shape[0], groups, -1)
    rank = grouped.sort(dim=-1, descending=True).values[..., :best].sum(dim=-1)
    kept = torch.zeros_like(rank, dtype=torch.bool).scatter_(1, _top(rank, chosen_groups), True)
    idx = _top(grouped.masked_fill(~kept[..., None], -torch.inf).flatten(1), k)
    weights = scores.gather(1, idx)
    if score == "sigmoid":
        weights = weights / (weights.sum(dim=-1, keepdim=True) + SMALLEST_SUM)
    return idx.int(), weights * scale


def gate_backward(dweights: Tensor, logits: Tensor, idx: Tensor, score: str, scale: float = 1.0) -> Tensor:
    """dweights [T, k], logits [T, E], idx [T, k] as `gate` chose -> dlogits FP32 [T, E]; the choice has no gradient."""
    a, idx = affinities(logits.float(), score), idx.long()
    chosen, da = a.gather(1, idx), dweights * scale
    if score == "sigmoid":  # w = scale * a / sum(a) over the chosen
        total = chosen.sum(1, keepdim=True) + SMALLEST_SUM
        da = (da - (da * chosen).sum(1, keepdim=True) / total) / total
        return torch.zeros_like(a).scatter(1, idx, da * chosen * (1 - chosen))
    full = torch.zeros_like(a).scatter(1, idx, da)
    return a * (full - (da * chosen).sum(1, keepdim=True))


def affinities(logits: Tensor, score: str) -> Tensor:
    """logits [..., E] -> affinities of the tokens to the experts: sigmoid (V3) or softmax (V2)."""
    return torch.sigmoid(logits) if score == "sigmoid" else torch.softmax(logits, -1)


def check(logits: Tensor, bias: Tensor | None, groups: int, chosen_groups: int, k: int, score: str) -> None:
    """Raises ValueError naming what does not fit."""
    experts = logits.shape[1]
    if score not in SCORES:
        raise ValueError(f"score is one of {SCORES}; got {score!r}")
    if experts % groups or not 1 <= chosen_groups <= groups:
        raise ValueError(f"{experts} experts do not divide into {groups} groups of which {chosen_groups} are chosen")
    if not 1 <= k <= experts // groups * chosen_groups:
        raise ValueError(f"{k} experts cannot be chosen from {chosen_groups} groups of {experts // groups}")
    if bias is not None and bias.shape != (experts,):
        raise ValueError(f"bias has shape {list(bias.shape)}; {experts} experts need [{experts}]")


def _top(values: Tensor, k: int) -> Tensor:
    return values.sort(dim=-1, descending=True, stable=True).indices[:, :k]
