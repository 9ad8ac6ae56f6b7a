"""What the study's rows say: gaps of paired runs, when each run turns, spreads that chaos alone makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numerics.training.equivalence import Paired, prediction

MARGIN = 0.25
"""Percent of the loss within which two ways of training count as the same: V3's "below 0.25 %" (arXiv 2412.19437 sec
3.3, B.1)."""
EARLY = (2, 12)
"""Points of a curve of 50 before any run turns: 4 to 24 % of a run. Chosen after the curves had been seen."""
TURNED = 2.0
"""Nats below which a run has turned: between the slow fall before and the slow fall after."""
PERCENT = 100.0


@dataclass(frozen=True)
class Results:
    """Rows by what they are; each was made as the line "about" before it says. whole: which kind of row a run is."""

    rows: Sequence[dict[str, Any]]
    whole: str = "run"

    @property
    def behind(self) -> "Results":
        """The runs that began behind the turn."""
        return Results(self.rows, "behind")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == kind]

    def sessions(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Each line "about" and the rows it is about."""
        made: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        for row in self.rows:
            if row["kind"].startswith("about"):
                made.append((row, []))
            else:
                made[-1][1].append(row)
        return made

    def later(self) -> list[tuple[int, dict[str, Any], list[dict[str, Any]]]]:
        """The sessions but for the first of each kind, numbered from 1 over all."""
        kinds: set[str] = set()
        made = []
        for number, (about, rows) in enumerate(self.sessions(), 1):
            if about["kind"] in kinds:
                made.append((number, about, rows))
            kinds.add(about["kind"])
        return made

    def session(self, row: dict[str, Any]) -> int:
        """The number of the later session that a row is of, 0 where it is of none."""
        return next((number for number, _, rows in self.later() if any(one is row for one in rows)), 0)

    @property
    def runs(self) -> dict[tuple[str, int], dict[str, Any]]:
        return {(row["arm"], row["seed"]): row for row in self.of(self.whole)}

    def seeds(self, arm: str) -> list[int]:
        return [seed for name, seed in self.runs if name == arm]

    def gaps(self, arm: str, against: str, part: str) -> list[float]:
        """Percent by which an arm's loss is above another's, seed by seed; part: a key of LOSSES."""
        both = [seed for seed in self.seeds(arm) if (against, seed) in self.runs]
        loss = LOSSES[part]
        return [PERCENT * (loss(self.runs[arm, s]) / loss(self.runs[against, s]) - 1) for s in both]

    def paired(self, arm: str, part: str, against: str = "bf16") -> Paired:
        return Paired(tuple(self.gaps(arm, against, part)))

    def chaos(self, part: str) -> float:
        """How far one more difference may lie from zero, 95 in 100, if it is chaos alone."""
        return prediction(self.gaps("null", "bf16", part))


def _early(row: dict[str, Any]) -> float:
    return sum(row["losses"][slice(*EARLY)]) / (EARLY[1] - EARLY[0])


LOSSES = {
    "last fifth": lambda row: row["last_fifth"],
    "held out": lambda row: row["held"]["loss"],
    "early": _early,
    "first": lambda row: row["losses"][0],
}
"""Parts of a run that are compared: how the loss of each is read off a row."""


def turn(row: dict[str, Any]) -> float | None:
    """The share of a run, percent, at which its loss falls below TURNED; None if it never does."""
    losses = row["losses"]
    at = next((i for i, loss in enumerate(losses) if loss < TURNED), None)
    return None if at is None else PERCENT * at / len(losses)
