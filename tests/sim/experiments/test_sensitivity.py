"""What a step hangs on: elasticities against closed forms, crossings against sweeps, keys that do nothing."""

import json
from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import log

import pytest

import sim
from hwmodels.refused import Refused
from sim.analysis import links
from sim.experiments.movable import of_scenario
from sim.experiments.moving import HALF, lowest, words
from sim.experiments.sensitivity import sensitivity
from sim.result.sensitivity import MACHINE, PRICE, Move, Point
from sim.scenario import load
from sim.simulation import run

SMALL = {
    "name": "small", "cluster": {"node": "h800x8", "nodes": 2}, "model": {"base": "deepseek_v2_lite", "layers": 8},
    "parallel": {"pipeline": 4, "expert": 4}, "schedule": "dualpipe", "placement": "even", "outputs": ["result"],
    "batch": {"micro_batches": 8, "sequence_length": 2048},
}  # fmt: skip
CHUNKS = {
    "schedule": "1f1b", "parallel": {"pipeline": 4}, "batch": {"micro_batches": 12},
    "chunk_times": {"forward": "10 ms", "backward_input": "12 ms", "weight": "8 ms", "p2p": "0.5 ms"},
}  # fmt: skip
NIC, NVLINK = "cluster.node.nic.bandwidth", "cluster.node.nvlink.bandwidth"


@cache
def found():
    return sensitivity(load(SMALL), crossings=False)


@cache
def nvlink():
    """Where NVLink takes over from what the small step else hangs on."""
    (crossing,) = sensitivity(load(SMALL), keys=[NVLINK], intervals=False).crossings
    return crossing


def by_key(result):
    return {move.key: move for move in result.moves}


def test_times_of_chunks_are_worth_their_part_of_the_step():
    """1F1B in a closed form: (micro-batches + pipeline - 1) chunks and the messages of fill and drain; each time moves
    the step by its part of it, and all parts together are the whole step."""
    result = sensitivity(load(CHUNKS), by=(0.99, 1.01))
    moves = by_key(result)
    parts = {name: moves[f"chunk_times.{name}"].elasticity for name in ("forward", "backward_input", "weight", "p2p")}
    assert sum(parts.values()) == pytest.approx(1, abs=1e-3)
    step = result.base.summary["step_time_s"]
    assert parts["forward"] == pytest.approx((12 + 3) * 0.010 / step, abs=1e-3)
    assert parts["weight"] == pytest.approx((12 + 3) * 0.008 / step, abs=1e-3)


def test_changed_steps_are_not_asked_for_what_nobody_reads(monkeypatch):
    """Links took two fifths of a run, and only the step is read."""
    monkeypatch.setattr(links, "links", None)
    scenario = load(SMALL | {"outputs": ["report", "links", "trace"]})
    (nic,) = sensitivity(scenario, keys=[NIC], crossings=False, intervals=False).moves
    assert nic == replace(by_key(found())[NIC], ends=None)


def test_what_takes_over_in_a_closed_form():
    """A time takes over where 15 chunks of it are as long as all else; micro-batches bind until fill and messages are
    half of the step."""
    result = sensitivity(load(CHUNKS))
    step, places = result.base.summary["step_time_s"], {each.key: each for each in result.crossings}
    for name, own in (("forward", 0.010), ("backward_input", 0.012), ("weight", 0.008)):
        each = places[f"chunk_times.{name}"]
        assert not each.below and not each.binds and each.at == pytest.approx((step - 15 * own) / 15, rel=0.02)
    few = places["batch.micro_batches"]
    exact = 3 + (step - 15 * 0.030) / 0.030
    assert few.binds and not few.below and abs(few.at - exact) <= 2, "even numbers alone"


def test_the_edge_of_what_is_legal_is_no_crossing():
    """DualPipe needs two micro-batches for each position: fewer are refused while most of the step still goes with
    them."""
    result = sensitivity(load(SMALL, ["batch.micro_batches=24"]), keys=["batch.sequences"], intervals=False)
    assert not result.crossings and result.unreached == ("batch.sequences",)


def test_other_processes_find_the_same():
    where = {"keys": ["chunk_times", "batch"], "by": (0.8, 1.2)}
    one, two = (sensitivity(load(CHUNKS), **where, where=each) for each in ("local:1", "local:2"))
    assert one.plain() == two.plain()


