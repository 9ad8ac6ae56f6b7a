"""A transformer layer: attention, then a feed-forward layer or a mixture of experts, each behind a norm."""

from torch import Tensor, nn

from numerics.layers.absorbed import LatentCache
from numerics.layers.attention import LatentAttention
from numerics.layers.config import Config
from numerics.layers.experts import MixtureOfExperts
from numerics.layers.feedforward import FeedForward
from numerics.layers.gate import Choice
from numerics.layers.norm import RMSNorm
from numerics.layers.rotation import Rotation


class Block(nn.Module):
    """residual [batch * length, hidden] -> the same, and the Choice of a mixture layer (None of a dense one)."""

    def __init__(self, config: Config, dense: bool) -> None:
        super().__init__()
        s = config.shape
        self.attention_norm, self.ffn_norm = RMSNorm(s.hidden, config.eps), RMSNorm(s.hidden, config.eps)
        self.attention = LatentAttention(config)
        self.ffn = FeedForward(config, s.dense_intermediate) if dense else MixtureOfExperts(config)
        self.precision, self.recompute = config.precision, config.recompute

    def forward(
        self, x: Tensor, rotation: Rotation, batch: int, cache: LatentCache | None = None
    ) -> tuple[Tensor, Choice | None]:
        p = self.precision
        x, given = self.attention_norm.passed(x, p)
        a = self.attention(x, self.attention_norm, rotation, batch, cache, given)
        if isinstance(self.ffn, FeedForward):
            x, (y, again, (cast,)) = self.ffn_norm.passed(x, p, a)
            return x + self.ffn(y, again if self.recompute else None, cast), None
        x, (y, again, casts) = self.ffn_norm.passed(x, p, a, powers=(True, False), keep=True)
        y, choice = self.ffn(y, again if self.recompute else None, casts)
        return x + y, choice
