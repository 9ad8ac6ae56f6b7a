"""Cross-entropy of logits, and its gradient in their place: logits are the largest activation of a step."""

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """logits [T, V], targets int64 [T] -> nats a token, FP32 [T].

    The logits become the gradient of the mean over T, rounded once to their type.
    """
    log_p = torch.log_softmax(logits.float(), -1)
    loss = -log_p.gather(1, targets[:, None])[:, 0]
    gradient = log_p.exp_().scatter_add_(1, targets[:, None], log_p.new_full((len(targets), 1), -1.0))
    logits.copy_(gradient.div_(len(targets)))
    return loss
