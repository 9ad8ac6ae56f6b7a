"""Searches: what is read and refused, and that what is found is the best there is."""

import errno
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from hwmodels.document import Document, DocumentError, Place
from hwmodels.refused import Refused
from sim.__main__ import main
from sim.experiments import explore
from sim.experiments.answer import Answer, counts
from sim.experiments.executors import Here
from sim.experiments.explore import explored
from sim.experiments.objectives import OBJECTIVES, Facts, Prices, front, rank_correlation, ranks
from sim.experiments.screen import Ask, even, tried
from sim.experiments.search import Search, of_document, read_search
from sim.scenario import SCENARIOS, load
from sim.schedules.program import names
from sim.simulation import run
from tests.examples import examples

LITE = str(SCENARIOS / "v2_lite.yaml")
SMALL = ["model.layers=5", "batch.sequences=48", "cluster.nodes=1", "parallel.expert=4"]
"""Of every point here: a model of a few layers, and a few micro-batches, on one node."""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def searched(**content: Any) -> Search:
    content = {"scenario": LITE, "overrides": SMALL, **content}
    return of_document(Document(content, {(): Place("s.yaml")}), "s.yaml", Path())


# --- the best ---------------------------------------------------------------------------------------------------------

AXES: dict[str, list[Any]] = {
    "parallel.pipeline": [1, 2, 4], "parallel.expert": [1, 2, 4, 8], "batch.micro_batch": [1, 2, 3],
    "schedule": ["1f1b", "zb1p", "dualpipe", "gpipe", "interleaved"], "recompute": ["none", "recipe", "full"],
    "comm.sms": [8, 20], "cluster.nodes": [1, 2], "routing.kind": ["balanced", "sampled"],
}  # fmt: skip


@st.composite
def small(draw: st.DrawFn) -> Search:
    names = draw(st.lists(st.sampled_from(sorted(AXES)), min_size=2, max_size=3, unique=True))
    axes = {n: draw(st.lists(st.sampled_from(AXES[n]), min_size=1, max_size=3, unique=True)) for n in names}
    wanted = ["tokens_per_day", "gpus", "memory", "dollars_per_trillion_tokens", "step_time"]
    objectives = draw(st.lists(st.sampled_from(wanted), min_size=1, max_size=2, unique=True))
    memory = draw(st.sampled_from(["80 GB", "16 GB", "9 GB"]))
    return searched(
        space=axes, objectives=objectives, prices={"gpu_hour": "2 USD"}, best=draw(st.integers(1, 3)),
        constraints={"memory": memory},
    )  # fmt: skip


@cache
def ran(overrides: tuple[str, ...]) -> tuple[Facts, bool] | None:
    """One point loaded and run, without rules, bounds or a memory model: its facts, and whether it is feasible; None
    where it is refused. Spaces share points."""
    try:
        scenario = even(load(LITE, overrides))
        summary = run(scenario, interval=False).summary
    except Refused:
        return None
    assert scenario.cluster is not None
    peak = summary["worst_memory"]["peak_bytes"]
    facts = Facts(summary["step_time_s"], summary["tokens_per_step"], scenario.cluster.gpus, peak)
    return facts, summary["feasible"]


def by_hand(search: Search) -> list[tuple[tuple[float, ...], dict[str, str]]]:
    """Scores and labels of every combination that fits, the best first."""
    rows = []
    for point in search.space.product:
        facts, feasible = ran(tuple(point.overrides)) or (None, False)
        if facts and feasible and facts.peak_bytes <= (search.limits.memory or 0):
            rows.append((search.scores(facts), point.labels))
    return sorted(rows, key=lambda row: row[0])


