"""A whole model of the DeepSeek family, of any dimensions, that trains in FP32, BF16 or FP8."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from numerics.layers.absorbed import LatentCache
from numerics.layers.block import Block
from numerics.layers.config import Config
from numerics.layers.gate import Choice, Gate, balance_loss
from numerics.layers.head import Head
from numerics.layers.norm import RMSNorm
from numerics.layers.prediction import Prediction
from numerics.layers.rotation import Rotation, table


class Losses(NamedTuple):
    """Scalars in nats a token: total = next_token + mtp_weight / depth * sum of mtp (eq. 25) + balance."""

    total: Tensor
    next_token: Tensor
    mtp: tuple[Tensor, ...]
    balance: Tensor


class Model(nn.Module):
    """tokens int [B, S] -> logits FP32 [B, S, vocabulary]. Prediction modules share embedding and head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, s = config, config.shape
        self.embedding = nn.Parameter(torch.randn(s.vocabulary, s.hidden) * config.init_std)
        self.blocks = nn.ModuleList(Block(config, dense=i < s.dense_layers) for i in range(s.layers))
        self.norm = RMSNorm(s.hidden, config.eps)
        self.head = Head(config)
        self.predictions = nn.ModuleList(Prediction(config) for _ in range(s.mtp_depth))

    def forward(self, tokens: Tensor, caches: list[LatentCache] | None = None) -> Tensor:
        """With `caches` (of `new_caches`): the absorbed form; tokens follow those seen before."""
        x, _ = self._run(tokens, caches)
        return self.head(x, self.norm)[0].float().view(*tokens.shape, -1)

    def new_caches(self) -> list[LatentCache]:
        """One empty cache a layer."""
        return [LatentCache() for _ in self.blocks]

    def losses(self, tokens: Tensor) -> Losses:
        """tokens [B, S + 1 + mtp_depth]: S positions predict the next token, and depth d the one d further.

        Raises ValueError when no position is left.
        """
        batch, s = tokens.shape[0], tokens.shape[1] - 1 - len(self.predictions)
        if s < 1:
            need = 2 + len(self.predictions)
            raise ValueError(f"a sequence needs {need} tokens to train on; got {tokens.shape[1]}: use longer sequences")
        x, choices = self._run(tokens[:, :s])
        next_token, state = self.head.loss(x, self.norm, tokens[:, 1 : s + 1].flatten())
        mtp = []
        for depth, module in enumerate(self.predictions, 1):
            embedded = self._embed(tokens[:, depth : depth + s])
            x, choice = module(state, embedded, self._rotation(0, s), batch)
            choices.append(choice)
            loss, state = self.head.loss(x, module.norm, tokens[:, depth + 1 : depth + 1 + s].flatten())
            mtp.append(loss)
        balance = self._balance(choices, batch)
        ahead = sum(mtp) * (self.config.mtp_weight / len(mtp)) if mtp else 0.0
        return Losses(next_token + ahead + balance, next_token, tuple(mtp), balance)

    @property
    def gates(self) -> list[Gate]:
        """Of all mixture layers, in order."""
        return [module for module in self.modules() if isinstance(module, Gate)]

    def update_biases(self, speed: float | Tensor | None = None) -> None:
        """After every optimizer step, not every micro-batch: the loss-free balance of all gates."""
        for gate in self.gates:
            gate.update_bias(speed)

    def _run(self, tokens: Tensor, caches: list[LatentCache] | None = None) -> tuple[Tensor, list[Choice | None]]:
        batch, length = tokens.shape
        rotation = self._rotation(len(caches[0]) if caches else 0, length)
        x, choices = self._embed(tokens), []
        for i, block in enumerate(self.blocks):
            x, choice = block(x, rotation, batch, caches[i] if caches else None)
            choices.append(choice)
        return x, choices

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded = functional.embedding(tokens, self.embedding)
        return embedded.to(self.config.precision.dtype).flatten(0, 1)

    def _rotation(self, start: int, length: int) -> Rotation:
        return table(self.config, start, length, self.embedding.device)

    def _balance(self, choices: list[Choice | None], batch: int) -> Tensor:
        c, s = self.config, self.config.shape
        logits = [choice.logits.view(batch, -1, s.experts) for choice in choices if choice is not None]
        if not (logits and c.balance):
            return torch.zeros((), device=self.embedding.device)
        return torch.stack([balance_loss(one, s.score, s.experts_per_token, c.balance) for one in logits]).sum()
