"""Uneven routing through the whole simulator: what it adds, what evens it out, and what-ifs that are paired."""

from functools import cache

import pytest

from sim import simulation
from sim.scenario import from_mapping, load
from sim.simulation import run

SMALL = {
    "cluster": {"node": "h800x8", "nodes": 4},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 2, "expert": 8},
    "schedule": "dualpipe",
    "batch": {"micro_batches": 8, "sequence_length": 4096},
    "placement": "even",
    "outputs": ["result"],
}
SCHEDULES = ("dualpipe", "zb1p", "1f1b")


@cache
def summary(*overrides):
    return run(from_mapping(SMALL, overrides), False).summary


def step(*overrides):
    return summary(*overrides)["step_time_s"]


def sampled(spread, redundant=0):
    return f"routing={{kind: sampled, spread: {spread}, redundant_experts: {redundant}}}"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_spread_takes_longer(schedule):
    times = [step(f"schedule={schedule}", sampled(s)) for s in (0.0, 0.15, 0.3, 0.6)]
    assert times == sorted(times) and times[-1] > 1.05 * times[0]
    assert times[0] > step(f"schedule={schedule}")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_peers_wait_for_uneven_ranks(schedule):
    waits = [summary(f"schedule={schedule}", sampled(s))["waiting_for_peers_s"] for s in (0.0, 0.15, 0.6)]
    assert 0 < waits[0] < waits[1] < waits[2]
    assert "waiting_for_peers_s" not in summary(f"schedule={schedule}")


@pytest.mark.parametrize("seed", range(3))
def test_redundant_experts_make_the_step_shorter(seed):
    chosen = (f"seed={seed}", "schedule=1f1b")
    plain, evened = step(*chosen, sampled(0.6)), step(*chosen, sampled(0.6, 16))
    assert step(*chosen) < evened < plain


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_time_is_conserved(schedule):
    result = simulation.run(from_mapping(SMALL, [f"schedule={schedule}", sampled(0.4), "jitter=0.03"]), False)
    s = result.summary
    for position in range(2):
        spent = sum(row[position] for row in s["phases_per_rank"].values())
        assert spent == pytest.approx(s["step_time_s"], rel=1e-12)
    assert sum(bar.seconds for bar in result.waterfall) == pytest.approx(s["step_time_s"], rel=1e-12)
    assert sum(s["bubble_s"].values()) == pytest.approx(s["phases_s"]["bubble"], rel=1e-9)
    assert {bar.name: bar.seconds for bar in result.waterfall}["waiting for peers"] == s["waiting_for_peers_s"]


def test_what_ifs_are_paired():
    """The same seed draws the same rows whatever the schedule, the fabric or the faults."""
    rows = summary(sampled(0.3))["expert_rows"]
    for change in ("schedule=zb1p", "comm.sms=12", "cluster.node.nic.bandwidth=100GB/s", "jitter=0.02"):
        assert summary(sampled(0.3), change)["expert_rows"] == rows, change
    assert summary(sampled(0.3), "seed=1")["expert_rows"] != rows


def test_the_same_bytes_twice():
    one, two = (simulation.run(from_mapping(SMALL, [sampled(0.3), "jitter=0.02"]), False).summary for _ in range(2))
    assert one == two


def test_jitter_costs_time_and_more_jitter_more():
    times = [step(f"jitter={j}") for j in (0, 0.01, 0.03, 0.1)]
    assert times == sorted(times) and times[1] > times[0]


# --- V3 ---------------------------------------------------------------------------------------------------------------


@cache
def v3(file, *overrides):
    return run(load(str(file), ["outputs=[result]", "batch.sequences=5120", *overrides]), False).summary


def test_v3_routed_evenly_is_near_balanced(v3_file):
    """Equally popular experts: rows still vary by a per cent, and the slowest of 64 decides each exchange: 0.4 %."""
    kinds = ("routing=balanced", "routing={kind: sampled, spread: 0}")
    plain, even = (v3(v3_file, kind)["step_time_s"] for kind in kinds)
    assert 1 < even / plain < 1.006


def test_v3_sampled_rows_cover_the_profiles(v3_file):
    """28,416 to 36,864 padded rows in the H800 profile, of four layers and one micro-batch; ours are of more."""
    rows = v3(v3_file, "routing=sampled")["expert_rows"]
    assert 20_000 < rows["smallest"] < 28_416 and 36_864 < rows["largest"] < 48_000
    assert 32_768 <= rows["expected"] <= 33_280


def test_v3_unevenness_is_a_few_per_cent(v3_file):
    plain, uneven = (v3(v3_file, f"routing={kind}")["step_time_s"] for kind in ("balanced", "sampled"))
    assert 1.005 < uneven / plain < 1.10
