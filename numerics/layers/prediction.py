"""Multi-token prediction: one more block per depth that predicts one token further (arXiv 2412.19437 sec 2.2).

h' = M [RMSNorm(embedding of the token ahead); RMSNorm(h)], then a block, a norm and the shared head (eq. 21 to 23).
As in Hugging Face's module for the released weights, the embedding comes first (the paper writes it second: a
permutation of M's columns) and h is the state after the norm before the head (the paper does not say).
"""

import torch
from torch import Tensor, nn

from numerics.layers.block import Block
from numerics.layers.config import Config
from numerics.layers.gate import Choice
from numerics.layers.kept import Joined
from numerics.layers.linear import Linear
from numerics.layers.norm import RMSNorm
from numerics.layers.rotation import Rotation


class Prediction(nn.Module):
    """state [T, hidden] of the depth before, embedded [T, hidden] the next known token -> residual stream, and Choice.

    `norm` is what stands before the shared head at this depth.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden, eps = config.shape.hidden, config.eps
        self.embedding_norm, self.state_norm = RMSNorm(hidden, eps), RMSNorm(hidden, eps)
        self.projection = Linear(2 * hidden, hidden, config.precision, config.init_std)
        self.block = Block(config, dense=False)
        self.norm = RMSNorm(hidden, eps)
        self.recompute = config.recompute

    def forward(self, state: Tensor, embedded: Tensor, rotation: Rotation, batch: int) -> tuple[Tensor, Choice | None]:
        left, left_again = self.embedding_norm.normed(embedded)
        right, right_again = self.state_norm.normed(state)
        again = Joined(left_again, right_again) if self.recompute else None
        x = self.projection(torch.cat([left, right], -1), again)
        return self.block(x, rotation, batch)
