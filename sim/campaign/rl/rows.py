"""Published steps beside ours: published.yaml, row by row."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import Document, read
from sim.campaign.rl.answer import run
from sim.campaign.rl.files import resolved
from sim.campaign.rl.values import Learning
from sim.scenario.overrides import merged

FILE = Path(__file__).with_name("published.yaml")
Row = Mapping[str, Any]


class Compared(NamedTuple):
    """A row and what we answer under `rl`."""

    row: Row
    ours: Mapping[str, Any]

    @property
    def error(self) -> float:
        """Of the step, relative."""
        return float(self.ours["step_s"]) / float(self.row["step_s"]) - 1


@cache
def content() -> Mapping[str, Any]:
    """The file."""
    read_: Mapping[str, Any] = read(FILE).content
    return read_


def learning(row: Row) -> Learning:
    """A row as a scenario. Raises DocumentError."""
    document = Document({"name": row["id"], **content()["shared"][row["shared"]]}, {})
    return resolved(merged(document, Document(row.get("over", {}), {})), (), FILE)


@cache
def compared() -> tuple[Compared, ...]:
    """Every row beside ours."""
    return tuple(Compared(row, run(learning(row)).summary["rl"]) for row in content()["rows"])
