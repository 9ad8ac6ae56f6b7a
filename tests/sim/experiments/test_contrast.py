"""Campaigns and served loads compared: paired seeds, causes that add up, and what cannot be compared."""

import json
from functools import cache

import numpy as np
import pytest

import sim
from hwmodels.refused import Refused
from reports.comparison import render
from sim.__main__ import main
from sim.experiments import kinds
from sim.experiments.compare import compare
from sim.experiments.contrast import _few, contrasted
from sim.experiments.kind import Ran, value
from sim.serving import draws, measured

FEW = "campaign.seeds=100"
SHORT = "serve.requests.count=60"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(draws, "DRAWS", 3)


@cache
def spares():
    return compare("campaign_v3", "campaign_v3", ((FEW,), (FEW, "campaign.spares=1")))


@cache
def memory():
    """A change that no draw puts on another side of a bend: steps read memory all the time."""
    return compare("serve_v3_h800", "serve_v3_h800", ((SHORT,), (SHORT, "serve.node.device.hbm.bandwidth=2.5TB/s")))


@cache
def links():
    return compare("serve_v3_h800", "serve_v3_h800", ((SHORT,), (SHORT, "serve.node.nvlink.bandwidth=100GB/s")))


def test_causes_add_up_to_the_difference():
    for both, unit in ((spares(), 86_400), (links(), 1)):
        assert sum(each.difference_ns for each in both.causes) / 1e9 == pytest.approx(both.step.difference * unit)
        assert sum(each.a_ns for each in both.causes) / 1e9 == pytest.approx(both.step.a * unit)
    assert max(spares().causes, key=lambda each: each.difference_ns).name == "replacement"
    assert max(links().causes, key=lambda each: each.difference_ns).name == "prefill"


def test_seeds_are_paired():
    """The difference of the same seeds is surer than each campaign: what fails in both falls out."""
    own = kinds.KINDS["campaign"]
    a, b = (own.run(kinds.load("campaign_v3", [FEW, *more])) for more in ((), ("campaign.restart.launch=4 min",)))
    step = contrasted(own, a, b, ()).step
    width = step.interval[1] - step.interval[0]
    alone = np.diff(np.percentile(a.draws, [5, 95]))[0] / 86_400
    assert step.clear and width < 0.5 * alone
    low, high = np.percentile((b.draws - a.draws) / 86_400, [5, 95])
    assert step.interval == pytest.approx((low, high))


def width(ends):
    return ends[1] - ends[0]


def test_draws_of_loads_are_paired():
    """The difference of two loads is surer than either: who comes when, and how wrong prices are, falls out of it."""
    own = kinds.KINDS["serve"]
    alone = alone_drawn()
    for word in ("ttft", "end_to_end"):
        change = next(each for each in memory().changes if each.key == own.measure(word).key)
        assert alone[word][0] != alone[word][1]
        assert 0 < width(change.interval) < 0.5 * width(_few(alone[word]))
    answers = next(each for each in memory().changes if each.key == "serve.tokens.output_per_s_gpu")
    assert answers.ratio[1] < 1 and answers.clear
    assert "draws of chance and of prices" in render(links()) and "over seeds of chance" in render(spares())


@cache
def alone_drawn():
    return kinds.KINDS["serve"].drawn(kinds.load("serve_v3_h800", [SHORT]))


def test_a_load_that_differs_in_nothing_that_matters_covers_0():
    both = compare("serve_v3_h800", "serve_v3_h800", ((SHORT,), (SHORT, "name=other", "seed=3")))
    assert both.step.difference and both.step.interval == (0, 0) and both.step.clear is False
    assert compare("serve_v3_h800", "serve_v3_h800", ((SHORT,), (SHORT,)), interval=False).step.interval is None


def test_how_wrong_rows_are_by_hand(monkeypatch):
    """Two rows an octave apart tell each other alone: both are missed by the whole of what lies between."""
    rows = measured.Rows(np.array([[0.0], [1.0]]), np.array([0.1, 0.4]))
    one = measured.Rows(rows.at[:1], rows.over[:1])
    monkeypatch.setattr(measured, "_rows", lambda file: {"gemm": rows, "mla": one})
    assert measured.spread.__wrapped__("h800", "gemm") == pytest.approx(0.3)
    assert measured.spread.__wrapped__("h800", "mla") == 0


