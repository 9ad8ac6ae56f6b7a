"""Sweeps: points from axes, runs that are kept and resumed, what is refused, and the command around them."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from hwmodels.document import DocumentError
from hwmodels.refused import Refused
from sim.__main__ import main
from sim.experiments import executors, kinds, record, sweep, table
from sim.experiments.record import Book, figure
from sim.experiments.sweep import read_sweep, runs
from sim.layout import plan
from sim.scenario import SCENARIOS, load
from sim.schedules.program import names

SMALL = str(SCENARIOS / "dualpipe_8x20.yaml")
SHIPPED = sorted((SCENARIOS / "sweeps").glob("*.yaml"))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hashes of what is simulated."""
    done: list[str] = []

    def counting(scenario: Any) -> dict[str, Any]:
        done.append(scenario.scenario_hash)
        return record.record(scenario)

    monkeypatch.setattr(sweep, "record", counting)
    return done


def written(text: str, name: str = "s.yaml") -> Path:
    path = Path(name)
    path.write_text(text.replace("SMALL", SMALL), encoding="utf-8")
    return path


# --- points -----------------------------------------------------------------------------------------------------------


def test_axes_make_a_product_and_points_stand_beside_it() -> None:
    found = read_sweep(written("""
        scenario: SMALL
        overrides: [seed=1]
        axes:
          schedule: [dualpipe, zb1p]
          sends: {free: [], slow: chunk_times.p2p=1ms}
        also: {more: [batch.micro_batches=40, schedule=1f1b]}
    """), ["fold=false"])  # fmt: skip
    last = ("fold=false", "outputs=[result]")
    assert [(p.labels, p.overrides) for p in found.points] == [
        ({"schedule": "dualpipe", "sends": "free"}, ("seed=1", "schedule=dualpipe", *last)),
        ({"schedule": "dualpipe", "sends": "slow"}, ("seed=1", "schedule=dualpipe", "chunk_times.p2p=1ms", *last)),
        ({"schedule": "zb1p", "sends": "free"}, ("seed=1", "schedule=zb1p", *last)),
        ({"schedule": "zb1p", "sends": "slow"}, ("seed=1", "schedule=zb1p", "chunk_times.p2p=1ms", *last)),
        ({"point": "more"}, ("seed=1", "batch.micro_batches=40", "schedule=1f1b", *last)),
    ]
    assert found.axes == ("schedule", "sends", "point")
    assert found.points[3].title == "schedule=zb1p, sends=slow"


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_product_has_every_combination_once(sizes: list[int]) -> None:
    axes = "".join(f"\n  a{i}: {list(range(size))}" for i, size in enumerate(sizes))
    found = read_sweep(written(f"scenario: SMALL\naxes:{axes}"))
    assert len(found.points) == math.prod(sizes) == len({p.overrides for p in found.points})
    assert all(p.overrides[:-1] == tuple(f"{a}={v}" for a, v in p.labels.items()) for p in found.points)


def test_a_file_anywhere_names_what_ships(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "s.yaml").write_text("scenario: v2_lite\naxes: {seed: [1]}")
    assert read_sweep(Path("far/s.yaml")).scenario == str(SCENARIOS / "v2_lite.yaml")


def test_a_sweep_without_axes_is_one_run() -> None:
    assert [p.overrides for p in read_sweep(written("scenario: SMALL")).points] == [("outputs=[result]",)]