@examples(50, suppress_health_check=list(HealthCheck))
@given(small())
def test_a_search_finds_the_best_that_there_is(search: Search) -> None:
    """The best of the whole space, as many as are asked for, and the whole front of its objectives."""
    rows = by_hand(search)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(explore, "BATCH", 1)  # what is left out hangs on each point that ran
            answer = explored(search, Here())
    except Refused as refused:
        assert not rows and ("none of" in str(refused) or "none keeps" in str(refused))
        return
    assert rows, "what a search finds is there"
    found = [row.scores for row in answer.rows]
    assert found[: search.best] == [each for each, _ in rows[: search.best]]
    assert answer.winner.point.labels in [labels for each, labels in rows if each == found[0]]
    whole = {rows[i][0] for i in front([each for each, _ in rows])}
    assert {row.scores for row in answer.rows if row.front} == whole
    assert answer.census.legal == sum(answer.pruned.values()) + len(answer.rows)


def test_what_cannot_be_best_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points whose least step is longer than that of what ran are left out, and counted."""
    seen: list[Ask] = []
    monkeypatch.setattr(explore, "tried", lambda ask: seen.append(ask) or tried(ask))
    monkeypatch.setattr(explore, "BATCH", 1)
    search = searched(space={"model.layers": [5, 12, 24]}, best=1)
    answer = explored(search, Here())
    assert answer.winner.point.labels == {"model.layers": "5"} and answer.ran == 1
    assert answer.pruned == {"beaten": 2} and len(seen) == 3  # and the winner's neighbours, once each


def test_what_does_not_fit_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*words: Any, **more: Any) -> Any:
        raise AssertionError("run")

    monkeypatch.setattr("sim.experiments.screen.run", never)
    with pytest.raises(Refused, match="2 points are legal and none keeps what must hold; 2 miss memory: the least"):
        explored(searched(space={"schedule": ["1f1b", "zb1p"]}, constraints={"memory": "1 GB"}), Here())


def test_limits_of_cluster_time_and_money() -> None:
    space = {"cluster.nodes": [1, 2], "schedule": ["1f1b", "zb1p"]}
    few = explored(searched(space=space, constraints={"gpus": 8}), Here())
    assert few.winner.point.labels["cluster.nodes"] == "1" and few.census.legal == 2
    assert few.census.illegal["constraints.gpus"].why == "16 GPUs; constraints.gpus 8"
    quick = explored(searched(space=space, constraints={"step_time": f"{few.winner.facts.step_s * 0.8} s"}), Here())
    assert {row.facts.gpus for row in quick.rows} == {16} and quick.pruned["step_time"] == 2
    prices = {"prices": {"gpu_hour": "2 USD"}, "tokens": 1e12}
    dear = explored(searched(space=space, objectives=["days", "dollars"], **prices), Here())
    most = 1.01 * min(dear.figures(row)["dollars"] for row in dear.rows)
    cheap = explored(searched(space=space, constraints={"budget": f"{most} USD"}, **prices), Here())
    assert 0 < len(cheap.rows) < len(dear.rows) and cheap.pruned["budget"] > 0
    with pytest.raises(Refused, match=r"4 miss constraints\.days"):
        explored(searched(space=space, constraints={"days": 0.001}, tokens=1e12), Here())


def test_counts_say_where_every_combination_went() -> None:
    lines = list(counts(explored(searched(space={"parallel.pipeline": [1, 2, 3], "parallel.expert": [7, 8]}), Here())))
    assert lines[0] == "6 combinations, 1 of them legal, 1 simulated"
    assert sum(int(line.split()[0]) for line in lines[1:]) == 5


def test_an_empty_space_says_what_emptied_it() -> None:
    with pytest.raises(Refused) as refused:
        explored(searched(space={"parallel.expert": [7, 9], "schedule": ["1f1b", "zb1p"]}), Here())
    assert str(refused.value) == (
        "s.yaml: none of 4 points is legal; 4 are forbidden by: experts divide over parallel.expert (model.experts 64"
        " cannot be divided by parallel.expert 7; legal: 1, 2, 4, 8, 16, 32, 64)"
    )


# --- again ------------------------------------------------------------------------------------------------------------


def plain(answer: Answer) -> Any:
    return [(row.choice, row.facts, row.scores, row.front) for row in answer.rows], answer.pruned, answer.census


def test_what_is_kept_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    search, folder = searched(space={"schedule": ["1f1b", "zb1p"], "recompute": ["none", "full"]}, best=2), Path("kept")
    first = explored(search, Here(), folder)
    lines = {name: (folder / name).read_text() for name in ("points.jsonl", "full.jsonl")}

    def never(*words: Any) -> Any:
        raise AssertionError("run")

    monkeypatch.setattr(explore, "tried", never)
    monkeypatch.setattr(explore, "record", never)
    assert plain(explored(search, Here(), folder)) == plain(first)
    assert {name: (folder / name).read_text() for name in lines} == lines
    with pytest.raises(AssertionError):
        explored(searched(space={"schedule": ["1f1b"]}, constraints={"memory": "79 GB"}), Here(), folder)


def test_a_full_disk_is_a_line_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that has room for two lines and a half: they are there whole, and the search goes on from them."""
    written(f"scenario: LITE\noverrides: [{', '.join(SMALL)}]\nspace: {{recompute: [none, full]}}\nbest: 1")
    left, real = [2], os.write

    def write(file: int, line: bytes) -> int:
        if left[0] > 0:
            left[0] -= 1
            return real(file, line)
        if len(line) > 1 and left[0] == 0:
            left[0] = -1
            return real(file, line[: len(line) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("sim.experiments.record.os.write", write)
        assert main(["search", "s.yaml", "-q", "--out", "o"]) == 2
    assert capsys.readouterr().err == "o/points.jsonl: cannot be written: No space left on device\n"
    before = Path("o/points.jsonl").read_text()
    assert len([json.loads(line) for line in before.splitlines()]) == 2 and before.endswith("\n")
    assert main(["search", "s.yaml", "-q", "--out", "o"]) == 0
    assert Path("o/points.jsonl").read_text().startswith(before)


# --- too many to look at all ------------------------------------------------------------------------------------------

MANY = {"parallel.pipeline": [1, 2, 4], "parallel.expert": [1, 2, 4, 8], "batch.micro_batch": [1, 2, 3],
        "schedule": ["1f1b", "zb1p", "dualpipe"]}  # fmt: skip


@cache
def best_of_many() -> float:
    """Seconds of the best step of all points."""
    whole = explored(searched(space=MANY, objectives=["tokens_per_day", "memory"], best=1), Here())
    return whole.winner.facts.step_s


@pytest.mark.parametrize("kind", ["tpe", "nsga2"])
def test_a_sampler_tries_only_legal_points(kind: str) -> None:
    pytest.importorskip("optuna")
    sampler = {"kind": kind, "trials": 32, "seed": 1}
    search = searched(space=MANY, exhaustive=5, sampler=sampler, objectives=["tokens_per_day", "memory"], best=1)
    answer = explored(search, Here())
    assert not answer.refused and 1 < answer.ran <= 32 and not answer.census.whole
    assert next(iter(counts(answer))).startswith("108 combinations, more than 5 of them legal: 32 chosen by ")
    assert answer.winner.facts.step_s <= 1.1 * best_of_many()


def test_a_sampler_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of the journal are not chosen again, nor are their points run."""
    pytest.importorskip("optuna")
    given = {"space": MANY, "exhaustive": 5, "best": 1}
    folder, batches = Path("kept"), list[int]()
    first = explored(searched(sampler={"trials": 16}, **given), Here(), folder)
    lines = (folder / "points.jsonl").read_text()
    again = explored(searched(sampler={"trials": 16}, **given), Here(), folder)
    assert plain(again) == plain(first) and (folder / "points.jsonl").read_text() == lines

    def counting(self: explore.Explorer, choices: Any) -> None:
        batches.append(len(choices))
        original(self, choices)

    original = explore.Explorer.try_all
    monkeypatch.setattr(explore.Explorer, "try_all", counting)
    more = explored(searched(sampler={"trials": 24}, **given), Here(), folder)
    assert {row.choice for row in first.rows} <= {row.choice for row in more.rows}
    assert batches[0] == len({row.choice for row in first.rows}) + sum(first.pruned.values()) and batches[1] <= 8


def test_without_optuna_one_line_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    written(f"scenario: LITE\noverrides: [{', '.join(SMALL)}]\nspace: {{seed: [0, 1, 2]}}\nexhaustive: 2")
    assert main(["search", "s.yaml", "-q"]) == 2
    why = "s.yaml: more than 2 points are legal, and choosing among them needs Optuna: pip install 'trainyard[search]'"
    assert capsys.readouterr().err == f"{why}, or raise exhaustive\n"


# --- figures ----------------------------------------------------------------------------------------------------------


def test_rank_correlation_by_hand() -> None:
    assert ranks([3.0, 1.0, 3.0, 2.0]) == [3.5, 1.0, 3.5, 2.0]
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == 1.0
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == -1.0
    assert rank_correlation([1, 2, 3], [1, 3, 2]) == 0.5  # 1 - 6 x 2 / (3 x 8)
    assert rank_correlation([1, 1], [1, 2]) is rank_correlation([], []) is None


def test_objectives_by_hand() -> None:
    """100 GPUs for 10 s a step of 1e6 tokens: 1,000 GPU-s a million tokens, 277,778 GPU-hours a trillion."""
    facts, prices = Facts(10.0, 10**6, 100, 5 * 10**9), Prices(2.0, 1e9)
    hours = "gpu_hours_per_trillion_tokens"
    names = ("tokens_per_day", hours, "dollars_per_trillion_tokens", "dollars", "days", "gpus", "memory")
    found = [OBJECTIVES[name].figure(facts, prices) for name in names]
    expected = (8.64e9, 1e9 / 3600, 2e9 / 3600, 2e6 / 3600, 1e4 / 86400, 100, 5)
    assert found == pytest.approx(expected, rel=1e-12)


# --- files ------------------------------------------------------------------------------------------------------------

BAD = [
    ("[1]", "s.yaml:1:1: expected keys and values, e.g. scenario: ../v3_2048gpu.yaml; found [1]"),
    ("schedule: 1f1b\nbatch: {}", "s.yaml: is a scenario, not a search; a search names one (scenario: FILE) and a "
                                  "space, see scenarios/searches"),
    ("scenario: LITE", "s.yaml:1:1: space: missing; expected axes, e.g. {schedule: [dualpipe, zb1p]}"),
    ("space: {seed: [1]}", "s.yaml:1:1: scenario: missing; expected a scenario file, e.g. ../v3_2048gpu.yaml"),
    ("scenario: LITE\nspace: {seed: 3}",
     "s.yaml:2:9: space.seed: expected a list of values, or labels with overrides; found 3"),
    ("scenario: LITE\nspace: {parallel.pipelin: [1]}",
     "s.yaml:2:28: space.parallel.pipelin[0]: unknown key 'pipelin', did you mean 'pipeline'? legal: "),
    ("scenario: LITE\nspace: {x: {a: comm.smss=4}}",
     "s.yaml:2:13: space.x.a: comm.smss: unknown key 'smss', did you mean 'sms'? legal: "),
    ("scenario: LITE\nspace: {seed: [1]}\nobjectives: [tokens_per_dya]",
     "s.yaml:3:14: objectives[0]: unknown objective 'tokens_per_dya', did you mean 'tokens_per_day'? legal: "),
    ("scenario: LITE\nspace: {seed: [1]}\nobjectives: [gpus, gpus]",
     "s.yaml:3:20: objectives[1]: gpus stands there twice"),
    ("scenario: LITE\nspace: {seed: [1]}\nobjectives: [dollars_per_trillion_tokens]",
     "s.yaml:3:1: objectives: dollars_per_trillion_tokens needs prices.gpu_hour, e.g. 2 USD"),
    ("scenario: LITE\nspace: {seed: [1]}\nconstraints: {memry: 3 GB}",
     "s.yaml:3:15: constraints.memry: unknown key 'memry', did you mean 'memory'? legal: budget, days, gpus, memory, "
     "step_time"),
    ("scenario: LITE\nspace: {seed: [1]}\nconstraints: {memory: 3 s}",
     "s.yaml:3:15: constraints.memory: '3 s' is time, expected data (e.g. \"80 GB\")"),
    ("scenario: LITE\nspace: {seed: [1]}\nconstraints: {gpus: many}",
     "s.yaml:3:15: constraints.gpus: expected a whole number, 1 or more; found 'many'"),
    ("scenario: LITE\nspace: {seed: [1]}\nbest: 10000000000000000000000",
     "s.yaml:3:1: best: found 10000000000000000000000; legal: up to 2147483648"),
    ("scenario: LITE\nspace: {seed: [1]}\nsampler: {kind: nsga}",
     "s.yaml:3:11: sampler.kind: found 'nsga', did you mean 'nsga2'? legal: tpe, nsga2"),
    ("scenario: LITE\nspace: {seed: [1]}\ncheap: [comm.exchanges=closed]",
     "s.yaml:3:9: comm.exchanges: unknown key 'exchanges', did you mean 'exchange'? legal: "),
    ("scenario: CHUNKS\nspace: {schedule: [1f1b]}",
     "s.yaml:1:1: scenario: a search needs a model on a cluster, not chunk_times"),
    ("scenario: absent.yaml\nspace: {seed: [1]}",
     "s.yaml:1:1: scenario: absent.yaml cannot be read: No such file or directory"),
    ("scenario: LITE\nspace: {schedule: [1f1b, dualpip]}",
     "s.yaml:2:26: space.schedule[1]: unknown schedule 'dualpip', did you mean 'dualpipe'? legal: "),
]  # fmt: skip


def test_a_file_anywhere_names_what_ships(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "s.yaml").write_text("scenario: v2_lite\nspace: {schedule: [1f1b]}")
    assert read_search(Path("far/s.yaml")).space.path == LITE
    (tmp_path / "far" / "v2_lite").write_text(Path(LITE).read_text())
    assert read_search(tmp_path / "far" / "s.yaml").space.path == str(tmp_path / "far" / "v2_lite")


def written(text: str) -> Path:
    path = Path("s.yaml")
    text = text.replace("LITE", LITE).replace("CHUNKS", str(SCENARIOS / "dualpipe_8x20.yaml"))
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("text", "line"), BAD, ids=[line[:50] for _, line in BAD])
def test_a_wrong_search_is_exit_2_with_one_line(text: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    written(text)
    assert main(["search", "s.yaml", "-q"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(line) if line.endswith(" ") else err == f"{line}\n"


def test_all_mistakes_of_a_search_are_told_at_once() -> None:
    text = "scenario: LITE\nspaces: {}\nspace: {seed: 3}\nobjectives: [fast]\nbest: 0\nconstraints: {gpu: 1}"
    with pytest.raises(DocumentError) as wrong:
        read_search(written(text))
    assert [problem.place.line for problem in wrong.value.problems] == [2, 6, 4, 3, 5]
    stops = "scenario: LITE\nspace:\n  parallel.pipeline: [1, x]\n  comm.sms: [20, y, z]"
    with pytest.raises(DocumentError) as wrong:
        read_search(written(stops))
    assert [(problem.place.line, problem.key) for problem in wrong.value.problems] == [
        (3, "space.parallel.pipeline[1]"), (4, "space.comm.sms[1]"), (4, "space.comm.sms[2]")
    ]  # fmt: skip
    both = f"{stops.replace('[20, y, z]', '[20, y]')}\nbest: 0"  # stops of axes beside all else
    with pytest.raises(DocumentError) as wrong:
        read_search(written(both))
    assert [problem.place.line for problem in wrong.value.problems] == [5, 3, 4]


def test_a_limit_that_nobody_keeps_is_told_with_the_nearest() -> None:
    space, asked = {"schedule": ["1f1b", "zb1p"]}, {"step_time": "1 ms"}
    with pytest.raises(Refused) as refused:
        explored(searched(space=space, constraints=asked), Here())
    said = str(refused.value).rpartition("2 miss constraints.step_time: none has less than ")[2]
    steps = [run(even(load(LITE, [*SMALL, f"schedule={name}"])), interval=False).summary["step_time_s"]
             for name in space["schedule"]]  # fmt: skip
    assert 0.5 * min(steps) < float(said.removesuffix(" s")) <= min(steps)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    written("scenario: LITE\noverrides: [model.layers=5, batch.sequences=48, cluster.nodes=1, parallel.expert=4]\n"
            "space: {schedule: [1f1b, zb1p], recompute: [recipe, full]}\nbest: 2")  # fmt: skip
    assert main(["search", "s.yaml", "-q"]) == 0
    out, err = capsys.readouterr()
    assert "4 combinations, 4 of them legal, " in out and "rank correlation" in out and " binds: " in out
    folder = Path("out/searches/s")
    assert f"written to {folder}" in err
    answer = json.loads((folder / "answer.json").read_text())
    best = answer["best"][0]
    assert main(["run", str(folder / "best-1.yaml"), "-q", "--out", "again", "outputs=[result]"]) == 0
    again = json.loads(Path("again/result.json").read_text())
    assert again["step_time_s"] == best["full"]["step_time_s"] == best["step_time_s"]
    command = best["command"].split()
    assert command[:3] == ["python", "-m", "sim"] and main([*command[3:], "-q", "--out", "there"]) == 0
    assert json.loads(Path("there/result.json").read_text())["step_time_s"] == best["step_time_s"]


def test_the_command_goes_on_and_keeps_others_files(capsys: pytest.CaptureFixture[str]) -> None:
    written(f"scenario: LITE\noverrides: [{', '.join(SMALL)}]\nspace: {{seed: [0, 1]}}")
    assert main(["search", "s.yaml", "-q", "--out", "o", "--format", "json"]) == 0
    first = json.loads(capsys.readouterr().out)
    kept = Path("o/points.jsonl").read_text()
    assert main(["search", "s.yaml", "-q", "--out", "o", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == first and Path("o/points.jsonl").read_text() == kept
    for name in ("search.html", "answer.json", "best-1.yaml"):
        Path("o2").mkdir(exist_ok=True)
        Path("o2", name).write_text("mine")
        assert main(["search", "s.yaml", "-q", "--out", "o2"]) == 2
        assert Path("o2", name).read_text() == "mine" and f"o2/{name}: " in capsys.readouterr().err
        Path("o2", name).unlink()


# --- DeepSeek-V3 ------------------------------------------------------------------------------------------------------


def test_the_shipped_search_is_read() -> None:
    """Every way to cut V3 over 2,048 GPUs: tensor 1 to 8, pipeline 1 to 32, expert 8 to 256, six schedules."""
    search = read_search(Path("v3_2048gpu"))
    assert len(search.space.product) == 2 * 6 * 4 * 6 * 6 * 2 * 3 * 3 == 31_104
    labels = {axis.name: [stop.label for stop in axis.stops] for axis in search.space.product.axes}
    assert labels["parallel.tensor"] == ["1", "2", "4", "8"] and sorted(labels["schedule"]) == sorted(names())


def test_the_winner_is_no_slower_than_layouts_by_hand() -> None:
    """V3 as people would cut it, run one by one, beside what a search over the same choices finds."""
    v3 = str(SCENARIOS / "v3_2048gpu.yaml")
    space = {"parallel.pipeline": [8, 16], "parallel.expert": [32, 64], "schedule": ["dualpipe", "1f1b", "zb1p"]}
    answer = explored(searched(scenario=v3, overrides=[], space=space, best=1), Here())
    by_hand = [
        ["schedule=dualpipe"], ["parallel.expert=32"], ["schedule=1f1b", "parallel.pipeline=8"], ["schedule=zb1p"],
        ["parallel.pipeline=8", "schedule=1f1b", "parallel.expert=32"],
    ]  # fmt: skip
    summaries = [run(load(v3, [*words, "outputs=[result]"]), interval=False).summary for words in by_hand]
    steps = [summary["step_time_s"] for summary in summaries if summary["feasible"]]
    assert len(steps) >= 4 and answer.winner.facts.step_s <= min(steps)
