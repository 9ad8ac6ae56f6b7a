"""Two halves of a batch over two lanes, compute and communication, in the orders of DeepSeek's profile.

Decoding (deepseek-ai/profile-data, README and assets/decode.jpg; SGLang's `_compute_moe_deepseek_blog_decode`): beside
a half's dispatch run its own shared experts and the other's projections, beside its combine the other's core of
attention and gate; its routed experts run beside nothing. Prompts (assets/prefill.jpg): attention of both, then routed
experts of both; each half's shared experts fill what is left of its combine.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Parts(NamedTuple):
    """ns of a layer's parts. prepare, core: of attention before its core, and from there to the gate. packing: of
    dispatch and of combine, while they hold all SMs."""

    prepare: int
    core: int
    dispatch: int
    shared: int
    experts: int
    combine: int
    packing: tuple[int, int] = (0, 0)

    @property
    def total(self) -> int:
        """One after another."""
        return self.prepare + self.core + self.dispatch + self.shared + self.experts + self.combine

    @property
    def exchanges(self) -> bool:
        """Whether rows travel."""
        return bool(self.dispatch or self.combine)


class _Lanes:
    """When each lane is free. An exchange holds compute while it packs, and the network for the rest."""

    def __init__(self) -> None:
        self.compute = self.network = 0

    def work(self, ns: int, after: int = 0) -> None:
        """On compute, when something has come."""
        self.compute = max(self.compute, after) + ns

    def send(self, ns: int, packing: int) -> int:
        """When it has come."""
        self.compute += packing
        self.network = max(self.network, self.compute) + ns - packing
        return self.network


def overlapped_ns(one: Sequence[Parts], other: Sequence[Parts], prefill: bool) -> int:
    """How long the layers of both halves take."""
    return _prompts(one, other) if prefill else _decoding(one, other)


def _decoding(one: Sequence[Parts], other: Sequence[Parts]) -> int:
    """Half a layer apart: while one exchanges, the other computes what the profile has there."""
    lanes = _Lanes()
    nothing = Parts(0, 0, 0, 0, 0, 0)
    lanes.work(one[0].prepare + one[0].core if one else 0)
    for first, second, after in zip(one, other, [*one[1:], nothing], strict=True):
        for own, beside in ((first, second), (second, after)):
            come = lanes.send(own.dispatch, own.packing[0])
            lanes.work(own.shared)
            lanes.work(beside.prepare)
            lanes.work(own.experts, come)
            back = lanes.send(own.combine, own.packing[1])
            lanes.work(beside.core)
            lanes.work(0, back)
    return lanes.compute


def _prompts(one: Sequence[Parts], other: Sequence[Parts]) -> int:
    """A layer's attention of both, then its routed experts of both."""
    lanes, back, left = _Lanes(), [0, 0], [0, 0]
    for pair in zip(one, other, strict=True):
        come = [0, 0]
        for i, part in enumerate(pair):
            lanes.work(left[i])
            lanes.work(part.prepare + part.core, back[i])
            come[i] = lanes.send(part.dispatch, part.packing[0])
        for i, part in enumerate(pair):
            lanes.work(part.experts, come[i])
            back[i], left[i] = lanes.send(part.combine, part.packing[1]), part.shared
    lanes.work(sum(left))
    return max(lanes.compute, *back)
