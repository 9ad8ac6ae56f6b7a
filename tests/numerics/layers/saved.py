"""Counts what autograd keeps for the backward pass: bytes of distinct storages, parameters left out."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Count:
    """with Count(module, but=[x]) as count: ...; count.bytes, and count.sizes by (shape, type)."""

    def __init__(self, module: nn.Module, but: Iterable[Tensor] = ()) -> None:
        self.known = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers(), *but)}
        self.kept: dict[int, Tensor] = {}

    def __enter__(self) -> "Count":
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda t: t)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    @property
    def bytes(self) -> int:
        return sum(t.untyped_storage().nbytes() for t in self.kept.values())

    @property
    def sizes(self) -> list[tuple[tuple[int, ...], torch.dtype]]:
        return sorted(((tuple(t.shape), t.dtype) for t in self.kept.values()), key=str)

    def _pack(self, t: Tensor) -> Tensor:
        pointer = t.untyped_storage().data_ptr()
        if pointer not in self.known and t.numel():
            self.kept.setdefault(pointer, t)  # holding it keeps its address from being used again
        return t
