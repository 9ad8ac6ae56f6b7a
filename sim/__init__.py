"""Trainyard's simulator: `run(scenario) -> Result`, pure and picklable; the same scenario gives the same bytes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from sim.experiments.answer import Answer
    from sim.result import Result
    from sim.result.comparison import Comparison
    from sim.result.sensitivity import Sensitivity
    from sim.scenario.values import Scenario


def run(
    scenario: "Scenario | str | Path | Mapping[str, Any]",
    overrides: Sequence[str] | str = (),
    *,
    interval: bool = True,
    **changes: Any,
) -> "Result":
    """Simulate one training step.

    scenario: as `load` takes it, or loaded already. overrides: "key=value" each, as on the command line, or one of
    them. changes: the same by name, `schedule="1f1b"`, or `**{"comm.sms": 12}` where a key has dots. interval: with
    what takes further runs: 90 % intervals, the tornado, and which figures of the machine are not felt; about half of
    the time of a run.

    Raises hwmodels.refused.Refused when the scenario is wrong, the schedule cannot run this shape, the device cannot do
    what is asked or something is too large to count or to hold. Any other exception is a bug.
    """
    from dataclasses import replace

    from sim.experiments.unfelt import unfelt
    from sim.simulation import run as simulate

    what = load(scenario, overrides, **changes)
    result = simulate(what, interval)
    return replace(result, summary=result.summary | {"unfelt": list(unfelt(what, interval))})


def load(
    scenario: "Scenario | str | Path | Mapping[str, Any]", overrides: Sequence[str] | str = (), **changes: Any
) -> "Scenario":
    """The scenario in a YAML file, one that ships by its name ("v3_2048gpu"), or plain values as in YAML; changed by
    overrides as `run` takes them. Raises hwmodels.refused.Refused, with a line for each thing that is wrong."""
    from sim.scenario.files import load

    return load(scenario, overrides, **changes)


def compare(
    a: "Scenario | Result | str | Path | Mapping[str, Any]",
    b: "Scenario | Result | str | Path | Mapping[str, Any]",
    *,
    interval: bool = True,
) -> "Comparison":
    """Two runs side by side, with the 90 % interval of their difference (paired draws) and what makes it.

    a, b: as `load` takes it, the folder of a run, or its Result; they are simulated again. interval: see `run`. Raises
    Refused as `run` does.
    """
    from sim.experiments.compare import compare

    return compare(a, b, interval=interval)


def sensitivity(
    scenario: "Scenario | str | Path | Mapping[str, Any]",
    overrides: Sequence[str] | str = (),
    *,
    by: tuple[float, float] = (0.9, 1.1),
    keys: Sequence[str] = (),
    crossings: bool = True,
    executor: str = "local:1",
    of: str = "",
    **changes: Any,
) -> "Sensitivity":
    """What a step hangs on: each key at `by` times less and more, prices by class, and where each takes over; or what a
    campaign or a served load hangs on.

    scenario, overrides, changes: as `run` takes them. keys: those alone, or all that lie in one; none: all. crossings:
    whether to look for what takes over. executor: local:N or dask:HOST:PORT. of: of a campaign or a served load, the
    figure that is moved, a word of its searches. Raises Refused as `run` does.
    """
    from sim.experiments import kinds
    from sim.experiments.sensitivity import of_kind, sensitivity
    from sim.scenario.values import Scenario

    if not isinstance(scenario, Scenario) and kinds.of(scenario):
        words = [overrides] if isinstance(overrides, str) else [*overrides]
        words += [f"{key}={value}" for key, value in changes.items()]
        return of_kind(scenario, words, by, keys, crossings, where=executor, of=of)
    return sensitivity(load(scenario, overrides, **changes), by, keys, crossings, where=executor)


def search(
    search: "str | Path | Mapping[str, Any]",
    overrides: Sequence[str] = (),
    *,
    executor: str = "local:1",
    folder: "str | Path | None" = None,
) -> "Answer":
    """The best points of a space of scenarios, and what binds the winner; `to_frame()` of it is a pandas DataFrame.

    search: a search file, one that ships by its name, or plain values as in YAML (its scenario relative to the working
    folder). overrides: last at every point. executor: local:N or dask:HOST:PORT. folder: where runs are kept as they
    come; the same search goes on from there.

    Raises Refused when the file is wrong, no point is legal, or none keeps the constraints.
    """
    from pathlib import Path

    from hwmodels.document import Document, Place
    from sim.experiments.executors import executor as at
    from sim.experiments.explore import explored
    from sim.experiments.search import of_document, read_search

    if isinstance(search, Mapping):
        read = of_document(Document(search, {(): Place("<mapping>")}), "<mapping>", Path(), overrides)
    else:
        read = read_search(Path(search), overrides)
    with at(executor) as ready:
        return explored(read, ready, Path(folder) if folder else None)