def test_intervals_of_elasticities_are_of_paired_draws():
    """They hold the elasticity, and prices that both runs share leave them narrow; times of chunks are certain."""
    moves = [move for move in found().moves if move.kind == MACHINE and move.ends]
    assert len(moves) > 3
    for move in moves:
        low, high = move.ends
        assert low <= move.elasticity + 1e-3 and move.elasticity - 1e-3 <= high
    wide = max(move.ends[1] - move.ends[0] for move in moves)
    assert 0 < wide < 0.5
    assert all(move.ends is None for move in sensitivity(load(CHUNKS), crossings=False).moves)


def test_memory_says_below_what_it_does_not_fit():
    (room,) = (each for each in sensitivity(load(SMALL), keys=["cluster.node.device.hbm.capacity"]).crossings)
    peak = room.at
    assert room.room and room.below and not room.binds and room.text == f"{peak / 1e9:.3g} GB"
    for size, fits in ((peak * 1.001, True), (peak * 0.999, False)):
        one = run(load(SMALL, f"cluster.node.device.hbm.capacity={size:.0f}B"), False)
        assert one.summary["feasible"] == fits


def test_latencies_and_sms_take_over_where_a_sweep_puts_them():
    """Of any key that moves the step, not of bandwidths alone."""
    keys = ["cluster.node.nvlink.latency", "comm.sms", "cluster.node.device.sms"]
    places = {each.key: each for each in sensitivity(load(SMALL), keys=keys, intervals=False).crossings}
    assert set(keys) <= places.keys()
    us = places[keys[0]].at * 1e6
    rates = [us * 1.02**n for n in range(-5, 6)]
    steps = [run(load(SMALL, [f"{keys[0]}={rate} us"]), False).summary["step_time_s"] for rate in rates]
    slopes = [log(b / a) / log(1.02) for a, b in pairwise(steps)]
    assert slopes[0] < HALF < slopes[-1] and not places[keys[0]].below


def test_moves_are_those_of_full_runs():
    for key in (NIC, "comm.sms", "batch.sequences", "cluster.node.device.hbm.bandwidth"):
        move = by_key(found())[key]
        for point in move.points:
            assert run(load(SMALL, words(f"{key}={point.text}")), False).summary["step_time_s"] == point.value


def test_largest_first_and_none_that_does_nothing():
    sizes = [move.size for move in found().moves]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] > 0
    felt = {move.key for move in found().moves}
    assert {"cluster.node.pcie.bandwidth", "cluster.node.device.registers.latency"} <= set(found().idle)
    assert not felt & set(found().idle)


def test_better_machines_are_not_slower():
    for move in found().moves:
        if move.kind == MACHINE and move.key.endswith("bandwidth"):
            assert move.elasticity < 0 and move.less.value >= move.more.value
        if move.key.endswith("latency"):
            assert move.elasticity > 0


def test_prices_are_moved_by_the_same_part():
    """One class of prices a cause, those that make up all of compute add up to about all of what is not waiting."""
    prices = [move for move in found().moves if move.kind == PRICE]
    assert len(prices) > 4 and all(each.less.factor == 0.9 and each.more.factor == 1.1 for each in prices)
    assert all(each.less.value <= each.value <= each.more.value for each in prices)
    assert 0.7 < sum(each.elasticity for each in prices) < 1  # the rest is launch gaps


def test_whole_numbers_move_as_near_as_is_legal():
    keys = {key.key: key for key in of_scenario(load(SMALL))}
    assert keys["comm.sms"].at(0.9) == ("18", 0.9) and keys["comm.sms"].at(1.1) == ("22", 1.1)
    assert keys["batch.sequences"].at(1.1)[0] == "40" and keys["batch.sequences"].at(0.9)[0] == "24"
    assert keys["cluster.node.device.sms"].at(0.9)[0] == "119"
    assert keys[NIC].at(0.9) == ("45 GB/s", 0.9)
    assert not [key for key in keys if key.endswith(("efficiency", "gpus", "radix"))]


def test_loads_jitter_and_faults_are_keys_where_there_are_some():
    more = ["routing={kind: sampled, spread: 0.2}", "jitter=0.02", "faults=[{kind: gpu, at: 3, slower: 1.5}]"]
    keys = {key.key: key for key in of_scenario(load(SMALL, more))}
    assert {"routing.spread", "jitter", "faults.0.slower"} <= keys.keys()
    assert all(keys[key].dearer for key in ("jitter", "faults.0.slower"))
    moves = by_key(sensitivity(load(SMALL, more), keys=["faults.0.slower", "jitter"], crossings=False))
    assert moves["faults.0.slower"].elasticity > 0.3


