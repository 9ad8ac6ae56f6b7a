"""Rotary positions of a span of tokens (arXiv 2412.19437 eq. 4 and 8), with YaRN when the context is extended."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from numerics import ops
from numerics.layers.config import Config
from numerics.reference.rope import rope_tables, yarn_frequencies


class Rotation(NamedTuple):
    """cos, sin FP32 [length, rope / 2]."""

    cos: Tensor
    sin: Tensor


@lru_cache(maxsize=64)
def table(config: Config, start: int, length: int, device: torch.device) -> Rotation:
    """Of positions start .. start + length - 1; made once: a step that a GPU repeats copies nothing to it."""
    width, yarn = config.shape.qk_rope, config.yarn
    if yarn is None:
        frequencies = yarn_frequencies(width, config.rope_theta)
    else:
        frequencies = yarn_frequencies(
            width, config.rope_theta, yarn.factor, yarn.original_length, yarn.beta_fast, yarn.beta_slow
        )
    return Rotation(*rope_tables(torch.arange(start, start + length, device=device), frequencies))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """x [B, S, H, rope] -> the same, each pair (2i, 2i+1) turned."""
    return ops.rope(x, rotation.cos, rotation.sin)


def rotate_back(dy: Tensor, rotation: Rotation) -> Tensor:
    """The gradient of `rotate`."""
    return ops.rope_backward(dy, rotation.cos, rotation.sin)
