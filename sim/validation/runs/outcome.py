"""Rows simulated: one after another or a few at a time, each with its error or why it was refused."""

import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from time import process_time
from traceback import print_exception

from hwmodels.refused import Refused, plain
from sim.simulation import run as simulate
from sim.validation.runs.rows import Run
from sim.validation.runs.scenario import Mapped, mapped

FAILED = "a bug of ours: "
"""Begins the reason of a row whose simulation failed, which is nobody's wrong input."""


@dataclass(frozen=True)
class Outcome:
    """What became of a row. predicted_s, low_s, high_s: seconds of its step and the ends of the 90 % interval, None
    where it was refused. peak_bytes: of the fullest rank, and fits: in its GPU. defaults, notes: as `Mapped` has them.
    refused: why, or "". cpu_s: what simulating it took."""

    run: Run
    predicted_s: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    peak_bytes: int | None = None
    fits: bool = True
    defaults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: str = ""
    cpu_s: float = 0.0

    @property
    def error(self) -> float | None:
        """Relative: predicted / measured - 1."""
        if self.predicted_s is None or self.run.step_s is None:
            return None
        return self.predicted_s / self.run.step_s - 1

    @property
    def inside(self) -> bool:
        """Whether the measured step lies in the interval."""
        low, step, high = self.low_s, self.run.step_s, self.high_s
        return low is not None and step is not None and high is not None and low <= step <= high


def outcome(run: Run) -> Outcome:
    """A row, simulated. What is refused is an outcome; so is what fails, a bug of ours, whose traceback goes to stderr
    and says of which row: the other rows are answered all the same."""
    try:
        row = mapped(run)
    except Refused as refused:
        return Outcome(run, refused=_reason(refused))
    try:
        return _simulated(run, row)
    except Refused as refused:
        return Outcome(run, defaults=row.defaults, notes=row.notes, refused=_reason(refused))
    except Exception as error:
        error.add_note(f"row {run.id}: {dict(row.plain)}")
        print_exception(error)
        what = plain(f"{FAILED}{type(error).__name__}: {error}")
        return Outcome(run, defaults=row.defaults, notes=row.notes, refused=what)


def _simulated(run: Run, row: Mapped) -> Outcome:
    start = process_time()
    summary = simulate(row.scenario, interval=True).summary
    low, high = (summary["intervals_90"] or {}).get("step_time_s") or (None, None)
    return Outcome(
        run, summary["step_time_s"], low, high, int(summary["worst_memory"]["peak_bytes"]), not summary["infeasible"],
        row.defaults, row.notes, cpu_s=process_time() - start,
    )  # fmt: skip


def _reason(refused: Refused) -> str:
    """The first of several lines, without the place, which is always the row."""
    return str(refused).splitlines()[0].removeprefix("<mapping>: ")


def outcomes(rows: Sequence[Run], jobs: int, progress: Callable[[int], None] = lambda done: None) -> Iterator[Outcome]:
    """Of all rows, in no order. progress: is given how many are done."""
    if jobs == 1:
        for done, run in enumerate(rows, 1):
            yield outcome(run)
            progress(done)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), gc.set_threshold, (200_000,)) as pool:
        waiting = [pool.submit(outcome, run) for run in rows]
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                yield future.result()
                progress(done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
