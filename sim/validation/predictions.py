"""Predictions beside what was published: one row a figure, with its error, its interval and what of it was an input.

The figures are in `scenarios/published/*.yaml`; nothing here is ever fitted to them. Two questions are kept apart. Did
predictions move? `tests/golden/predictions.json` holds them to four digits and is written on purpose. Are we right?
The tables say, and nothing depends on the answer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from hwmodels.document import read
from sim.scenario import SCENARIOS
from sim.validation import kernels, networks, pair, schedules, sizes, step
from sim.validation.answer import Answer
from sim.validation.readings import section
from sim.validation.reference import Reference, scenario
from sim.validation.row import Row, Unanswered
from sim.validation.table import markdown

__all__ = ["compare", "compare_all", "headlines", "markdown", "names", "published", "readings", "unanswered"]

FOLDER = SCENARIOS / "published"
OPEN = "unanswered"
"""The file of figures that nothing here predicts."""
STEP = "deepseek_v3"
"""The file of figures of the step."""


def published(name: str) -> dict[str, Any]:
    """The figures of `scenarios/published/<name>.yaml`."""
    content: dict[str, Any] = dict(read(FOLDER / f"{name}.yaml").content)
    return content


def names() -> tuple[str, ...]:
    """The files of figures that are answered, in the order they are shown."""
    files = {path.stem: published(path.stem) for path in FOLDER.glob("*.yaml") if path.stem != OPEN}
    return tuple(sorted(files, key=lambda name: int(files[name]["order"])))


def compare(name: str = STEP, overrides: tuple[str, ...] = ()) -> list[Row]:
    """Every figure of one file beside the prediction of its scenario under `overrides`."""
    table = published(name)
    ask = _asker(_reference(table["scenario"], overrides))
    return [_row(entry, table, ask(entry)) for entry in table["rows"]]


def compare_all() -> list[Row]:
    """Every figure of every file."""
    return [row for name in names() for row in compare(name)]


def readings(rows: Sequence[Row]) -> str:
    """The step of `compare`'s scenario read in other ways, beside all rows."""
    return section(rows, published(STEP)["scenario"])


def unanswered() -> list[Unanswered]:
    """Figures nothing here predicts."""
    table = published(OPEN)
    return [Unanswered(r["id"], r["quantity"], table["reasons"][r["reason"]]) for r in table["rows"]]


def _row(entry: Mapping[str, Any], table: Mapping[str, Any], answer: Answer) -> Row:
    return Row(
        entry["id"], entry["quantity"], answer.value, float(entry["value"]), entry["unit"],
        table["sources"][entry["source"]], table["group"], answer.low, answer.high,
        entry.get("input", "no"), entry.get("why", ""), bool(entry.get("headline")),
    )  # fmt: skip


@cache
def _reference(name: str, overrides: tuple[str, ...]) -> Reference:
    """One a process: files of figures share a scenario's run."""
    return Reference(name, overrides)


def _asker(reference: Reference) -> Callable[[Mapping[str, Any]], Answer]:
    """Answers entries; what has the same subject is computed once."""
    known: dict[str, Mapping[str, Answer]] = {}

    def ask(entry: Mapping[str, Any]) -> Answer:
        of = dict(entry.get("of", {}))
        key = f"{entry['subject']} {of}"
        if key not in known:
            known[key] = SUBJECTS[entry["subject"]](reference, **of)
        return known[key][entry["measure"]]

    return ask


# --- subjects ---------------------------------------------------------------------------------------------------------


def _step(reference: Reference) -> dict[str, Answer]:
    return step.answers(reference.result.summary, reference.machine.cluster.gpus)


def _model(reference: Reference, name: str) -> dict[str, Answer]:
    return sizes.answers(scenario(name))


def _schedule(reference: Reference, schedule: str, pipeline: int) -> dict[str, Answer]:
    return schedules.answers(schedule, pipeline)


def _product(reference: Reference, **of: Any) -> dict[str, Answer]:
    return {"rate": kernels.product(reference.machine.pricer, **of)}


def _chip(reference: Reference, sms: int) -> dict[str, Answer]:
    device = reference.machine.cluster.node.device
    peaks = {f"peak {precision}": kernels.peak(device, precision, sms) for precision in device.peak_flops}
    return peaks | {"latency ratio": kernels.latency_ratio(device), "capacity root": kernels.capacity_root(device)}


def _fabric(reference: Reference, name: str) -> dict[str, Answer]:
    return networks.fabric(name)


def _exchange(reference: Reference, direction: str, group: int) -> dict[str, Answer]:
    return {"bandwidth": networks.exchange(reference.machine, direction, group)}


def _network(reference: Reference) -> dict[str, Answer]:
    machine, free = reference.machine, networks.free_experts(reference.machine)
    assert machine.mixture is not None
    return {
        "nvlink ratio": networks.nvlink_ratio(machine.pricer.wires),
        "free experts": free,
        "free experts of a token": free.times(machine.mixture.chosen_groups),
    }


def _balancer(reference: Reference, **of: Any) -> dict[str, Answer]:
    return {"slots": networks.balanced_slots(**of)}


SUBJECTS: Mapping[str, Callable[..., Mapping[str, Answer]]] = {
    "step": _step, "pair": pair.answers, "model": _model, "schedule": _schedule, "product": _product, "chip": _chip,
    "fabric": _fabric, "exchange": _exchange, "network": _network, "balancer": _balancer,
}  # fmt: skip
"""What an entry may be about: from the reference and the entry's `of` to measures by name."""


def headlines(rows: Iterable[Row]) -> list[Row]:
    """The rows a README shows."""
    return [row for row in rows if row.headline]
