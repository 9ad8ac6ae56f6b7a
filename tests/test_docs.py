"""What the documents say is what the programs print."""

import ast
import json
import re
from collections.abc import Iterator
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import sim
from reports.terminal import show
from sim import assembly
from sim.engine import steps
from sim.engine.kit import Kit
from sim.engine.lowering import lower
from sim.layout import plan
from sim.scenario import load
from sim.validation import beyond, chart, page, predictions, records
from sim.validation.row import Row
from sim.validation.runs import record

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
DECISIONS = (ROOT / "DECISIONS.md").read_text(encoding="utf-8")
TOP = ("README.md", "ARCHITECTURE.md", "DECISIONS.md", "CHANGELOG.md")
PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
COINED = ("layout", "step", "engine")
"""Rooms of sim whose every public class is a word of the glossary."""
MOVED = "predictions moved: run `python -m sim validate --write` and add a PREDICTION line to CHANGELOG.md"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return predictions.compare_all()


def test_no_prediction_has_moved(rows: list[Row]) -> None:
    """The gate: predictions change on purpose or not at all. It does not ask whether they are right."""
    held = json.loads((ROOT / records.GOLDEN).read_text(encoding="utf-8"))
    assert records.differences(held, records.golden(rows)) == [], MOVED


def test_the_table_in_the_readme_is_what_validate_finds(rows: list[Row]) -> None:
    shown = README.split(records.START)[1].split(records.END)[0]
    assert shown == predictions.markdown(predictions.headlines(rows)), MOVED


def test_the_page_of_validation_is_what_validate_writes(rows: list[Row]) -> None:
    more = records.runs(ROOT), beyond.section(ROOT)
    found = page.page(rows, predictions.unanswered(), predictions.readings(rows), *more)
    assert (ROOT / records.PAGE).read_text(encoding="utf-8") == found, MOVED


def test_the_readme_says_of_training_runs_what_their_page_says() -> None:
    """A table by kind, in six rows and a sum, which `validate --runs FILE --write` writes to both."""
    shown = README.split(records.RUNS_START)[1].split(records.RUNS_END)[0]
    assert shown == records.runs(ROOT) and len(shown.splitlines()) == 2 + 6 + 1
    assert README.index(records.RUNS_START) < 3000, "not on the first screen"


def test_the_page_of_training_runs_tells_of_the_intervals_that_ship() -> None:
    text = (ROOT / records.RUNS).read_text(encoding="utf-8")
    stale = "run `python -m sim validate --runs scenarios/published/training_runs.csv --learn --write`"
    assert all(line in text for line in record.kept(record.held()).splitlines()), stale


def test_the_chart_is_what_validate_writes(rows: list[Row]) -> None:
    assert (ROOT / records.CHART).read_text(encoding="utf-8") == chart.chart(rows), MOVED


def test_the_changelog_has_the_prediction(rows: list[Row]) -> None:
    found = {row.id: row.predicted for row in rows}
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.search(r"PREDICTION: .*?step ([\d.]+) s.*?layers ([\d.]+) ms", text)
    assert latest
    assert (latest[1], latest[2]) == (f"{found['IS-T4-step']:.2f}", f"{found['PD-SPAN']:.1f}"), MOVED


@pytest.mark.parametrize("name", [*TOP, *PAGES])
def test_every_linked_file_exists(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_every_page_is_in_the_index_and_the_readme_leads_there() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w.]+\.md)\)", index))
    assert linked == {Path(page).name for page in PAGES} - {"README.md"}
    assert "](docs/README.md)" in README


@pytest.mark.parametrize("name", TOP[:3])
def test_lines_fit_a_screen(name: str) -> None:
    """Tables that a program writes and pictures aside."""
    text = (ROOT / name).read_text(encoding="utf-8")
    own = re.sub(f"{re.escape(records.START)}.*?{re.escape(records.END)}", "", text, flags=re.DOTALL)
    assert [line for line in own.splitlines() if len(line) > 118] == []


def found(dotted: str) -> Any:
    """What a dotted name stands for: a module, or something in it, such as a class or one of its fields."""
    names = dotted.split(".")
    for stop in range(len(names), 0, -1):
        if (ROOT.joinpath(*names[:stop]).with_suffix(".py")).exists() or ROOT.joinpath(*names[:stop]).is_dir():
            value: Any = import_module(".".join(names[:stop]))
            for name in names[stop:]:
                value = getattr(value, "__annotations__", {}).get(name) or getattr(value, name)
            return value
    raise ModuleNotFoundError(dotted)


def glossary() -> Iterator[str]:
    """Places in the code that the glossary names, from `sim` or `hwmodels` on."""
    for line in ARCHITECTURE.split("## 6. Glossary")[1].splitlines():
        for place in re.findall(r"`((?:\w+\.)+\w+)`", line) if line.startswith("| ") else ():
            yield place if place.startswith("hwmodels.") else f"sim.{place}"


