"""DeepSeekMoE's gate, and the two ways of keeping experts evenly loaded.

V3 (arXiv 2412.19437 sec 2.1.2, eq. 12 to 16): sigmoid affinities; a bias moves the choice but not the weight; at most
`groups_per_token` groups; weights normalised over the chosen and scaled. V2 (arXiv 2405.04434 sec 2.1.3 and 2.2.2):
softmax affinities, the best expert speaks for its group, weights scaled without normalising.
The gate's product is FP32, as in the implementations of DeepSeek and Hugging Face.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numerics import ops
from numerics.layers.config import Config, Precision
from numerics.layers.kept import Kept, load, save
from numerics.layers.linear import linear
from numerics.reference.gate import affinities, gate_backward
from sim.models.deepseek.shape import DeepSeekShape


class Choice(NamedTuple):
    """idx int [T, k], weights FP32 [T, k], logits FP32 [T, E]."""

    idx: Tensor
    weights: Tensor
    logits: Tensor


class _Choose(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor | None, s: DeepSeekShape) -> tuple[Tensor, Tensor]:
        idx, weights = ops.gate(
            logits, bias, s.groups, s.groups_per_token, s.experts_per_token, score=s.score, scale=s.route_scale
        )
        save(ctx, logits=logits, idx=idx, shape=s)
        ctx.mark_non_differentiable(idx)
        return idx, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Any, dweights: Tensor) -> tuple[Tensor, None, None]:
        k = load(ctx)
        s = k["shape"]
        return gate_backward(dweights, k["logits"], k["idx"], s.score, s.route_scale), None, None


class Gate(nn.Module):
    """x [T, hidden] -> Choice. `load` counts tokens an expert since the last `update_bias`."""

    bias: Tensor | None
    load: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        s = self.shape = config.shape
        self.speed = config.bias_speed
        self.weight = nn.Parameter(torch.randn(s.experts, s.hidden) * config.init_std)
        self.register_buffer("bias", torch.zeros(s.experts) if s.score == "sigmoid" else None)
        self.register_buffer("load", torch.zeros(s.experts), persistent=False)

    def forward(self, x: Tensor, again: Kept | None = None) -> Choice:
        logits = linear(x, self.weight, Precision.FP32, again)
        idx, weights = _Choose.apply(logits, self.bias, self.shape)
        if self.training:
            self.load += ops.expert_count(idx, self.shape.experts)[0]
        return Choice(idx, weights, logits)

    @torch.no_grad()
    def update_bias(self, speed: float | Tensor | None = None) -> None:
        """After a step: b += u * sign(mean load - load): loss-free balance, sec 2.1.2 (arXiv 2408.15664 alg. 1).

        speed: u, where a schedule gives it (a tensor of one number, if it lies on the device).
        """
        if self.bias is not None:
            self.bias += (self.speed if speed is None else speed) * torch.sign(self.load.mean() - self.load)
        self.load.zero_()


def balance_loss(logits: Tensor, score: str, k: int, alpha: float) -> Tensor:
    """alpha * sum_i f_i P_i averaged over sequences (arXiv 2412.19437 eq. 17 to 20); logits FP32 [B, S, E] -> scalar.

    f_i = E / (k S) * (tokens with expert i among the k best affinities: without bias or group limit, as eq. 18 is
    written); P_i = mean over tokens of the affinities divided by their sum. Only P has a gradient. Even load: alpha.
    """
    a = affinities(logits, score)
    best = a.topk(k, -1).indices
    f = torch.zeros_like(a).scatter(-1, best, 1.0).mean(1) * (a.shape[-1] / k)
    p = (a / a.sum(-1, keepdim=True)).mean(1)
    return alpha * (f * p).sum(-1).mean()