BAD = [
    ("[1]", "s.yaml:1:1: expected keys and values, e.g. scenario: ../v3_2048gpu.yaml"),
    ("schedule: 1f1b\nbatch: {}\ncluster: 3",
     "s.yaml: is a scenario, not a sweep; a sweep names one (scenario: FILE) and axes, see scenarios/sweeps"),
    ("axes: {}", "s.yaml:1:1: scenario: missing; expected a scenario file, e.g. ../v3_2048gpu.yaml"),
    ("scenario: 3", "s.yaml:1:1: scenario: expected a scenario file; found 3"),
    ("scenario: SMALL\naxis: {}",
     "s.yaml:2:1: axis: unknown key 'axis', did you mean 'axes'? legal: also, axes, columns, fresh_processes, name, "
     "overrides, scenario"),
    ("scenario: SMALL\noverrides: seed=1", "s.yaml:2:1: overrides: expected a list of key=value; found 'seed=1'"),
    ("scenario: SMALL\naxes: [a]", "s.yaml:2:1: axes: expected a mapping, e.g. {schedule: [dualpipe, zb1p]}; found "
                                   "['a']"),
    ("scenario: SMALL\naxes: {seed: 3}",
     "s.yaml:2:8: axes.seed: expected a list of values, or labels with overrides; found 3"),
    ("scenario: SMALL\naxes: {seed: []}",
     "s.yaml:2:8: axes.seed: expected values of the scenario's key seed; found []"),
    ("scenario: SMALL\naxes: {x: {a: 3}}", "s.yaml:2:8: axes.x: expected overrides, key=value; found 3"),
    ("scenario: SMALL\nalso: {x: 3}", "s.yaml:2:8: also.x: expected overrides, key=value; found 3"),
    ("scenario: SMALL\ncolumns: {x: 3}",
     "s.yaml:2:11: columns.x: expected a key of the result, e.g. step_time_s; found 3"),
    ("scenario: SMALL\nfresh_processes: 1", "s.yaml:2:1: fresh_processes: expected true or false; found 1"),
    ("scenario: absent.yaml", "absent.yaml: cannot be read: No such file or directory"),
    ("scenario: SMALL\naxes: {schedule: [dualpip]}",
     "s.yaml: schedule=dualpip: schedule.name: unknown schedule 'dualpip', did you mean 'dualpipe'? legal: "
     + ", ".join(names())),
    ("scenario: SMALL\ncolumns: {x: step_tim_s}", "s.yaml:2:11: columns.x: unknown figure 'step_tim_s', did you mean "
     "'step_time_s'?; docs/REFERENCE.md lists the keys of result.json"),
    ("scenario: SMALL\ncolumns: {x: phases_s.bubbles}", "s.yaml:2:11: columns.x: unknown figure 'phases_s.bubbles', "
     "did you mean 'phases_s.bubble'?; docs/REFERENCE.md lists the keys of result.json"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), BAD, ids=[line[:60] for _, line in BAD])
