"""Rows simulated: one after another or a few at a time, each with its error or why it was refused."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import process_time
from traceback import print_exception
from typing import Any, NamedTuple

from hwmodels.refused import Refused, plain
from sim.analysis import left_out
from sim.experiments import executors
from sim.scenario.values import Scenario
from sim.simulation import run as simulate
from sim.validation.rival import rival
from sim.validation.runs.rows import Run
from sim.validation.runs.scenario import INSTEAD, Mapped, mapped

FAILED = "a bug of ours: "
"""Begins the reason of a row whose simulation failed, which is nobody's wrong input."""


class Answer(NamedTuple):
    """What a scenario comes to. step_s, low_s, high_s: seconds of its step and the ends of the 90 % interval, None
    where it was refused. parts: `interval_parts` of result.json. peak_bytes: of the fullest rank, and fits: in its GPU.
    rival_s: the step by the closed form, where it was asked. refused: why, or "". cpu_s: what it took."""

    step_s: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    parts: Mapping[str, Any] = {}
    peak_bytes: int | None = None
    fits: bool = True
    rival_s: float | None = None
    refused: str = ""
    cpu_s: float = 0.0


NOTHING = Answer()


@dataclass(frozen=True)
class Outcome:
    """What became of a row; NOTHING: it was not asked. defaults, notes: as `Mapped` has them. own: ends of the 90 %
    interval that the file's other runs give, in seconds, where they are enough."""

    run: Run
    answer: Answer = NOTHING
    defaults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    own: tuple[float, float] | None = None

    @property
    def predicted_s(self) -> float | None:
        """Seconds of the step."""
        return self.answer.step_s

    @property
    def refused(self) -> str:
        """Why there is none."""
        return self.answer.refused

    @property
    def error(self) -> float | None:
        """Relative: predicted / measured - 1."""
        return self._off(self.answer.step_s)

    @property
    def rival(self) -> float | None:
        """The same of the closed form."""
        return self._off(self.answer.rival_s)

    def _off(self, step_s: float | None) -> float | None:
        return None if step_s is None or self.run.step_s is None else step_s / self.run.step_s - 1

    @property
    def inside(self) -> bool:
        """Whether the measured step lies in the interval."""
        low, step, high = self.answer.low_s, self.run.step_s, self.answer.high_s
        return low is not None and step is not None and high is not None and low <= step <= high


def renewed(outcome: Outcome) -> Outcome:
    """With the interval that is learned by now."""
    answer = outcome.answer
    return outcome if answer.step_s is None or not answer.parts else replace(outcome, answer=_reached(answer))


def _reached(answer: Answer) -> Answer:
    """With the ends that its parts give."""
    parts = answer.parts
    assert answer.step_s is not None
    of, unsaid = left_out.Class(**parts["class"]), len(parts["unsaid"])
    low, high = left_out.reach(answer.step_s, parts["prices"], of, unsaid, parts["mfu"])
    return answer._replace(low_s=low, high_s=high)


class Row(NamedTuple):
    """A run as a scenario, or why it is none."""

    run: Run
    mapped: Mapped | None
    scenario: Scenario | None
    refused: str = ""

    def outcome(self, answer: Answer) -> Outcome:
        """With what its scenario comes to."""
        said = self.mapped
        return Outcome(self.run, self._wider(answer), said.defaults if said else (), said.notes if said else ())

    def _wider(self, answer: Answer) -> Answer:
        """With the interval of a run that leaves open what something else stands for here."""
        other = [key for key in (self.mapped.defaults if self.mapped else ()) if key.endswith(INSTEAD)]
        if not other or answer.step_s is None or not answer.parts:
            return answer
        return _reached(answer._replace(parts={**answer.parts, "unsaid": [*answer.parts["unsaid"], *other]}))


def row(run: Run) -> Row:
    """What is refused says why, and so does what fails (see `outcome`)."""
    said = None
    try:
        said = mapped(run)
        return Row(run, said, said.scenario)
    except Refused as refused:
        return Row(run, said, None, _reason(refused))
    except Exception as error:
        return Row(run, said, None, _failure(run.id, error))


def outcome(run: Run, beside: bool = False) -> Outcome:
    """A row, simulated. What is refused is an outcome; so is what fails, a bug of ours, whose traceback goes to stderr
    and says of which row: the other rows are answered all the same. beside: whether the closed form is asked too."""
    said = row(run)
    return said.outcome(_answer(run.id, said.scenario, beside) if said.scenario else Answer(refused=said.refused))


def _answer(name: str, scenario: Scenario, beside: bool) -> Answer:
    start = process_time()
    try:
        summary = simulate(scenario, interval=True).summary
        low, high = (summary["intervals_90"] or {}).get("step_time_s") or (None, None)
        peak, fits = int(summary["worst_memory"]["peak_bytes"]), not summary["infeasible"]
        return Answer(
            summary["step_time_s"], low, high, summary["interval_parts"], peak, fits,
            rival(scenario) if beside else None, cpu_s=process_time() - start,
        )  # fmt: skip
    except Refused as refused:
        return Answer(refused=_reason(refused))
    except Exception as error:
        return Answer(refused=_failure(name, error))


def _failure(name: str, error: Exception) -> str:
    """A bug of ours, with its traceback on stderr."""
    error.add_note(f"row {name}")
    print_exception(error)
    return plain(f"{FAILED}{type(error).__name__}: {error}")


def _reason(refused: Refused) -> str:
    """The first of several lines, without the place, which is always the row."""
    return str(refused).splitlines()[0].removeprefix("<mapping>: ")


def outcomes(
    runs: Sequence[Run], where: str, progress: Callable[[int], None] = lambda done: None, beside: bool = False
) -> Iterator[Outcome]:
    """Of all rows, in no order. Rows that are the same scenario (releases of one recipe) are simulated once. where:
    an executor (`sim.experiments.executors`). progress: is given how many rows are done. beside: see `outcome`."""
    alike: dict[str, list[Row]] = {}
    for said in map(row, runs):
        alike.setdefault(said.scenario.scenario_hash if said.scenario else said.run.id, []).append(said)
    done = 0
    for key, answer in _answers({key: rows[0] for key, rows in alike.items()}, where, beside):
        yield from (said.outcome(answer) for said in alike[key])
        done += len(alike[key])
        progress(done)


def _answers(rows: Mapping[str, Row], where: str, beside: bool) -> Iterator[tuple[str, Answer]]:
    """Of rows by a key, refused ones first."""
    asked = {key: said.scenario for key, said in rows.items() if said.scenario}
    yield from ((key, Answer(refused=said.refused)) for key, said in rows.items() if not said.scenario)
    keys = list(asked)
    tasks = ((rows[key].run.id, scenario, beside) for key, scenario in asked.items())
    with executors.executor(where) as ready:
        yield from ((keys[number], answer) for number, answer in ready.results(_asked, tasks))


def _asked(task: tuple[str, Scenario, bool]) -> Answer:
    return _answer(*task)
