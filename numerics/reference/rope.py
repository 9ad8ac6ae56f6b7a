"""Rotary position embedding on interleaved pairs, with YaRN's frequencies.

Sources: Su et al., arXiv 2104.09864, eq. 15; Peng et al. (YaRN), arXiv 2309.00071, sec 3.2 (by parts) and 3.3 (the
attention temperature); DeepSeek-V3's published code for the choice of pairs (2i, 2i + 1) and of constants.
"""

import math

import torch
from torch import Tensor


def yarn_frequencies(
    d: int,
    base: float = 10000.0,
    factor: float = 1.0,
    original_length: int = 4096,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
) -> Tensor:
    """float32 [d/2] radians a position: slow pairs divided by `factor`, fast ones kept, a ramp between.

    A pair is fast above `beta_fast` turns in `original_length` positions and slow below `beta_slow`. factor 1: plain.
    """
    frequency = 1.0 / (base ** (torch.arange(0, d, 2, dtype=torch.float32) / d))
    if factor == 1.0:
        return frequency
    low = max(math.floor(_pair_of_turns(beta_fast, d, base, original_length)), 0)
    high = min(math.ceil(_pair_of_turns(beta_slow, d, base, original_length)), d - 1)
    ramp = (torch.arange(d // 2, dtype=torch.float32) - low) / max(high - low, 1e-3)
    slow = ramp.clamp(0, 1)
    return frequency / factor * slow + frequency * (1 - slow)


def _pair_of_turns(turns: float, d: int, base: float, length: int) -> float:
    """The (real-valued) pair that makes so many turns in `length` positions."""
    return d * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))


def yarn_temperature(factor: float, coefficient: float = 1.0) -> float:
    """0.1 c ln(factor) + 1 (arXiv 2309.00071 eq. 22): multiplies q and k each, so the softmax scale by its square."""
    return 1.0 if factor <= 1.0 else 0.1 * coefficient * math.log(factor) + 1.0


def rope_tables(positions: Tensor, frequencies: Tensor, magnitude: float = 1.0) -> tuple[Tensor, Tensor]:
    """positions [S], frequencies [d/2] -> cos, sin float32 [S, d/2], times `magnitude`."""
    angle = positions.float()[:, None] * frequencies[None, :].to(positions.device)
    return torch.cos(angle) * magnitude, torch.sin(angle) * magnitude


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, S, H, d], cos and sin [S, d/2] -> [B, S, H, d] in x's dtype: pairs (2i, 2i+1) turned by angle i."""
    check(x, cos, sin)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def rope_backward(dy: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """dy [B, S, H, d] -> dx: the same turn the other way."""
    return rope(dy, cos, -sin)


def check(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    expected = (x.shape[1], x.shape[-1] // 2)
    if x.dim() != 4 or x.shape[-1] % 2 or cos.shape != expected or sin.shape != expected:
        shapes = f"x {list(x.shape)}, cos {list(cos.shape)}, sin {list(sin.shape)}"
        raise ValueError(f"rope takes x [B, S, H, d] and cos, sin [S, d/2]; got {shapes}")