def test_what_is_refused_is_told():
    result = sensitivity(load(SMALL), by=(0.5, 40.0), keys=["comm.sms"], crossings=False)
    (move,) = result.moves
    assert move.more.value is None and "comm.sms" in move.more.why and move.elasticity is not None


def test_asked_keys_alone():
    result = sensitivity(load(SMALL), keys=["cluster.node.nic"], crossings=False)
    assert {move.key for move in result.moves} == {NIC, "cluster.node.nic.latency"}
    with pytest.raises(Refused, match="did you mean 'cluster"):
        sensitivity(load(SMALL), keys=["cluster.node.nic.bandwith"])


def test_elasticity_is_the_power_of_the_key():
    move = Move("x", MACHINE, "1", 2.0, Point("", 0.5, 8.0), Point("", 2.0, 0.5))
    assert move.elasticity == pytest.approx(-2)
    one = Move("x", MACHINE, "1", 2.0, Point("", 0.5, 8.0), Point("", 2.0, None, "no"))
    assert one.elasticity == pytest.approx(-2) and one.size == 6.0


@pytest.mark.parametrize("place", [0.02, 0.3, 1.1, 2.2])
def test_the_lowest_point_is_found(place):
    assert lowest(lambda x: abs(x - place), 0.0, 2.77) == pytest.approx(place, abs=0.02)


def swept(scenario, key, rates, unit):
    """Between which two rates the slope of log(step) over log(rate) passes HALF, as a fine sweep has it."""
    steps = [run(load(scenario, [f"{key}={rate}{unit}"]), False).summary["step_time_s"] for rate in rates]
    pairs = zip(rates, rates[1:], steps, steps[1:], strict=False)
    slopes = [(log(s1 / s2) / log(r2 / r1), r1, r2) for r1, r2, s1, s2 in pairs]
    steep = [(low, high) for slope, low, high in slopes if slope >= HALF]
    return steep[-1]


def test_a_crossing_is_where_a_fine_sweep_puts_it():
    crossing = nvlink()
    rate = crossing.at / 1e9
    rates = [rate * 1.02**n for n in range(-5, 6)]
    low, high = swept(SMALL, NVLINK, rates, "GB/s")
    assert low / 1.04 <= rate <= high * 1.04 and crossing.below and not crossing.binds


def test_the_network_of_v3_takes_over_where_a_fine_sweep_puts_it():
    v3 = load("v3_2048gpu", "outputs=[result]")
    (crossing,) = sensitivity(v3, keys=[NIC], intervals=False).crossings
    low, high = swept(v3, NIC, [32.0, 33.0, 34.0, 35.0, 36.0, 37.0], "GB/s")
    assert low - 0.7 <= crossing.at / 1e9 <= high + 0.7
    assert 30e9 < crossing.at < 40e9 and crossing.text.endswith(" GB/s")


def test_what_binds_already_says_from_where_it_would_not():
    slow = load(SMALL, f"{NVLINK}=20GB/s")
    (crossing,) = sensitivity(slow, keys=[NVLINK], intervals=False).crossings
    assert crossing.binds and crossing.at > 20e9
    assert crossing.at == pytest.approx(nvlink().at, rel=0.08)


def test_what_takes_over_nowhere_is_said():
    result = sensitivity(load(SMALL), keys=["cluster.node.pcie.bandwidth"])
    assert result.unreached == ("cluster.node.pcie.bandwidth",) and not result.crossings


def test_progress_is_heard():
    heard = []
    found = sensitivity(load(CHUNKS), hear=lambda done, all: heard.append((done, all)))
    assert len(heard) > 6 and all(done <= all for done, all in heard) and heard[-1][0] == found.runs
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_from_the_library(tmp_path):
    result = sim.sensitivity(CHUNKS, "batch.micro_batches=8", by=(0.5, 2.0))
    content = json.loads(result.save(tmp_path / "found.json").read_text())
    assert content["kind"] == "sensitivity" and content["by"] == [0.5, 2.0] and content["moves"][0]["elasticity"]
    frame = pytest.importorskip("pandas") and result.to_frame()
    assert list(frame["key"]) == [move.key for move in result.moves]
