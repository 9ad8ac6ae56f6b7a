"""Interleaving against 1F1B on the layouts of NVIDIA's controlled pairs, beside (p - 1) / (m v).

The closed form (Narayanan et al., arXiv:2104.04473, sec 2.2.2) is of stages that cost alike and messages that cost
nothing: with such stages a schedule's bubble is that, exactly. What a run has besides: an embedding and a head, layers
that do not divide, messages, and steps of a recipe whose host, gathers and reductions lie between.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sim.scenario import SCENARIOS
from sim.scenario.files import from_mapping
from sim.scenario.values import Scenario
from sim.validation.runs import rows, scenario

RUNS = SCENARIOS / "published" / "training_runs.csv"
LAYOUTS = ("AB-018", "AB-019", "AB-024")
"""Rows of family bridge-ab with a pipeline, one of each layout."""
PAGE = Path("docs", "SCHEDULES.md")
START, END = "<!-- interleaving -->\n", "\n<!-- /interleaving -->"
HEAD = ("layout of", "model", "p", "m", "v", "(p - 1)/(m v)", "stages alike", "as run", "step s", "over v = 1")


class Row(NamedTuple):
    """A layout with so many stages a position. closed: the form; alike, ran: bubbles over the time of a rank's steps,
    of stages that cost alike, and of the run, mean over positions. step_s: of the run."""

    run: str
    model: str
    positions: int
    micro_batches: int
    chunks: int
    closed: float
    alike: float
    ran: float
    step_s: float


def table(names: Sequence[str] = LAYOUTS) -> Iterator[Row]:
    """A row for every number of stages a position by which its layers divide, and each layout of these runs."""
    known = {run.id: run for run in rows.read(RUNS)}
    for name in names:
        plain = dict(scenario.mapped(known[name]).plain)
        whole = from_mapping(plain)
        assert whole.model is not None
        positions, model = whole.parallel.pipeline, whole.model
        yield from (
            _row(name, plain, chunks, positions)
            for chunks in range(1, -(-model.layers // positions) + 1)
            if not -(-model.layers // positions) % chunks
        )


def _row(name: str, plain: dict[str, Any], chunks: int, positions: int) -> Row:
    from sim.simulation import run

    schedule = {"name": "interleaved", "chunks": chunks}
    chosen = from_mapping({**plain, "schedule": schedule, "placement": "balanced"})
    said, ran = run(chosen, interval=False).summary, _micro_batches(chosen)
    phases, closed = said["phases_s"], (positions - 1) / (ran * chunks)
    busy = said["step_time_s"] - phases["bubble"] - phases["optimizer"]
    assert chosen.model is not None
    return Row(
        name, chosen.model.name, positions, ran, chunks, closed, alike(positions, ran, chunks),
        phases["bubble"] / busy, said["step_time_s"],
    )  # fmt: skip


def _micro_batches(chosen: Scenario) -> int:
    return (chosen.batch.sequences or 0) // (chosen.data_parallel * chosen.batch.micro_batch)


def alike(positions: int, micro_batches: int, chunks: int) -> float:
    """Bubble over the time of a rank's steps, of stages that all cost alike, without messages."""
    from sim.simulation import run

    step = {"forward": "1 ms", "backward_input": "1 ms", "weight": "1 ms"}
    schedule = {"name": "interleaved", "chunks": chunks}
    plain = {
        "name": "alike", "parallel": {"pipeline": positions}, "batch": {"micro_batches": micro_batches},
        "schedule": schedule, "chunk_times": step,
    }  # fmt: skip
    busy = 3e-3 * micro_batches * chunks
    return float(run(from_mapping(plain), interval=False).summary["step_time_s"]) / busy - 1


def markdown(table_rows: Sequence[Row]) -> str:
    """Lines of the table."""
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|" + "--:|" * (len(HEAD) - 2)]
    first = {row.run: row.step_s for row in table_rows if row.chunks == 1}
    for r in table_rows:
        shares = " | ".join(f"{share:.4f}" for share in (r.closed, r.alike, r.ran))
        gain = f"{r.step_s / first[r.run] - 1:+.1%}".replace("%", " %")
        counts = f"{r.positions} | {r.micro_batches} | {r.chunks}"
        lines.append(f"| {r.run} | {r.model} | {counts} | {shares} | {r.step_s:.3f} | {gain} |")
    return "\n".join(lines)


def renewed(page: str, table_rows: Sequence[Row]) -> str:
    """The page with its table anew."""
    before, rest = page.split(START)
    return before + START + markdown(table_rows) + END + rest.split(END)[1]
