"""torch's own calls for the work that our kernels do, where it has one: what `bench` puts beside them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]


def memory(family: str, name: str, args: tuple[Any, ...], size: float) -> dict[str, Call]:
    """torch's own call for the same work, where it has one; beside casts its copy of as many bytes (`size`, read and
    written)."""
    if family in ("casts", "e5m6"):
        return {"torch copy of as many bytes": copy(args[0].device.type, round(size / 2))}
    if name == "rmsnorm":
        return {"torch rmsnorm": lambda: torch.nn.functional.rms_norm(args[0], (args[0].shape[1],), args[1], 1e-6)}
    if name == "swiglu":
        gate, up = args[0].chunk(2, dim=1)
        return {"torch swiglu": lambda: torch.nn.functional.silu(gate) * up}
    return {}


def copy(device: str, size: int) -> Call:
    """torch's copy of `size` bytes, which reads and writes that many."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def attention(q: Tensor, k: Tensor, v: Tensor, do: Tensor, scale: float, direction: str) -> dict[str, Call]:
    """torch's scaled_dot_product_attention; backward replays the gradient of one kept forward."""
    by_head = [x.transpose(1, 2).detach().requires_grad_(direction == "backward") for x in (q, k, v)]

    def forward() -> Tensor:
        shared = q.shape[2] != k.shape[2]
        return torch.nn.functional.scaled_dot_product_attention(
            *by_head, is_causal=True, scale=scale, enable_gqa=shared
        )

    if direction == "forward":
        return {"torch scaled_dot_product_attention": forward}
    kept: list[Tensor] = []

    def backward() -> Any:
        if not kept:
            kept.append(forward())
        return torch.autograd.grad(kept[0], by_head, do.transpose(1, 2), retain_graph=True)

    return {"torch scaled_dot_product_attention": backward}
