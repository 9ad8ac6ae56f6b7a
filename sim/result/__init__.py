"""What a run answers: the figures of result.json, the traces behind them, and what a report draws."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.units import format_quantity
from sim.result import archive
from sim.result.curves import Bar, ChannelLanes, MemoryCurve, RankLoads, StageLoad, Utilisation
from sim.result.folder import replacing
from sim.result.title import changes
from sim.result.trace import Trace

Draws = npt.NDArray[np.float64]
"""Seconds of a step in each draw of prices [draw]; those of runs with one seed are paired."""

__all__ = [
    "SCHEMA_VERSION", "Bar", "ChannelLanes", "Draws", "MemoryCurve", "RankLoads", "Result", "StageLoad", "Utilisation",
]  # fmt: skip

SCHEMA_VERSION = 1
"""Version of result.json."""


@dataclass(frozen=True)
class Result:
    """Everything a run produced. Pure data: picklable, no open handles, no wall-clock times.

    summary: the content of result.json (SI units); docs/REFERENCE.md says what each key is.
    scenario: the resolved scenario as plain dicts, lists, strings and numbers.
    steps: one row per schedule step, at all pipeline positions.
    spans: one row per task at the run's detail, at all pipeline positions.
    pair: op-level spans of one overlapped forward/backward pair in isolation (or of F then B where the schedule
        never overlaps), with lane, SM count, layer and price; position is 0.
    pair_name: what the pair is, e.g. "forward of stage 7 with backward of stage 8".
    price_sources: one sentence per entry of spans.prices / pair.prices: table, row, spread.
    memory: one curve per pipeline position (empty when the scenario gave chunk times).
    waterfall: bars from ideal compute to the step, in order; they sum to step_time_s.
    stages: one entry per stage (empty when the scenario gave chunk times).
    links: how busy the fabric is, where the scenario's outputs ask for it and its fabric can be wired; summary["links"]
        says which placement and routing that is of, or why there is none.
    loads: of every rank and layer, where they were drawn and the scenario's outputs ask for them.
    draws: of the step, by prices alone; None where no intervals were asked for, or there are no prices.
    """

    summary: dict[str, Any]
    scenario: dict[str, Any]
    steps: Trace
    spans: Trace
    pair: Trace | None
    pair_name: str
    price_sources: dict[str, str]
    memory: tuple[MemoryCurve, ...]
    waterfall: tuple[Bar, ...]
    stages: tuple[StageLoad, ...]
    links: Utilisation | None = None
    loads: RankLoads | None = None
    draws: Draws | None = None

    @property
    def feasible(self) -> tuple[bool, str]:
        """(True, ""), or (False, all that is against it): what does not fit in memory, which limits are missed."""
        return self.summary["feasible"], "; ".join(self.summary["infeasible"])

    def __repr__(self) -> str:
        return f"<Result of {'; '.join(f'{name} {text}'.strip() for name, text in self._answer())}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer as a small table."""
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self._answer())
        return f"<table>{rows}</table>"

    def _answer(self) -> list[tuple[str, str]]:
        """The answer in a few words: what each is, and its value as text."""
        summary, (fits, why) = self.summary, self.feasible
        answer = [("", str(summary.get("scenario"))), ("step", format_quantity(summary["step_time_s"], "time"))]
        if words := changes(summary.get("overrides", ())):
            answer.insert(1, ("with", " ".join(words)))
        if mfu := summary.get("mfu"):
            answer.append(("MFU, causal", f"{mfu['causal']:.1%}"))
        if worst := summary.get("worst_memory"):
            peak, room = (format_quantity(worst[key], "data") for key in ("peak_bytes", "capacity_bytes"))
            answer.append(("peak memory", f"{peak} of {room}, position {worst['position']}"))
        return answer if fits else [*answer, ("infeasible", why)]

    def to_frame(self) -> Any:
        """The spans (the steps of the schedule, where no spans were drawn) as a pandas DataFrame; see Trace.to_frame.

        Raises Refused where pandas is not installed.
        """
        return (self.spans if len(self.spans) else self.steps).to_frame()

    def save(self, folder: str | Path) -> Path:
        """Write the data of this run to a folder, as the command line does, without page and Chrome traces.

        events.npz, links.csv and loads.csv are there where the run has such data. Answers the folder. Raises Refused
        when there is something in it and no run, or it cannot be written.
        """
        place = Path(folder)
        outputs = ("events", "links", "loads") if len(self.spans) else ("links", "loads")
        with replacing(place, archive.FILES) as fresh:
            archive.write(self, fresh, outputs)
        return place
