"""How a rank's tokens are cut: evenly over channels first, then into the chunks that a channel sends to each node.

Structure: DeepEP V1 (github.com/deepseek-ai/DeepEP, csrc/kernels/internode.cu): every channel has a range of tokens of
its own, and a warp that goes round the nodes and posts a chunk once it is full or holds the last rows for its node.
"""

from math import ceil
from typing import NamedTuple

LAST = 0.5
"""Part of the last chunk for a place that is full on average: rows of a place spread around their mean by about a
chunk."""
NOISE = 1e-10
"""Part of a token, chunk or round of warps that counts as none: rounding of floating-point numbers makes no further
one."""


class Cut(NamedTuple):
    """The chunks of a rank. channels: those that have tokens. rows: of a chunk of the fullest channel, which stands for
    all. chunks: of a channel, on average. filled: the rank's tokens over those of its channels if each were as full as
    the fullest. together: chunks that are full at about the same token, one for each place that is reached."""

    channels: int
    rows: float
    chunks: float
    filled: float
    together: float


def cut(tokens: float, rows: float, places: int, send: float, channels: int) -> Cut:
    """`tokens` tokens over at most `channels` channels, whole ones. rows: of a token, one for each of the `places`
    places that it reaches. send: rows of a chunk at most.

    Few tokens reach few places: as many as independent and evenly spread ones reach on average.
    """
    used = min(channels, max(1, ceil(tokens)))
    most = max(1, ceil(tokens / used - NOISE))
    reached = places * (1 - (1 - min(rows / places, 1.0)) ** most)
    chunks = max(1.0, reached, most * rows / send + LAST * reached)
    return Cut(used, most * rows / chunks, chunks, tokens / (most * used), reached)
