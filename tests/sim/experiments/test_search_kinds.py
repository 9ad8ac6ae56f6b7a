"""Searches over campaigns and served loads: the best of every point run, limits from both sides, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from hwmodels.document import Document, DocumentError, Place
from hwmodels.refused import Refused
from sim.__main__ import main
from sim.experiments import explore, kinds
from sim.experiments.executors import Here
from sim.experiments.explore import explored
from sim.experiments.kind import value
from sim.experiments.search import Search, of_document
from sim.scenario import SCENARIOS, shelves

CAMPAIGN, SERVED = (str(SCENARIOS / f"{name}.yaml") for name in ("campaign_v3", "serve_v3_h800"))
SHORT = ["campaign.phases=[{name: all, tokens: 14e12, batch: 15360}]", "campaign.published=[]"]
"""One phase instead of nine, for the time of tests."""
SPACE = {"campaign.spares": [1, 4, 8], "campaign.checkpoint.every": ["10 min", "60 min"]}
POOLS = {"serve.pools.0.instances": [3, 5], "serve.pools.1.expert": [72, 145]}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def searched(**content: Any) -> Search:
    return of_document(Document(content, {(): Place("s.yaml")}), "s.yaml", Path())


def campaigns(**more: Any) -> Search:
    return searched(scenario=CAMPAIGN, overrides=[*SHORT, "campaign.seeds=40"], space=SPACE, best=1, **more)


def served(**more: Any) -> Search:
    return searched(scenario=SERVED, overrides=["serve.requests.count=40"], space=POOLS, best=1, **more)


def by_hand(search: Search, key: str) -> list[tuple[float, dict[str, str]]]:
    own, rows = search.own, []
    assert own is not None
    for point in search.space.product:
        try:
            summary = own.run(kinds.load(search.space.path, point.overrides)).summary
        except Refused:
            continue
        figure = value(summary, key)
        assert figure is not None
        rows.append((figure, point.labels))
    return sorted(rows, key=lambda row: row[0])


def test_a_campaign_is_the_cheapest_of_all() -> None:
    search = campaigns(objectives=["dollars", "days"])
    rows, answer = by_hand(search, "campaign.dollars.mean"), explored(search, Here())
    assert [answer.figures(row)["dollars"] for row in answer.rows] == [figure for figure, _ in rows]
    assert answer.winner.point.labels == rows[0][1] and answer.census.legal == answer.ran == 6
    assert any(row.front and row != answer.winner for row in answer.rows), "more spares are dearer and sooner"


def test_limits_from_above_and_below() -> None:
    few = explored(campaigns(objectives=["dollars"], constraints={"days": 50}), Here())
    assert few.pruned == {"days": 2} and all(answer.point.labels["campaign.spares"] != "1" for answer in few.rows)
    kept = explored(campaigns(objectives=["dollars"], constraints={"goodput": 0.97}), Here())
    assert kept.pruned["goodput"] >= 2
    cheap = explored(campaigns(constraints={"dollars": "4.72e6 USD"}), Here())
    assert cheap.pruned["dollars"] > 0 and cheap.figures(cheap.winner)["days"] > 0
    with pytest.raises(Refused, match=r"6 points are legal and none keeps what must hold; 6 miss constraints\.days"):
        explored(campaigns(constraints={"days": 1}), Here())


def test_a_served_load_is_the_best_of_all() -> None:
    """What is better the more there is, and points that are refused when they are read."""
    search = served(objectives=["tokens", "ttft"])
    rows, answer = by_hand(search, "serve.tokens.output_per_s_gpu"), explored(search, Here())
    assert [answer.figures(row)["tokens"] for row in answer.rows] == [figure for figure, _ in reversed(rows)]
    assert answer.census.legal == 2 and sum(count for count, _ in answer.refused.values()) == 2
    assert "288 experts and copies cannot be divided by expert 145" in next(iter(answer.refused.values()))[1]


def test_a_figure_that_a_point_lacks_is_refused() -> None:
    """An axis takes away what its other stop says; what nobody says is told when the file is read."""
    with pytest.raises(Refused, match="has no dollars; does the scenario say all that it needs"):
        space = {"price": {"free": "serve.gpu_hour=null"}}
        explored(searched(scenario=SERVED, overrides=["serve.requests.count=40"], space=space, objectives=["dollars"]),
                 Here())  # fmt: skip


def test_it_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    first = explored(campaigns(), Here(), Path("kept"))

    def never(*words: Any) -> Any:
        raise AssertionError("run")

    monkeypatch.setattr(explore, "tried", never)
    monkeypatch.setattr(explore, "record", never)
    again = explored(campaigns(), Here(), Path("kept"))
    assert [row.scores for row in again.rows] == [row.scores for row in first.rows]
    with pytest.raises(AssertionError):
        explored(served(), Here(), Path("kept"))


def test_the_cheap_order_is_compared_with_the_full_one() -> None:
    many = {"scenario": CAMPAIGN, "space": SPACE, "best": 3, "cheap": ["campaign.seeds=10"]}
    answer = explored(searched(**many, overrides=[*SHORT, "campaign.seeds=30"]), Here())
    assert answer.correlation is not None and answer.correlation > 0
    assert len(answer.full) == 3 and all(entry["summary"]["campaign"]["seeds"] == 30 for _, entry in answer.full)


@pytest.mark.parametrize(("more", "line"), [
    ({"objectives": ["day"]}, "unknown objective 'day', did you mean 'days'?"),
    ({"objectives": ["interruptions"]}, "unknown objective 'interruptions'"),
    ({"constraints": {"memory": "3 GB"}}, "unknown key 'memory'"),
    ({"constraints": {"days": "soon"}}, "expected a number above zero; found 'soon'"),
    ({"constraints": {"dollars": "3 s"}}, "'3 s' is time, expected money"),
    ({"prices": {"gpu_hour": "2 USD"}}, "is of training steps; a campaign states its own"),
    ({"overrides": ["prices.gpu_hour=null"], "objectives": ["days", "dollars"]},
     "objectives: dollars needs prices.gpu_hour, e.g. 2 USD"),
    ({"scenario": SERVED, "space": POOLS, "constraints": {"dollars": "3 USD"}},
     "constraints.dollars: dollars needs serve.gpu_hour, e.g. 2 USD/h"),
    ({"space": {"campaign.spars": [1]}}, "unknown key 'spars', did you mean 'spares'?"),
])  # fmt: skip
def test_mistakes_are_told(more: dict[str, Any], line: str) -> None:
    with pytest.raises(DocumentError) as wrong:
        searched(**{"scenario": CAMPAIGN, "space": SPACE, **more})
    assert line in str(wrong.value)


def test_the_command_writes_scenarios_that_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = f"scenario: {CAMPAIGN}\noverrides: [campaign.seeds=30]\nspace: {{campaign.spares: [1, 4]}}\nbest: 1\n"
    Path("s.yaml").write_text(text)
    assert main(["search", "s.yaml", "-q"]) == 0
    out = capsys.readouterr().out
    assert "2 combinations, 2 of them legal, 2 simulated" in out and "steps bind: " in out
    answer = json.loads(Path("out/searches/s/answer.json").read_text())
    best = answer["best"][0]
    assert answer["head"] == {"name": "Days, mean of seeds", "unit": "days"} and best["head"] == best["days"]
    assert best["interval_90"][0] < best["head"] < best["interval_90"][1]
    assert "Days, mean of seeds of the winner" in Path("out/searches/s/search.html").read_text()
    assert main(["run", "out/searches/s/best-1.yaml", "-q", "--out", "again"]) == 0
    assert json.loads(Path("again/result.json").read_text())["campaign"]["days"]["mean"] == best["days"]


def test_scenarios_that_are_written_name_files_that_lay_beside(tmp_path: Path) -> None:
    """From another folder: a histogram of routing, and a model."""
    there, models = tmp_path / "there", shelves.MODELS.folder
    there.mkdir()
    (there / "liked.csv").write_text(",".join(["3"] * 64) + "\n")
    (there / "mine.json").write_text(json.dumps({"base": "deepseek_v2_lite", "layers": 3}))
    serve = {
        "model": "mine.json", "node": "h100x8", "pools": [{"expert": 8}],
        "routing": {"kind": "recorded", "histogram": "liked.csv"},
        "requests": {"arrivals": "closed", "clients": 1, "count": 2, "prompt": {"most": 9}, "output": {"most": 9}},
    }  # fmt: skip
    (there / "x.yaml").write_text(json.dumps({"serve": serve}))
    Path("s.yaml").write_text("scenario: there/x.yaml\nspace: {serve.pools.0.batch: [1, 2]}\nbest: 1\n")
    assert main(["search", "s.yaml", "-q"]) == 0
    assert main(["run", "out/searches/s/best-1.yaml", "-q", "--out", "again"]) == 0
    campaign = kinds.content(CAMPAIGN, [*SHORT, "campaign.seeds=30"])
    (there / "mine.yaml").write_text((models / f"{campaign['model']}.yaml").read_text())
    (there / "c.yaml").write_text(json.dumps({**campaign, "model": "mine.yaml"}))
    assert main(["run", "there/c.yaml", "-q", "--out", "first"]) == 0
    assert main(["run", "first/scenario.yaml", "-q", "--out", "second"]) == 0
    same = [json.loads(Path(name, "result.json").read_text())["campaign"]["days"] for name in ("first", "second")]
    assert same[0] == same[1]


def test_the_page_leaves_out_figures_that_no_point_has(tmp_path: Path) -> None:
    """Without serve.gpu_hour nothing costs anything."""
    content = {
        "scenario": SERVED,
        "overrides": ["serve.requests.count=40"],
        "space": {"serve.pools.1.batch": [64, 128]},
    }
    Path("s.yaml").write_text(json.dumps({**content, "objectives": ["tpot"]}))
    assert main(["search", "s.yaml", "--out", "found", "-q"]) == 0
    text = Path("found", "search.html").read_text()
    assert "serve.pools.1.batch=64" in text and ">dollars<" not in text and ">tpot<" in text
