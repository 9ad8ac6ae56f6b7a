"""What happened, as columns: every span at every pipeline position.

A trace is a set of equally long numpy columns, one row a span. Times are integer nanoseconds from the start of
the step. Two tables share this shape: `steps` (one row per schedule step: what the pipeline timeline
draws) and `spans` (what ran on each lane, at the detail the scenario asked for).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.refused import Refused

LANES = ("compute", "communication", "weight", "network", "host")
"""Lanes of a rank: the compute stream, the all-to-all stream, the second weight-gradient stream, NCCL's stream
(pipeline sends, gradient traffic) and the copy engine to the host. Each is first in, first out."""

PHASES = ("forward", "backward_input", "backward", "weight", "overlapped", "optimizer")
"""What a step of the schedule does. `backward` is input and weight gradients together; `overlapped` is a forward
and a backward run as one interleaved pair; `optimizer` is everything after the last backward."""

Column = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trace:
    """Columns of equal length; `-1` stands for "does not apply".

    position: of the pipeline, 0 .. pipeline - 1; events.npz calls it `rank`, as Chrome traces do.
    lane: index into LANES.  phase: index into PHASES.
    start, end: nanoseconds.
    label: index into `labels` (the name drawn on the bar, e.g. "F", "attn(F)", "q_a").
    stage, micro_batch: of the forward half (or the only half) of the step.
    stage_b, micro_batch_b: of the backward half of an overlapped pair, else -1.
    layer: model layer, or -1.
    price: index into `prices` (provenance of the duration), or -1.
    sms: streaming multiprocessors held (by compute, while nothing communicates), or -1.
    rungs: of each of `prices`, the rung of the pricing ladder that it comes from, e.g. "measured".
    """

    position: Column
    lane: Column
    phase: Column
    start: Column
    end: Column
    label: Column
    stage: Column
    micro_batch: Column
    stage_b: Column
    micro_batch_b: Column
    layer: Column
    price: Column
    sms: Column
    labels: tuple[str, ...] = field(default=())
    prices: tuple[str, ...] = field(default=())
    rungs: tuple[str, ...] = field(default=())

    COLUMNS = (
        "position",
        "lane",
        "phase",
        "start",
        "end",
        "label",
        "stage",
        "micro_batch",
        "stage_b",
        "micro_batch_b",
        "layer",
        "price",
        "sms",
    )

    def __len__(self) -> int:
        return len(self.start)

    def of_position(self, position: int) -> "Trace":
        """The rows of one pipeline position, in the order they were recorded."""
        return self.where(self.position == position)

    def where(self, keep: npt.NDArray[np.bool_]) -> "Trace":
        """The rows for which `keep` is true."""
        columns = {name: getattr(self, name)[keep] for name in self.COLUMNS}
        return Trace(**columns, labels=self.labels, prices=self.prices, rungs=self.rungs)

    def __repr__(self) -> str:
        return f"<Trace of {len(self):,} rows: {', '.join(self.COLUMNS)}>"

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row a span: times in nanoseconds, and words for lane, phase, label and price.

        Raises Refused where pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            what = "to_frame needs pandas: pip install pandas, or read the columns, such as result.spans.start"
            raise Refused(what) from None
        words = {"lane": LANES, "phase": PHASES, "label": self.labels, "price": self.prices}
        columns = {name: getattr(self, name) for name in self.COLUMNS}
        named = {name: np.array((*table, ""), dtype=object)[columns[name]] for name, table in words.items()}
        return pandas.DataFrame(columns | named)