@pytest.mark.parametrize("place", sorted(set(glossary())))
def test_every_word_of_the_glossary_is_in_the_code(place: str) -> None:
    assert found(place) is not None


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z]\w+)`", ARCHITECTURE))))
def test_every_class_that_the_architecture_names_is_in_the_code(name: str) -> None:
    names = rf"^(class {name}\b|{name}\b.* = )"
    texts = (
        path.read_text(encoding="utf-8")
        for room in ("sim", "hwmodels", "tests")
        for path in (ROOT / room).rglob("*.py")
    )
    assert any(re.search(names, text, re.MULTILINE) for text in texts)


@pytest.mark.parametrize("room", COINED)
def test_every_class_of_the_inner_rooms_is_a_word_of_the_glossary(room: str) -> None:
    text = ARCHITECTURE.split("## 6. Glossary")[1]
    for path in sorted((ROOT / "sim" / room).glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert re.search(rf"`(\w+\.)*{node.name}(\.\w+)?`", text), f"{path.stem}.{node.name}"


@pytest.mark.parametrize(
    "place", sorted(set(re.findall(r"`((?:sim|hwmodels|reports)(?:\.\w+)+)`", ARCHITECTURE + DECISIONS)))
)
def test_every_place_in_the_code_exists(place: str) -> None:
    assert found(place) is not None


def test_every_file_that_the_architecture_names_exists() -> None:
    """Tests are named from tests/ on."""
    named = ARCHITECTURE.split("## 3. Invariants")[1].split("## 5. Breakpoints")[0]
    for path in re.findall(r"[\w/]*/test_\w+\.py", named):
        assert (ROOT / "tests" / path).exists(), path
    for path in re.findall(
        r"`((?:sim|hwmodels|reports|numerics|scenarios)/[\w/]*(?:\.\w+)?)`", ARCHITECTURE + DECISIONS
    ):
        assert (ROOT / path).exists(), path


def test_decisions_are_short_and_say_whether_they_hold() -> None:
    """Numbers go up by one; a status, at most three lines, and what would overturn those that hold."""
    parts = re.split(r"^## (\d+)\. ", DECISIONS, flags=re.MULTILINE)[1:]
    assert [int(number) for number in parts[::2]] == list(range(1, len(parts) // 2 + 1))
    for number, part in zip(parts[::2], parts[1::2], strict=True):
        head, *body = part.strip().split("\n\n")
        assert re.search(r"^Status: (holds|superseded by \d+)\b", head, re.MULTILINE), number
        assert ("Status: holds" not in head) or body[-1].startswith("Overturn: "), number
        assert sum(len(each.splitlines()) for each in body if not each.startswith("Overturn: ")) <= 3, number


def test_the_step_that_the_architecture_follows_is_the_one_that_runs() -> None:
    text = ARCHITECTURE.split("## 2. One step")[1].split("## 3. Invariants")[0]
    laid = plan.lay_out(load(ROOT / "scenarios" / "v3_2048gpu.yaml", ["outputs=[result]"]))
    lowered = lower(laid, assembly.machine(laid))
    timeline = steps.run(lowered.actors, lowered.kits)
    kit: Kit = lowered.kits[8][18]
    assert str(laid.program.steps[8][18]) == "F8.8+BW7.60" and f"{len(lowered.known)} kits" in text
    lasts, seven = kit.chunk.lasts, kit.fine.segments[0]
    begun, ended = (int(times[18, 0]) for times in timeline.positions[8][:2])
    sent = next(transfer for transfer in timeline.network[8] if transfer.step == 18)
    told = {
        "kernels": sum(map(len, kit.fine.alone)), "steps": sum(map(len, laid.program.steps)),
        "messages": sum(map(len, laid.messages.sent)), "events": timeline.events, "end": timeline.end,
        "attn(F)": kit.part_times[0][1], "alone": sum(kit.fine.alone[0][: seven.stop]),
        "beside": sum(kit.fine.beside[0][: seven.stop]), "combine(B)": kit.part_times[1][1], "pair": kit.timing.total,
        "forward output": lasts[0], "backward output": lasts[0] + lasts[1], "window": kit.windows[0].start,
        "begun": begun, "ended": ended, "drawn": begun + kit.part_times[0][1], "on the wire": int(sent.starts[0]),
        "arrived": int(sent.ends[0]), "message": dict(lowered.jobs[8][18].sends)[1],
    }  # fmt: skip
    assert [name for name, figure in told.items() if f"{figure:,}" not in " ".join(text.split())] == []
    assert f"`ts` {begun // 1000} and" in text


def test_the_answer_in_the_readme_is_what_a_run_prints() -> None:
    stream = StringIO()
    show(sim.run(load(ROOT / "scenarios" / "v3_2048gpu.yaml", ["outputs=[result]"])), stream)
    printed = [line.rstrip() for line in stream.getvalue().splitlines()]
    shown = README.split("```")[1].strip().splitlines()
    assert len(shown) == 12 and [line for line in shown[:-1] if line not in printed] == []


def test_every_scenario_named_in_the_readme_exists() -> None:
    for path in re.findall(r"scenarios/\w+\.yaml", README):
        assert (ROOT / path).exists(), path
