"""What a campaign or a served load hangs on: numbers of its file and its machine, any of its figures."""

import json
from functools import cache

import pytest

import sim
from hwmodels.refused import Refused
from sim.__main__ import main
from sim.experiments import kinds
from sim.experiments.kind import value
from sim.experiments.movable import of_file
from sim.experiments.sensitivity import of_kind

CAMPAIGN, SERVED = "campaign_v3", "serve_v3_h800"
SHORT = ("campaign.phases=[{name: all, tokens: 14e12, batch: 15360}]", "campaign.published=[]", "campaign.seeds=20")
FEW = ("serve.requests.count=40",)


def keys(source, overrides):
    own = kinds.of(source)
    made = kinds.load(source, overrides)
    return {key.key: key for key in of_file(own, kinds.content(source, overrides), own.machine(made))}


@cache
def dollars():
    words = ("campaign.spares", "campaign.restart.launch", "prices", "campaign.checkpoint.every")
    return of_kind(CAMPAIGN, SHORT, keys=words, of="dollars")


def test_numbers_of_the_file_and_the_machine():
    """Quantities and plain numbers; not what says how something is cut, nor words that look like numbers."""
    each = keys(CAMPAIGN, SHORT)
    assert (each["campaign.restart.launch"].base, each["campaign.restart.launch"].text) == (120, "2 min")
    assert each["campaign.spares"].multiple == 1 and each["campaign.spares"].at(0.9) == ("7", 0.875)
    assert each["campaign.phases.0.tokens"].base == 14e12 and each["campaign.failures.nodes.mtbf"].unit == "days"
    assert {"cluster.node.nic.bandwidth", "cluster.node.device.clock", "prices.gpu_hour"} <= each.keys()
    assert not {"parallel.pipeline", "campaign.seeds", "seed", "cluster.nodes", "cluster.fabric.cost"} & each.keys()
    served = keys(SERVED, FEW)
    assert {"serve.node.nvlink.bandwidth", "serve.objectives.ttft", "serve.requests.rate"} <= served.keys()
    assert not [key for key in served if key.endswith(("expert", "instances", "registers.latency", "count"))]


def test_a_price_is_worth_what_it_is():
    """Dollars go with the price of an hour: an elasticity of one, binding now, to the last digit."""
    moves = {move.key: move for move in dollars().moves}
    assert moves["prices.gpu_hour"].elasticity == pytest.approx(1, abs=1e-9)
    assert dollars().figure == "campaign.dollars.mean" and dollars().unit == "dollars"
    assert "prices.gpu_hour" in dollars().unreached, "however cheap, all of it goes with the price"


def test_moves_are_those_of_full_runs():
    own, point = kinds.of(CAMPAIGN), next(m for m in dollars().moves if m.key == "campaign.restart.launch").more
    summary = own.run(kinds.load(CAMPAIGN, [*SHORT, f"campaign.restart.launch={point.text}"])).summary
    assert point.value == value(summary, "campaign.dollars.mean")


def test_a_served_load_and_its_machine(tmp_path):
    words = ["serve.node.device.hbm.bandwidth", "serve.node.pcie"]
    result = sim.sensitivity(SERVED, FEW, keys=words, crossings=False, of="tpot")
    (move,) = result.moves
    assert move.key == words[0] and -1 < move.elasticity < -0.1 and result.called.startswith("Time for a later token")
    assert set(result.idle) == {"serve.node.pcie.bandwidth", "serve.node.pcie.latency"}
    content = json.loads(result.save(tmp_path / "found.json").read_text())
    assert content["figure"] == "serve.tpot_s.p50" and content["value"] == move.value


def test_other_processes_find_the_same():
    words = {"keys": ["campaign.restart"], "crossings": False}
    one, two = (of_kind(CAMPAIGN, SHORT, **words, where=where) for where in ("local:1", "local:2"))
    assert one.plain() == two.plain()


def test_what_is_asked_wrongly_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match="--of: unknown figure 'dolars', did you mean 'dollars'"):
        of_kind(CAMPAIGN, SHORT, of="dolars")
    with pytest.raises(Refused, match=r"--of: dollars needs serve\.gpu_hour, e\.g\. 2 USD/h"):
        of_kind(SERVED, FEW, of="dollars")
    for words in ([CAMPAIGN, "--keys", "campaign.spars"], ["dualpipe_8x20", "--of", "days"], [CAMPAIGN, "--jobs", "0"]):
        assert main(["sensitivity", *words]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sensitivity", CAMPAIGN, *SHORT, "--keys", "campaign.spares,prices", "--of", "dollars"]) == 0
    out = capsys.readouterr().out
    assert "Dollars (" in out and "hangs most on prices.gpu_hour" in out and "% more" in out
    page = (tmp_path / "out/sensitivity/sensitivity.html").read_text()
    assert "What the run hangs on" in page and "change of the dollars" in page
