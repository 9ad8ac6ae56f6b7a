"""Runs each unit of a model once on the meta device, forward and backward, and records what runs, part by part.

Parts are the simulator's: "attn" ends behind the gate, "mlp" holds the experts. A step's second micro-batch is run, so
that gradients exist. One process holds all experts, as the layers are written, and loads are even.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hwmodels.formats import TILE
from hwmodels.op import Op
from numerics.census.recorder import Recorder, recording
from numerics.layers.block import Block
from numerics.layers.config import Config, Precision
from numerics.layers.experts import MixtureOfExperts
from numerics.layers.model import Model
from numerics.layers.rotation import Rotation
from numerics.reference.permute import Layout
from sim.models.deepseek.shape import DeepSeekShape
from sim.models.layer import Site
from sim.models.precision import RECIPES


def site(shape: DeepSeekShape, tokens: int) -> Site:
    """One sequence, all experts in one process as in the layers: every token is received once, loads are even."""
    rows = shape.experts * _rows_each(tokens * shape.experts_per_token, shape.experts)
    return Site(shape, RECIPES["fp8"], 1, tokens, tokens, rows, 1.0, 1.0, shape.experts, 1, 1)


def _rows_each(pairs: int, experts: int) -> int:
    return -(-pairs // (experts * TILE)) * TILE


def even(experts: int, tile: int, idx: Tensor) -> Layout:
    """The layout of evenly chosen experts, for indices without values."""
    tokens, k = idx.shape
    each = _rows_each(tokens * k, experts)
    bounds = torch.arange(experts + 1, device="cpu") * each
    meta = [torch.empty(n, dtype=torch.int32, device="meta") for n in (tokens * k, each * experts, experts)]
    return Layout(meta[0].view(tokens, k), meta[1], meta[2], bounds, each * experts, tile)


def rehearse(
    where: Site, kind: str, device: str = "meta", rows: Callable[[int, int, Tensor], Layout] = even
) -> list[tuple[str, Op]]:
    """(part, op) of one unit of `where.shape`, in the order they run. kind: embedding, dense, moe, projection, head.

    rows: the layout for (experts, tile, indices). On another device than meta the layers compute for real, on noise.
    """
    sizes = replace(where.shape, layers=2, dense_layers=1)
    with torch.device(device):
        model = Model(Config(sizes, Precision.FP8, balance=0.0))
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        table = torch.ones(where.length, where.shape.qk_rope // 2)
        run = _Run(model, where, Rotation(table, table))
        with recording(rows) as recorder:
            getattr(run, kind)(recorder)
    return recorder.seen


@dataclass(frozen=True)
class _Run:
    """Drives one unit of a model and tells the recorder which part is running."""

    model: Model
    where: Site
    rotation: Rotation

    def embedding(self, recorder: Recorder) -> None:
        ids = self._ids()
        recorder.part = "embedding(F)"
        y = self.model._embed(ids)
        self._back(recorder, "embedding", y)

    def dense(self, recorder: Recorder) -> None:
        self._block(recorder, self.model.blocks[0])

    def moe(self, recorder: Recorder) -> None:
        self._block(recorder, self.model.blocks[1])

    def projection(self, recorder: Recorder) -> None:
        module = self.model.predictions[0]
        module.block = _Through()
        state, ids = self._stream(), self._ids()
        recorder.part = "projection(F)"
        y, _ = module(state, self.model._embed(ids), self.rotation, self.where.sequences)
        self._back(recorder, "projection", y)

    def head(self, recorder: Recorder) -> None:
        state, targets = self._stream(), self._ids().flatten()
        recorder.part = "head(F)"
        loss, _ = self.model.head.loss(state, self.model.norm, targets)
        self._back(recorder, "head", loss)

    def _block(self, recorder: Recorder, block: Any) -> None:
        _watch(block, recorder)
        stream = self._stream()
        recorder.part = "attn(F)"
        y, _ = block(stream, self.rotation, self.where.sequences)
        self._back(recorder, "mlp", y)

    def _back(self, recorder: Recorder, name: str, y: Tensor) -> None:
        recorder.part = ""
        gradient = torch.ones_like(y)
        recorder.part = f"{name}(B+W)"
        y.backward(gradient)

    def _stream(self) -> Tensor:
        shape = self.where.tokens, self.where.shape.hidden
        return torch.randn(shape, dtype=torch.bfloat16, requires_grad=True)

    def _ids(self) -> Tensor:
        return torch.zeros(self.where.sequences, self.where.length, dtype=torch.int64)


class _Through(nn.Module):
    """In place of the block behind a projection, which is a unit of its own."""

    def forward(self, x: Tensor, rotation: Rotation, batch: int) -> tuple[Tensor, None]:
        return x, None


def _watch(block: Block, recorder: Recorder) -> None:
    """Hooks that name the part: attention with the gate behind it, then the experts; backward the other way."""

    def enter(part: str) -> Callable[..., None]:
        return lambda *_: setattr(recorder, "part", part)

    def mlp(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        recorder.part = "mlp(F)"
        args[0].register_hook(enter("attn(B+W)"))

    def chosen(module: nn.Module, args: Any, choice: Any) -> None:
        recorder.part = "mlp(F)"
        choice.weights.register_hook(enter("attn(B+W)"))

    block.attention.register_forward_pre_hook(enter("attn(F)"))
    block.ffn.register_forward_pre_hook(mlp)
    if isinstance(block.ffn, MixtureOfExperts):
        block.ffn.gate.register_forward_pre_hook(enter("attn(F)"))
        block.ffn.gate.register_forward_hook(chosen)
