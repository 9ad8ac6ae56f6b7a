"""AdamW on one flat vector (Loshchilov and Hutter, arXiv 1711.05101, alg. 2), moments in BF16 or FP32."""

import torch
from torch import Tensor


def adamw(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, scalars: Tensor, betas: tuple[float, float], eps: float, decay: float
) -> None:
    """One step on FP32 masters w [n] with gradients g [n]; w, m and v change in place and g is cleared.

    scalars FP32 [4]: the learning rate; 1 / (1 - beta^t) for both betas; a factor on g (clip, mean).
    Moments are updated in FP32 and rounded once to their type; the step uses them before that rounding.
    """
    rate, first, second, factor = scalars.unbind()
    g32 = g * factor
    m32 = betas[0] * m.float() + (1 - betas[0]) * g32
    v32 = betas[1] * v.float() + (1 - betas[1]) * g32 * g32
    step = m32 * first / (torch.sqrt(v32 * second) + eps)
    w -= rate * (step + decay * w)
    m.copy_(m32)
    v.copy_(v32)
    g.zero_()
