"""What changes as training goes on: rate, batch, and the weights of two auxiliary aims, as closed forms.

Shapes after DeepSeek-V3's report (arXiv 2412.19437 sec 4.2): the rate rises linearly, stays, falls by a cosine to a
floor and stays there; the batch grows linearly; the biases' speed and the prediction modules' weight change once.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """The learning rate. peak, floor: its largest and last value; warm-up in steps; `constant`, `end`: shares of all
    steps at which the cosine begins and ends."""

    peak: float
    floor: float
    warmup: int
    constant: float
    end: float = 1.0

    def at(self, step: int, steps: int) -> float:
        """Of the step with this number, from 0; the first is peak / warmup."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        start, end = self.constant * steps, self.end * steps
        if step < start:
            return self.peak
        along = min(1.0, (step - start) / max(end - start, 1.0))
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * along)) / 2


@dataclass(frozen=True)
class Ramp:
    """Micro-batches of a step: from `first` to `last`, linearly over the first `steps` steps."""

    first: int
    last: int
    steps: int = 0

    def at(self, step: int) -> int:
        if step >= self.steps:
            return self.last
        return self.first + (self.last - self.first) * step // self.steps


@dataclass(frozen=True)
class Switch:
    """A value that changes once: `before`, and `after` from the share `share` of all steps on."""

    before: float
    after: float
    share: float

    def at(self, step: int, steps: int) -> float:
        return self.before if step < self.share * steps else self.after
