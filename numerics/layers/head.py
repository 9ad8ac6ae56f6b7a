"""The output head and its loss: a norm, logits in BF16 (never FP8: arXiv 2412.19437 sec 3.3.1), cross-entropy in FP32.

Logits are the largest activation of a step. Their gradient is known as soon as the loss is, so it takes their place.
"""

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numerics import ops
from numerics.layers.config import Config
from numerics.layers.kept import load, save
from numerics.layers.linear import Linear
from numerics.layers.norm import RMSNorm


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        gradient = logits.detach()  # an alias hides from autograd that the logits go: only `Head.loss` sees them
        loss = ops.cross_entropy(gradient, targets)
        save(ctx, gradient=gradient)
        return loss.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor, None]:
        return load(ctx)["gradient"] * dloss, None


class Head(nn.Module):
    """Logits or loss behind a given norm: prediction modules bring their own norm and share the head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        s = config.shape
        self.project = Linear(s.hidden, s.vocabulary, config.precision.plain, config.init_std)
        self.recompute = config.recompute

    def forward(self, x: Tensor, norm: RMSNorm) -> tuple[Tensor, Tensor]:
        """Residual stream [T, hidden] -> logits [T, vocabulary], and the normed state."""
        state, again = norm.normed(x)
        return self.project(state, again if self.recompute else None), state

    def loss(self, x: Tensor, norm: RMSNorm, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy in nats a token against targets [T], and the normed state."""
        logits, state = self(x, norm)
        return _CrossEntropy.apply(logits, targets), state
