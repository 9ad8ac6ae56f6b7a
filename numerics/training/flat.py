"""All weights of a model in one FP32 vector, their gradients in another: what an optimizer step walks over once."""

import torch
from torch import Tensor, nn


class Flat:
    """weights, gradients FP32 [n]; a model's parameters become views of them. decayed: the first so many have decay.

    Matrices come first, then what has no decay: norms' weights (usual practice; V3's report does not say).
    """

    def __init__(self, model: nn.Module) -> None:
        matrices = [p for p in model.parameters() if p.dim() > 1]
        parameters = [*matrices, *[p for p in model.parameters() if p.dim() <= 1]]
        self.decayed = sum(_padded(p) for p in matrices)
        self.weights = torch.zeros(sum(map(_padded, parameters)), device=parameters[0].device)
        self.gradients = torch.zeros_like(self.weights)
        start = 0
        for p in parameters:
            here = slice(start, start + p.numel())
            self.weights[here] = p.detach().flatten()
            p.data, p.grad = self.weights[here].view_as(p), self.gradients[here].view_as(p)
            start += _padded(p)

    def moved(self, generator: torch.Generator) -> None:
        """Every weight one ulp of FP32 up or down: the smallest change there is, for what chaos alone makes of it."""
        up = torch.rand(self.weights.shape, generator=generator, device=generator.device) < 0.5
        far = torch.where(up, torch.inf, -torch.inf).to(self.weights.device)
        self.weights.copy_(torch.where(self.weights == 0, 0.0, torch.nextafter(self.weights, far)))


def _padded(p: Tensor) -> int:
    """Elements that a parameter takes: whole 128-byte lines, as the copy engine wants its operands aligned."""
    return -(-p.numel() // 32) * 32