def test_a_few_draws_by_hand():
    """1, 2, 3: mean 2, deviation 1, Student's t of two degrees of freedom 2.920, times the root of 4/3."""
    assert _few(np.array([1.0, 2.0, 3.0])) == pytest.approx((2 - 3.3717, 2 + 3.3717), rel=1e-4)


def test_the_same_is_the_same():
    both = compare("campaign_v3", "campaign_v3", ((FEW,), (FEW, "name=other")))
    assert both.alike and both.step.interval == (0, 0) and not both.keys


def test_other_seeds_have_no_interval():
    own, days = kinds.KINDS["campaign"], {"campaign": {"days": {"mean": 1.0}, "hours_s": {"work": 86_400.0}}}
    one, two = (Ran(days, {}, np.ones(count)) for count in (3, 4))
    assert contrasted(own, one, two, ()).step.interval is None
    assert contrasted(own, one, one, ()).step.interval == (0, 0)


def test_keys_that_differ_are_dotted():
    assert [(key.key, key.a, key.b) for key in spares().keys] == [("campaign.spares", 8, 1)]
    assert {key.key for key in links().keys} == {"serve.node", "serve.node.base", "serve.node.nvlink.bandwidth"}


def test_two_kinds_are_refused(capsys):
    with pytest.raises(Refused, match="A is a campaign and B a training step; two runs of one kind are compared"):
        sim.compare("campaign_v3", "v3_2048gpu")
    assert main(["compare", "serve_v3_h800", "campaign_v3"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_writes_and_says_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "campaign_v3", FEW, "--", FEW, "campaign.spares=1"]) == 0
    out = capsys.readouterr().out
    assert "Days, mean of seeds: B has " in out and "replacement" in out and " h" in out
    content = json.loads((tmp_path / "out/compare/compare.json").read_text())
    assert content["a"]["scenario"] == content["b"]["scenario"] and content["figures"]["campaign.days.mean"]["ratio_90"]
    page = (tmp_path / "out/compare/compare.html").read_text()
    assert "What makes the difference" in page and "Timelines" not in page
    assert main(["compare", "serve_v3_h800", SHORT, "--", SHORT, "serve.pools.0.chunk=x"]) == 2
    assert "serve.pools.0.chunk" in capsys.readouterr().err


def test_folders_of_campaigns(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["campaign_v3", FEW, "campaign.spares=1", "--out", str(folder), "-q"]) == 0
    both = compare(folder, "campaign_v3", ((), (FEW,)))
    assert both.step.a == spares().step.b and both.step.b == spares().step.a


@pytest.mark.parametrize("own", kinds.KINDS.values(), ids=list(kinds.KINDS))
def test_every_kind_says_what_it_has(own):
    """Figures are in the summary, and parts add up to the first one."""
    file = {"campaign": ("campaign_v3", FEW), "serve": ("serve_v3_h800", SHORT),
            "rl": ("rl_v3_256gpu", "rl.steps=1")}[own.key]  # fmt: skip
    assert kinds.kind(file[0]) == own.key and kinds.of(file[0]) is own
    made = kinds.load(file[0], file[1:])
    assert isinstance(made, own.makes) and own.machine(made)
    ran = own.run(made)
    words = [each.word for each in own.measures]
    assert len(set(words)) == len(words) and own.measure(words[1]) is own.measures[1]
    head = own.measures[0]
    whole = sum(part.seconds for part in own.parts(ran.summary))
    assert whole / (86_400 if head.unit == "days" else 1) == pytest.approx(value(ran.summary, head.key))
    for each in own.measures:
        assert value(ran.summary, each.key) is not None or each.word == "dollars"
        assert all(value(ran.summary, key) is not None for key in each.ends)


def test_keys_are_told_as_they_were_written():
    failing = "serve.failures.mtbf=200 s"
    keys = compare("serve_v3_h800", "serve_v3_h800", ((SHORT,), (SHORT, failing)), interval=False).keys
    assert {each.key: each.b for each in keys}["serve.failures.mtbf"] == "200 s"
