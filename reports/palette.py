"""Colours: what people tell apart at a glance, also with the common kinds of colour blindness.

The hues are those of Okabe and Ito, "Color Universal Design" (2008), with a darker indigo for the overlapped pair so
that the three colours that fill a pipeline differ in lightness too.
"""

import re
from typing import NamedTuple

from sim.result.trace import LANES, PHASES

INK = "#1f2a37"
MUTED = "#5d6b7a"
IDLE = len(PHASES)
"""Index of idle time, after the phases of a trace."""


class Kind(NamedTuple):
    """A kind of thing that has a colour: `short` is written on bars, `name` in the legend."""

    short: str
    name: str
    colour: str


STEPS = (
    Kind("F", "forward", "#56b4e9"),
    Kind("B", "input gradients (B)", "#e69f00"),
    Kind("BW", "full backward (BW)", "#d55e00"),
    Kind("W", "weight gradients (W)", "#009e73"),
    Kind("F+BW", "overlapped pair (F+BW)", "#3d4a8a"),
    Kind("opt", "optimizer", "#cc79a7"),
    Kind("idle", "idle", "#e4e8ed"),
)
"""In the order of sim.result.trace.PHASES, then idle."""

OPS = (
    Kind("gemm", "GEMM", "#4a90c8"),
    Kind("wgrad", "weight-gradient GEMM", "#009e73"),
    Kind("attention", "attention", "#3d4a8a"),
    Kind("cast", "cast, quantise", "#e6b800"),
    Kind("pointwise", "norm, SwiGLU, RoPE, elementwise", "#b58a5a"),
    Kind("move", "routing, permute, copy, transpose", "#cc79a7"),
    Kind("exchange", "dispatch, combine, send", "#d55e00"),
    Kind("barrier", "barrier", "#f0b08c"),
    Kind("other", "other", "#9aa5b1"),
)

PARTS = ("#3d4a8a", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#d55e00", "#9aa5b1", "#b58a5a")
"""Colours of memory parts and of price kinds, in order."""

TRAFFIC = ("#3d4a8a", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8a5a2b")
"""Colours of kinds of traffic over the fabric, in the order of a Utilisation's kinds: expert, pipeline, gradients,
parameters, tensor, context."""

LOADS = ("#3d4a8a", "#f4f6f8", "#d55e00")
"""Fewer expert rows than expected, as many, and more."""

_EXCHANGE_LANES = (LANES.index("communication"), LANES.index("network"))
_WORDS = (
    ("barrier", "notify|barrier|layout|wait|meet"),
    (
        "move",
        r"routing|route_|permute|copy|transpose|scale_?t\b|w[12]?t\b|scale_topk|bcast|mapping|count|arange|embed"
        r"|radix_sort|index|^join_",
    ),
    (
        "pointwise",
        "norm|swiglu|silu|rope|residual|grad_add|elementwise|fill|sum_|adam|ema_"
        "|softmax|loss|^logits|optimizer|gammabeta|grad_weight|memset|^add_",
    ),
    ("cast", "cast|quant|e5m6|save_"),
    ("attention", "flash|attention|sdpa|compute_dot_do_o"),
    ("exchange", "dispatch|combine|send|recv|all_?to|all_?reduce|reduce_?scatter|gather"),
    ("wgrad", "wgrad|weight_grad"),
    ("gemm", r"q_|kv_|o_proj|gate|up\b|down|gemm|dgrad|head|proj|linear|router|nvjet|xmma|^[qkvo]$"),
)
"""Words in op names (those of sim/models, after the published H800 profile, and of kernels in traces of torch) and what
they mean; first match wins."""


def op_kind(label: str, lane: int, phase: int) -> int:
    """Index into OPS of an op, by the words of its label; lane and phase settle what the words leave open."""
    text = label.lower()
    words = (word for word, pattern in _WORDS if re.search(pattern, text))
    name = next(words, "exchange" if lane in _EXCHANGE_LANES else "other")
    if name in ("gemm", "other") and phase == PHASES.index("weight"):
        name = "wgrad"
    return next(i for i, kind in enumerate(OPS) if kind.short == name)
