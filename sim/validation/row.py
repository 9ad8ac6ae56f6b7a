"""Rows of validation: published figures that are predicted, and those that are not."""

from typing import NamedTuple


class Row(NamedTuple):
    """One figure: predicted and published in `unit`; low, high: ends of the 90 % interval (None: nothing is uncertain).

    input: whether the published figure was used to predict it (no, partly, yes); why: in words. headline: for a README.
    """

    id: str
    quantity: str
    predicted: float
    published: float
    unit: str
    source: str
    group: str = ""
    low: float | None = None
    high: float | None = None
    input: str = "no"
    why: str = ""
    headline: bool = False

    @property
    def error(self) -> float:
        """Relative: predicted / published - 1."""
        return self.predicted / self.published - 1

    @property
    def inside(self) -> bool | None:
        """Whether the published figure lies in the interval; None where there is none."""
        return None if self.low is None or self.high is None else self.low <= self.published <= self.high


class Unanswered(NamedTuple):
    """A published figure that the simulator does not predict, and why."""

    id: str
    quantity: str
    reason: str
