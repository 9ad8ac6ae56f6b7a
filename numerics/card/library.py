"""torch's own calls for the work that our kernels do, where it has one: what `bench` puts beside them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]


def memory(name: str, args: tuple[Any, ...]) -> Call | None:
    """torch's own call for the same work, where it has one."""
    if name == "rmsnorm":
        return lambda: torch.nn.functional.rms_norm(args[0], (args[0].shape[1],), args[1], 1e-6)
    if name == "swiglu":
        gate, up = args[0].chunk(2, dim=1)
        return lambda: torch.nn.functional.silu(gate) * up
    return None


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
