"""The campaign on a made-up clock and card: order, budget, what is left out, and the tables that come of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hwmodels import device, sibling
from hwmodels import tables as calibration
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from hwmodels.price import Pricer, waves
from numerics.accuracy.errors import machine
from numerics.card import campaign, needs
from numerics.card.campaign import NEXT_S, Campaign, collect, plan, plan_lines, summary_lines
from numerics.card.measure import Timing
from numerics.tables import calibrate, cards
from sim.scenario import load

SCENARIO = Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml"
V3 = load(str(SCENARIO))
H200 = cards.reference("h200")
CARD = replace(device.load("h200"), tables="h200", siblings=())
WIRES = machine()[1]
NEEDED = needs.operations(V3)
HEAD = {"device": "h200", "source": "made up", "reference": H200, "provenance": {}}
GAP = {"launch_gap_us": 1.5, "launch_gap_kind": "measured"}


class Card:
    """Takes what a simple model says, and one second of the made-up clock times `slower` than planned for each call."""

    def __init__(self, seconds=0.1):
        self.now, self.seconds, self.asked = 0.0, seconds, []

    def clock(self):
        return self.now

    def time(self, op, sms):
        self.now += self.seconds
        self.asked.append((op, sms))
        us = 3.0 + 2 * campaign.bound_us(op, H200)
        if isinstance(op, Gemm | GroupedGemm):
            rows = op.m if isinstance(op, Gemm) else op.rows
            us = waves(rows, op.n, sms or 132) * (1.5 + 0.4 * -(-op.k // 128))
        return Timing(us, us * 0.99, us * 1.02, 30)


def run(card, deadline=1e9, quick=False, needed=NEEDED):
    tasks = plan(needed, H200, 112, quick)
    return tasks, collect(tasks, card.time, deadline, lambda text: None, card.clock)


def test_own_shapes_come_first_and_nothing_twice():
    tasks = plan(NEEDED, H200, 112, quick=False)
    assert [t.own for t in tasks] == sorted((t.own for t in tasks), reverse=True)
    assert {t.op for t in tasks if t.own} == set(NEEDED) and {t.sms for t in tasks} == {None, 112}
    assert len({(t.op, t.sms) for t in tasks}) == len(tasks)
    confined = [t.op for t in tasks if t.sms]
    assert confined == [op for op in NEEDED if needs.confinable(op)] and len(confined) > 30
    quick = plan(NEEDED, H200, 112, quick=True)
    assert all(t.own for t in quick) and len(quick) < len(tasks) / 2


def test_the_plan_fits_and_is_printed():
    tasks = plan(NEEDED, H200, 112, quick=False)
    assert sum(t.estimate_s for t in tasks) < campaign.BUDGET_S < 8 * 60
    lines = list(plan_lines(tasks, campaign.BUDGET_S))
    kinds = {needs.kind_of(t.op) for t in tasks}
    assert len(lines) == len(kinds) + 2 and f"{len(tasks)}" in lines[-1] and "of 450" in lines[-1]


def test_a_longer_kernel_is_planned_to_take_longer():
    ops = {Memory("cast", 4096 * 2**i, 8192.0, 4096.0): ("cast",) for i in (1, 8, 14)}
    estimates = [t.estimate_s for t in plan(ops, H200, 112, quick=True)]
    assert estimates[0] > estimates[1], "the first of a kind compiles"
    assert estimates[2] > estimates[1] > NEXT_S


def test_it_stops_in_time_however_slow_the_card_is():
    for seconds in (0.01, 0.5, 3.0, 20.0):
        card = Card(seconds)
        tasks, found = run(card, deadline=100.0)
        assert card.now <= 100.0 + seconds, "at most the operation that was under way"
        assert len(found.done) + len(found.left) == len(tasks) and found.done
        assert bool(found.left) == (seconds * len(tasks) > 90)
        if found.left:
            assert any("no time was left" in line for line in summary_lines(found))


def test_a_slow_card_is_noticed_before_the_deadline():
    """Everything takes ten times what was planned: after the first, no task is started that would end too late."""
    card = Card(seconds=10 * campaign.FIRST_S)
    _, found = run(card, deadline=120.0)
    assert card.now <= 120.0 and len(found.done) == 3


def test_what_cannot_run_does_not_end_the_campaign():
    card = Card()

    def timed(op, sms):
        if isinstance(op, Attention):
            raise RuntimeError("out of\nmemory")
        return card.time(op, sms)

    tasks = plan(NEEDED, H200, 112, quick=True)
    found = collect(tasks, timed, 1e9, lambda text: None, card.clock)
    assert len(found.refused) == 2 and len(found.done) == len(tasks) - 2
    (line,) = summary_lines(found)
    assert line == "not measured: 2 of attention backward, attention forward: RuntimeError: out of memory"
    with pytest.raises(ValueError, match="no attention forward, attention backward"):
        campaign.tables(found, HEAD, GAP)


# --- the tables -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made():
    return campaign.tables(run(Card())[1], HEAD, GAP)


@pytest.fixture
def loaded(made, tmp_path, monkeypatch):
    for name in device.available():  # read while all tables are there
        device.load_once(name), sibling._load(name)
    calibrate.write(made, tmp_path / "h200")
    monkeypatch.setattr(calibration, "FOLDER", tmp_path)
    calibration.load.cache_clear()
    yield calibration.load("h200")
    calibration.load.cache_clear()


def test_tables_read_back_and_find_the_waves_that_made_them(loaded):
    assert (loaded.device, loaded.sms, loaded.launch_gap_us) == ("h200", 132, 1.5)
    for role in ("fprop", "wgrad"):
        assert loaded.wave_fit[role]["a_us"] == pytest.approx(1.5, rel=1e-2)
        assert loaded.wave_fit[role]["b_us"] == pytest.approx(0.4, rel=1e-2)
    assert loaded.contention == {} and loaded.exchanges == {}


def test_the_ladder_prices_with_them(loaded):
    """A row comes back exactly on the whole card; nothing is made of contention that nobody measured."""
    pricer = Pricer(CARD, WIRES, comm_sms=0)
    for op, row in list(loaded.exact.items()):
        price = pricer.price(op)
        made_up_too_fast = isinstance(op, Gemm) and row["us"] < op.bytes() / H200["hbm_bytes_per_s"] * 1e6
        if not isinstance(op, GroupedGemm) and not made_up_too_fast:
            assert price.rung == "measured" and price.ns / 1000 == pytest.approx(row["us"], abs=0.002)
        assert price.ns == price.beside_ns


def test_confined_times_stand_beside_their_rows(made):
    rows = [r for r in made["gemm"]["rows"] if "us_on_sms" in r]
    row = next(r for r in rows if (r.get("m"), r["n"], r["k"]) == (4096, 4096, 7168))
    assert row["us_on_sms"] == {"112": pytest.approx(waves(4096, 4096, 112) * (1.5 + 0.4 * 56), rel=1e-3)}
    fit = made["gemm"]["fit"]["confined"]
    assert fit["points"] == len(rows) and fit["median_error"] == pytest.approx(0, abs=1e-3)


def test_rows_keep_their_quantiles_and_what_slowed_them():
    def watch(start, end):
        return {"slowed": {"software power cap": 0.5}}

    card = Card()
    found = collect(plan(NEEDED, H200, 112, True), card.time, 1e9, lambda text: None, card.clock, watch)
    row = campaign.tables(found, HEAD, GAP)["memory"]["rows"][0]
    assert row["samples"] == 30 and row["low_us"] < row["us"] < row["high_us"]
    assert row["slowed"] == {"software power cap": 0.5}


def test_two_runs_write_the_same(made, tmp_path):
    calibrate.write(made, tmp_path / "a")
    calibrate.write(campaign.tables(run(Card())[1], HEAD, GAP), tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert json.loads((tmp_path / "a" / "exchange.json").read_text())["rows"] == []


def test_too_little_is_no_table():
    few = {op: names for op, names in NEEDED.items() if not isinstance(op, Gemm | GroupedGemm)}
    with pytest.raises(ValueError, match=r"no FP8 products \(two shapes\), FP8 weight gradients"):
        campaign.tables(run(Card(), needed=few)[1], HEAD, GAP)


def test_a_gap_nobody_could_measure_says_so(monkeypatch):
    def broken():
        raise RuntimeError("no CUPTI")

    monkeypatch.setattr(campaign, "measured_launch_gap_us", broken)
    gap = campaign.launch_gap("h200")
    assert gap["launch_gap_us"] == 1.99 and gap["launch_gap_kind"].endswith("not measured: RuntimeError: no CUPTI")


@pytest.fixture
def bench(monkeypatch):
    """An H200 that is not there: everything that would touch one is replaced, and nothing is written anywhere."""
    torch = pytest.importorskip("torch")
    check = pytest.importorskip("numerics.card.check")
    from numerics.card import measure

    card = Card()
    said = {"device": "none", "sms": 132, "driver": "none", "repetitions": 0, "date": "never", "method": "made up"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(measure, "require_device", lambda: None)
    monkeypatch.setattr(measure.shutil, "which", lambda name: None)
    monkeypatch.setattr(
        measure, "provenance", lambda repetitions: said | dict.fromkeys(("cuda", "torch", "triton", "python"), "none")
    )
    monkeypatch.setattr(check, "device", lambda show: True)
    monkeypatch.setattr(campaign, "_timer", lambda shape, quick, own, less_us: card.time)
    monkeypatch.setattr(measure, "events_us", lambda: 3.0)
    monkeypatch.setattr(campaign, "launch_gap", lambda device: GAP)
    return card


def test_a_campaign_from_end_to_end(bench):
    said = []
    found = campaign.run(SCENARIO, True, said.append)
    assert (found.device, found.refused) == ("h200", False) and len(found.tables) == 5
    origin = found.tables["gemm"]["provenance"]
    assert origin["command"] == "python -m numerics calibrate --gpu --scenario v3_2048gpu.yaml --quick"
    assert origin["events_us"] == 3.0
    assert origin["clocks"]["value"] is None and "numerics/kernels/wgrad.py" in origin["program"]["files"]
    assert sum("GB/s" in line for line in said) == len(bench.asked), "a line an operation"


def test_nothing_is_timed_where_a_kernel_is_wrong(bench, monkeypatch):
    from numerics.card import check

    monkeypatch.setattr(check, "device", lambda show: False)
    assert campaign.run(SCENARIO, True, lambda text: None) == Campaign("h200", {}, True) and not bench.asked


def test_a_card_without_a_device_is_refused(bench, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Abacus")
    with pytest.raises(cards.UnknownCardError, match="Abacus"):
        campaign.run(SCENARIO, True, lambda text: None)


@pytest.mark.parametrize(
    ("found", "code", "written"),
    [
        (Campaign("h200", {}, True), 1, False),
        (Campaign("h200", {"gemm": {"device": "h200", "rows": []}}, False), 0, True),
        (Campaign("h200", {"gemm": {"device": "h200", "rows": []}}, True), 1, True),
    ],
)  # fmt: skip
def test_the_command_writes_what_was_measured(found, code, written, tmp_path, monkeypatch):
    from numerics import __main__ as cli
    from numerics.card import measure

    asked = []
    monkeypatch.setattr(measure, "require_device", lambda: None)
    monkeypatch.setattr(campaign, "run", lambda scenario, quick, show: asked.append((scenario, quick)) or found)
    folder = tmp_path / "h200"
    assert cli.main(["calibrate", "--gpu", "--quick", "--out", str(folder)]) == code
    assert asked == [(cli.SCENARIO, True)] and (folder / "gemm.json").exists() == written


# --- what is verified -------------------------------------------------------------------------------------------------


@pytest.fixture
def timer(monkeypatch):
    """The campaign's timer, on works that are right or not as their operation's rows say: odd rows are wrong."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    from numerics.card import measure, rig
    from numerics.card.workload import Work

    def work_of(op, shape, sms=None, device="cuda"):
        x = torch.ones(20, 20)
        return Work({rig.OURS: lambda: x * (2 if op.rows % 2 else 1)}, lambda: x)

    def time_call(call, repetitions):
        call()
        return Timing(1.0, 1.0, 1.0, repetitions)

    monkeypatch.setattr(rig, "work_of", work_of)
    monkeypatch.setattr(measure, "time_call", time_call)
    return lambda own: campaign._timer(V3.model, True, own, 0.25)


def test_a_wrong_kernel_is_not_timed_and_neither_is_its_like(timer):
    right, wrong, around = Memory("cast", 4, 8, 4), Memory("rope", 5, 8, 8), Memory("rope", 10, 8, 8)
    needed = {right: ("a",), wrong: ("b",)}
    tasks = plan(needed, H200, 112, quick=False)
    found = collect(tasks, timer(needed), 1e9, lambda text: None)
    assert {m.task.op.kind for m in found.done} == {"cast"} and len(found.done) == 3
    assert around in {task.op for task, _ in found.refused} and len(found.refused) == 3
    (line,) = summary_lines(found)
    assert line.startswith("not measured: 3 of rope: Wrong: the output is not the reference's: ") and "gain 1" in line


def test_shapes_around_are_not_verified_again(timer):
    own, around = Memory("cast", 4, 8, 4), Memory("cast", 5, 8, 4)
    assert timer({own: ()})(own, None).median_us == timer({own: ()})(around, None).median_us == 0.75