def test_a_wrong_sweep_is_exit_2_with_one_line(text: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    written(text)
    assert main(["sweep", "s.yaml", "-q"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(line) if line.endswith(" ") else err == f"{line}\n"


def test_all_mistakes_of_a_sweep_are_told_at_once() -> None:
    with pytest.raises(DocumentError) as found:
        read_sweep(written("axes: {seed: 3}\nalsoo: {}\noverrides: 1"))
    assert len(found.value.problems) == 4


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_are_right(path: Path) -> None:
    found = read_sweep(path)
    assert len(found.points) >= 8
    for point in found.points:
        if point.labels.get("seed", "0") == "0":
            kinds.load(found.scenario, point.overrides)


def test_the_faults_of_the_study_are_where_their_labels_say() -> None:
    """Positions 0, 8 and 15 of 16, 128 ranks each, 8 ranks a node."""
    for point in read_sweep(SCENARIOS / "sweeps" / "stragglers.yaml").points:
        faults = load(str(SCENARIOS / "v3_2048gpu.yaml"), point.overrides).faults
        if point.labels["fault"] == "none":
            assert faults == ()
            continue
        kind, place = point.labels["fault"].split()
        (fault,) = faults
        rank = fault.at * 8 if kind == "node" else fault.at
        assert (fault.kind, rank // 128, fault.slower) == (
            kind, {"first": 0, "middle": 8, "last": 15}[place], 2 if kind == "link" else 1.1
        )  # fmt: skip


# --- runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_those_of_the_simulator_in_order() -> None:
    lists = [["schedule=zb1p"], [], ["schedule=1f1b"]]
    expected = [sim.run(load(SMALL, words)) for words in lists]
    found = runs(SMALL, lists)
    for one, result in zip(found, expected, strict=True):
        assert json.loads(json.dumps(one["summary"])) == result.summary
        assert one["cost"]["cpu_s"] > 0 and one["summary"]["feasible"] is True
    assert sum(found[1]["overlapped_steps"]) > 0 and sum(found[0]["overlapped_steps"]) == 0


def test_processes_give_the_same_runs() -> None:
    lists = [["schedule=zb1p"], []]
    alone, together = runs(SMALL, lists), runs(SMALL, lists, jobs=2)
    assert [r["summary"] for r in alone] == [r["summary"] for r in together]


def test_runs_that_are_alike_run_once(counted: list[str]) -> None:
    found = runs(SMALL, [["seed=1"], ["seed=1", "name=other"], ["seed=2"]])
    assert len(counted) == 2 and found[0] is found[1]


def test_what_is_kept_is_not_run_again(counted: list[str]) -> None:
    kept, seen = Path("deep/er/runs.jsonl"), list[tuple[int, int]]()
    first = runs(SMALL, [["seed=1"], ["seed=2"]], kept=kept)
    again = runs(SMALL, [["seed=2"], ["seed=3"], ["seed=1"]], kept=kept, progress=lambda *at: seen.append(at))
    assert len(counted) == 3 and again[0] == first[1] and again[2] == first[0]
    assert seen == [(2, 3)]  # when it ended, the third point was not looked at yet
    assert len(kept.read_text().splitlines()) == 3


def test_a_line_cut_off_is_run_again(counted: list[str]) -> None:
    kept = Path("runs.jsonl")
    whole = list(runs(SMALL, [["seed=1"], ["seed=2"]], kept=kept))
    kept.write_text(kept.read_text()[:-40])
    again = runs(SMALL, [["seed=1"], ["seed=2"]], kept=kept)
    assert len(counted) == 3 and again[0] == whole[0] and again[1]["summary"] == whole[1]["summary"]
    assert list(runs(SMALL, [["seed=2"]], kept=kept)) == again[1:] and len(counted) == 3


def test_runs_of_other_code_do_not_count(counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Path("runs.jsonl")
    runs(SMALL, [[]], kept=kept)
    monkeypatch.setattr(sweep, "stamp", lambda: "other code")
    runs(SMALL, [[]], kept=kept)
    assert len(counted) == 2
    assert [json.loads(line)["stamp"] for line in kept.read_text().splitlines()] == [record.stamp(), "other code"]


def test_an_interrupted_sweep_goes_on(counted: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    written("scenario: SMALL\naxes: {seed: [0, 1, 2]}")
    count = sweep.record

    def interrupted(scenario: Any) -> dict[str, Any]:
        if scenario.seed == 2:
            raise KeyboardInterrupt
        return count(scenario)

    monkeypatch.setattr(sweep, "record", interrupted)
    assert main(["sweep", "s.yaml", "-q"]) == 130
    kept = Path("out/sweeps/s.jsonl")
    assert len(kept.read_text().splitlines()) == 2 and "goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(sweep, "record", count)
    assert main(["sweep", "s.yaml", "-q"]) == 0
    assert len(counted) == 3 and len(kept.read_text().splitlines()) == 3 + 1  # and the table's digest


def test_nothing_runs_when_all_points_are_wrong(counted: list[str]) -> None:
    with pytest.raises(Refused, match="found 'x'"):
        runs(SMALL, [["fold=y"], ["fold=x"]])
    assert counted == []


def test_an_illegal_corner_is_a_row_that_says_why(counted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As far as the scenario cannot be read and as far as the schedule refuses it; the other points run."""
    lite, axes = SCENARIOS / "v2_lite.yaml", "axes: {parallel.pipeline: [2, 4], parallel.expert: [8, 16]}"
    written(f"scenario: {lite}\noverrides: [cluster.nodes=4]\n{axes}\ncolumns: {{step: step_time_s}}")
    assert main(["sweep", "s.yaml", "-q", "--out", "r.jsonl"]) == 2
    out, err = capsys.readouterr()
    why = "refused: parallel.expert: 8 ranks of a position (32 GPUs / parallel.pipeline 4) cannot be divided by "
    assert len(counted) == 3 and err.startswith(f"s.yaml: parallel.pipeline=4, parallel.expert=16: {why}")
    assert err.count("\n") == 1 and len(out.splitlines()) == 5 and why in out.splitlines()[4]
    assert len(Path("r.jsonl").read_text().splitlines()) == 3 + 1  # and the table's digest


def test_a_wrong_column_is_told_before_anything_runs(counted: list[str]) -> None:
    written("scenario: SMALL\naxes: {seed: [0, 1]}\ncolumns: {x: feasable}")
    assert main(["sweep", "s.yaml"]) == 2
    assert counted == []


@pytest.mark.parametrize("theirs", ["r.csv", "r.csv/", "r.jsonl"])
def test_a_sweep_replaces_no_table_of_somebody_else(counted: list[str], theirs: str, capsys: Any) -> None:
    """Nor one of ours that somebody has changed since."""
    written("scenario: SMALL")
    if theirs.endswith("/"):
        Path(theirs).mkdir()
    else:
        Path(theirs).write_text("a,b,error\n1,2,\n")
    assert main(["sweep", "s.yaml", "-q", "--out", "r.jsonl"]) == 2
    assert counted == [] and capsys.readouterr().err.count("\n") == 1
    assert theirs.endswith("/") or Path(theirs).read_text() == "a,b,error\n1,2,\n"
    assert (
        main(["sweep", "s.yaml", "-q", "--out", "o.jsonl"]) == main(["sweep", "s.yaml", "-q", "--out", "o.jsonl"]) == 0
    )
    with Path("o.csv").open("a") as file:
        file.write("a remark\n")
    assert main(["sweep", "s.yaml", "-q", "--out", "o.jsonl"]) == 2
    assert Path("o.csv").read_text().endswith("a remark\n")


@pytest.mark.parametrize("text", ["thesis\n", "[1]\n", "{}\n"])
def test_a_file_of_something_else_is_left_alone(text: str) -> None:
    Path("theirs.jsonl").write_text(text)
    with pytest.raises(Refused, match=r"theirs.jsonl:1: is not a run of a sweep"):
        Book(Path("theirs.jsonl"), "")
    assert Path("theirs.jsonl").read_text() == text


# --- figures and the command ------------------------------------------------------------------------------------------


def test_figures_are_found_by_dotted_keys() -> None:
    one = {"summary": {"a": {"b": [1, {"c": 2.5}]}, "none": None}, "cost": {"cpu_s": 3}, "overlapped_steps": [4, 5]}
    keys = ("a.b.0", "a.b.1.c", "cost.cpu_s", "overlapped_steps.1", "a.b.7", "a.x", "none", "a.b.c")
    assert figure(one, "none", 5) is None and figure(one, "a.x", 5) == 5
    assert [figure(one, key) for key in keys] == [1, 2.5, 3, 5, None, None, None, None]


def test_a_figure_that_is_there_but_nothing_is_no_mistake() -> None:
    """Chunk times have no GPU-hours, which the default columns show."""
    plan = read_sweep(written("scenario: SMALL"))
    rows = list(table.table(plan, runs(SMALL, [[]])))
    assert rows[1][rows[0].index("GPU-hours a trillion tokens")] is None
    assert "GPU-hours" not in table.text(rows)


def test_the_table_goes_to_stdout_and_to_csv(capsys: pytest.CaptureFixture[str]) -> None:
    written("scenario: SMALL\naxes: {schedule: [zb1p, dualpipe]}\ncolumns: {step: step_time_s, ranks: links.fabric}")
    assert main(["sweep", "s.yaml", "--out", "o/r.jsonl"]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3 and err == "s.yaml: columns.ranks: no run has links.fabric\n"
    written("scenario: SMALL\naxes: {schedule: [zb1p, dualpipe]}\ncolumns: {step: step_time_s, fits: feasible}")
    capsys.readouterr()
    assert main(["sweep", "s.yaml", "--out", "o/r.jsonl"]) == 0
    steps = [one["summary"]["step_time_s"] for one in runs(SMALL, [["schedule=zb1p"], []])]
    out, err = capsys.readouterr()
    head, *lines = out.splitlines()
    assert head.split() == ["schedule", "step", "fits"] and err == ""
    assert [line.split() for line in lines] == [["zb1p", f"{steps[0]:.5g}", "True"],
                                                ["dualpipe", f"{steps[1]:.5g}", "True"]]  # fmt: skip
    rows = list(csv.reader(Path("o/r.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row[1]) for row in rows[1:]] == steps  # in full


def test_points_that_cannot_run_are_told_and_the_others_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    written("scenario: SMALL\naxes: {batch.micro_batches: [20, 7]}")
    assert main(["sweep", "s.yaml"]) == 2
    out, err = capsys.readouterr()
    assert (
        err.startswith("s.yaml: batch.micro_batches=7: refused: batch.micro_batches: dualpipe") and err.count("\n") == 1
    )
    assert len(out.splitlines()) == 3 and "dualpipe" in out.splitlines()[2]


def test_points_that_a_bug_ends_are_failed_and_the_others_are_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a bug at one point: a point that is refused on its way is refused, and what failed runs again."""
    check = plan.check

    def bug(program: Any) -> None:
        check(program)
        if program.micro_batches == 24:
            dict(zip([1], [1, 2], strict=True))
        if program.micro_batches == 22:
            raise Refused("dualpipe with pipeline 8 deadlocks")

    monkeypatch.setattr(plan, "check", bug)
    written("scenario: SMALL\naxes: {batch.micro_batches: [20, 24, 22]}\ncolumns: {step: step_time_s}")
    assert main(["sweep", "s.yaml"]) == 70
    out, err = capsys.readouterr()
    head, ran, failed, refused = (line.split(maxsplit=2) for line in out.splitlines())
    cause = "ValueError: zip() argument 2 is longer than argument 1"
    assert head == ["batch.micro_batches", "step", "error"] and float(ran[1]) > 0 and len(ran) == 2
    assert " ".join(failed) == f"24 failed: {cause}" and " ".join(refused).startswith("22 refused: dualpipe with pipe")
    assert (
        f"s.yaml: batch.micro_batches=24: failed: {cause}\n" in err
        and "s.yaml: batch.micro_batches=22: refused: dual" in err
    )
    assert err.count("Traceback (most recent call last):") == 1 and err.endswith(f"{cause}\n")
    kept = [json.loads(line) for line in Path("out/sweeps/s.jsonl").read_text().splitlines()][:-1]
    assert [{"summary", "failed", "error"} & set(one) for one in kept] == [{"summary"}, {"failed"}, {"error"}]
    assert kept[1]["failed"].startswith("Traceback") and "in bug" in kept[1]["failed"]
    monkeypatch.setattr(plan, "check", check)
    assert main(["sweep", "s.yaml"]) == 2
    assert "failed" not in capsys.readouterr().out and len(Path("out/sweeps/s.jsonl").read_text().splitlines()) == 4 + 2


@pytest.mark.parametrize(("words", "line"), [
    ([], "a sweep file is missing, e.g. scenarios/sweeps/stragglers.yaml; see python -m sim --help"),
    (["s.yaml", "--jobs", "0"], "--jobs expects a whole number, 1 or more; found 0"),
    (["s.yaml", "--jobs", "x"], "argument --jobs: invalid int value: 'x'; see python -m sim --help"),
    (["s.yaml", "--out", "r.csv"], "r.csv: --out of a sweep is a file that ends in .jsonl"),
    (["s.yaml", "--out", "s.yaml/r.jsonl"], "s.yaml: is a file; name another folder with --out"),
    (["s.yaml", "fold=x"], "<command line> fold=x: expected true or false; found 'x'"),
])  # fmt: skip
def test_wrong_words_are_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    written("scenario: SMALL")
    assert main(["sweep", *words]) == 2
    assert capsys.readouterr() == ("", f"{line}\n")


@pytest.mark.parametrize("words", [[], ["stragler"]])
def test_an_unknown_study_names_those_there_are(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", *words]) == 2
    legal = "stragglers, unevenness, scale, campaign, batch, exchange, hierarchy"
    assert capsys.readouterr().err.endswith(f"; legal: {legal}\n")


def test_a_sweep_without_processes_is_not_told_memory_of_the_parent() -> None:
    """A fresh process has a peak of its own: less than a parent that holds 300 MB more."""
    weight = bytearray(300_000_000)
    (found,) = runs(SMALL, [[]], fresh_processes=True)
    if found["cost"]["peak_memory_bytes"]:  # 0 where the system does not say
        assert 10_000_000 < found["cost"]["peak_memory_bytes"] < len(weight)


def test_words_of_executors() -> None:
    """Words of executors are checked before anything runs."""
    written("scenario: SMALL\naxes: {seed: [0, 1]}")
    for word, why in (("local:0", "1 or more; found '0'"), ("locl:2", "did you mean 'local'?"), ("dask:", "legal: ")):
        with pytest.raises(Refused, match=re.escape(why)):
            executors.jobs(word)
        assert main(["sweep", "s.yaml", "-q", "--executor", word]) == 2
    assert main(["sweep", "s.yaml", "-q", "--executor", "local:2"]) == 0
