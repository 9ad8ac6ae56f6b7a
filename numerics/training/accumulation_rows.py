"""A point of the accumulation study, as the study computes it and its page draws it."""

from dataclasses import dataclass
from statistics import median_high


@dataclass(frozen=True)
class Row:
    """One point: `metric` -> its value for each seed. promote 0: never; accumulator: see `hopper.TensorCore`."""

    data: str
    k: int
    promote: int
    accumulator: str
    figures: dict[str, list[float]]

    def median(self, metric: str) -> float:
        return median_high(self.figures[metric])
