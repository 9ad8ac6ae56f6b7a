"""What each recipe makes of one gradient: cosine and signal to noise against FP32, on the same weights and tokens.

No training in it, so no chaos: how far a recipe's gradient is from the exact one, at weights that training came to.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from numerics.layers.model import Model
from numerics.training.run import Run
from numerics.training.settings import PRECISIONS

SEQUENCES = 8
"""Of the held-out side: 8,192 tokens of 1,024 each."""
KINDS = {"attention": "attention.", "experts": "ffn.", "ends": ""}
"""Groups of weights by what their names contain; the last takes the rest: embedding, head, norms."""


def compared(run: Run) -> Iterator[dict[str, Any]]:
    """A row a recipe: cosine and SQNR (dB) of the gradient of all weights, and of each kind apart."""
    tokens = run.held[0][:SEQUENCES]
    exact = gradient(run, "fp32", tokens)
    for name in PRECISIONS:
        if name != "fp32":
            mine = gradient(run, name, tokens)
            figures = {kind: closeness(mine[kind], exact[kind]) for kind in exact}
            yield {"kind": "gradient", "recipe": name, "step": run.done, "figures": figures}


def gradient(run: Run, precision: str, tokens: Tensor) -> dict[str, Tensor]:
    """FP32 gradients at the run's weights, by kind and `all` together, of a model in another precision."""
    model = Model(replace(run.settings, precision=precision, recompute=True).config).to(run.device)
    model.load_state_dict(run.model.state_dict())
    model.losses(tokens).total.backward()
    groups: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for name, p in model.named_parameters():
        kind = next(kind for kind, part in KINDS.items() if part in name)
        groups[kind].append(p.grad.flatten())
    joined = {kind: torch.cat(parts) for kind, parts in groups.items()}
    return joined | {"all": torch.cat(list(joined.values()))}


def closeness(x: Tensor, exact: Tensor) -> list[float]:
    """Cosine, and 10 log10 of |exact|^2 / |x - exact|^2."""
    x, exact = x.double(), exact.double()
    cosine = (x @ exact) / (x.norm() * exact.norm())
    noise = (x - exact).square().sum()
    return [round(float(cosine), 8), round(float(10 * torch.log10(exact.square().sum() / noise)), 3)]
