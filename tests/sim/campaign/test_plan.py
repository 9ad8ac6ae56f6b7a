"""Phases priced by the step simulator, and what a campaign without failures is."""

from dataclasses import replace
from typing import Any

import pytest

from hwmodels.refused import Refused
from hwmodels.units import SECONDS_PER_DAY, SECONDS_PER_HOUR
from sim.campaign import blocks, money, prices, saving
from sim.campaign.answer import run
from sim.campaign.plan import plan, time
from sim.campaign.values import Campaign, Checkpoints, Failures, Nodes, Power, Restart
from sim.experiments.kinds import load
from sim.scenario import SCENARIOS
from sim.simulation import run as simulated
from tests.sim.campaign.plans import small


@pytest.fixture(scope="module")
def v3() -> Campaign:
    return load("campaign_v3", ["campaign.seeds=20"])


def quiet(campaign: Campaign) -> Campaign:
    """Without failures, checkpoints that take time, or pauses."""
    free = Checkpoints("blocking", 1e9, 1e30)
    return replace(campaign, failures=Failures(), evaluation=None, checkpoint=free, restart=Restart(), seeds=2)


def test_no_failures_is_steps_times_step_time(v3: Campaign) -> None:
    """Exactly, to the rounding of sums: one phase, one checkpoint of next to nothing."""
    one = quiet(replace(v3, phases=v3.phases[2:3]))
    step = prices.step(one.phases[0], 15360).seconds
    figures = run(one).summary["campaign"]
    assert figures["steps"] == -(-9531 * 10**9 // (15360 * 4096))
    assert figures["hours_s"]["work"] == figures["steps"] * step
    rest = figures["days"]["mean"] * SECONDS_PER_DAY - figures["steps"] * step
    assert 0 <= rest < 0.2  # one snapshot over PCIe, and 23 GB over the NICs of a node
    assert figures["goodput"]["p5"] == figures["goodput"]["p95"]


def test_without_chance_the_interval_is_that_of_steps(v3: Campaign) -> None:
    """Of each phase as long as it is; with chance it is wider than either, by squares."""
    one = quiet(replace(v3, phases=v3.phases[2:3]))
    low, high = simulated(one.phases[0].scenario).summary["intervals_90"]["step_time_s"]
    figures = run(one).summary["campaign"]
    steps, wall = figures["steps"], figures["days"]["mean"] * SECONDS_PER_DAY
    rest = wall - figures["hours_s"]["work"]
    ends = figures["intervals_90"]
    assert [end * SECONDS_PER_DAY for end in ends["days"]] == pytest.approx([low * steps + rest, high * steps + rest])
    assert ends["gpu_hours"] == pytest.approx([end * 24 * 2048 for end in ends["days"]])
    both = run(v3).summary["campaign"]
    below, above = (abs(end - both["days"]["p50"]) for end in both["intervals_90"]["days"])
    chance = both["days"]["p95"] - both["days"]["p50"]
    moved = sum(p["work_s"] * (prices.reach(own)[1] - 1) for p, own in zip(both["phases"], v3.phases, strict=True))
    assert above**2 == pytest.approx(chance**2 + (moved / SECONDS_PER_DAY) ** 2) and 0 < below < above


def test_published_steps_and_dollars(v3: Campaign) -> None:
    figures = run(v3).summary["campaign"]
    pre = figures["phases"][:6]
    assert sum(phase["steps"] for phase in pre) == pytest.approx(242_782, abs=10)
    assert sum(phase["tokens"] for phase in pre) == pytest.approx(14.8e12, rel=1e-4)
    assert sum(block for block in (p["tokens"] for p in figures["phases"])) == figures["tokens"]
    assert figures["dollars"]["mean"] == pytest.approx(figures["gpu_hours"]["mean"] * 2 * 264 / 256)


def test_a_growing_batch_is_drawn_within_a_part_in_a_thousand(v3: Campaign) -> None:
    """Of the phase; its batches are simulated at three points of 45, and each of them is here."""
    phase = v3.phases[1]
    own = list(blocks.blocks(1, phase))
    table = prices.table(phase, [block.sequences for block in own])
    assert len(table.points) < len(own) / 4
    some = own[:: len(own) // 6]
    exact = [prices.step(phase, block.sequences).seconds for block in some]
    drawn = [table.seconds(block.sequences) for block in some]
    assert sum(drawn) == pytest.approx(sum(exact), rel=prices.WITHIN)
    assert drawn == pytest.approx(exact, rel=3 * prices.WITHIN)


def test_states_are_those_of_every_parameter(v3: Campaign) -> None:
    """Master weights of 4 bytes and two moments of 2 for each of 671 + 11.5 billion parameters (with the prediction
    module), once."""
    total, most = prices.states(v3.phases[2].scenario)
    assert total / 8 == pytest.approx(682.6e9, rel=0.01)
    assert most >= total / v3.gpus


def test_checkpoint_times(v3: Campaign) -> None:
    """Bytes over the narrower of storage and NICs; beside training half of the NICs."""
    step, cluster = prices.Step(10.0, 1.0, 0, 0, ()), v3.cluster
    nics = cluster.node.gpus * cluster.node.nic.effective
    states = 256 * 8 * 1e9, 1e9
    wide = replace(v3, checkpoint=Checkpoints("blocking", 60.0, 1e30))
    slow = replace(v3, checkpoint=Checkpoints("asynchronous", 60.0, 1e10))
    peers = replace(v3, checkpoint=Checkpoints("memory", 60.0, 1e10, 2, 600.0))
    snapshot = 1e9 / cluster.node.pcie.effective
    own = saving.saved(wide, cluster, states, step)
    assert own.stall_s == pytest.approx(snapshot + 8e9 / nics)
    own = saving.saved(slow, cluster, states, step)
    assert own.lag_s == own.write_s == pytest.approx(2048e9 / 1e10)
    share = 8e9 / nics / own.write_s
    assert own.stall_s == pytest.approx(snapshot + own.write_s * 0.1 * share / (1 - share))
    own = saving.saved(peers, cluster, states, step)
    assert own.lag_s == pytest.approx(2 * 8e9 / nics) and own.load_s < own.reload_s


def test_optimum_interval_is_dalys(v3: Campaign) -> None:
    one = replace(v3, checkpoint=Checkpoints("blocking", "optimum", 1e10))
    own = plan(one).saved[2]
    assert own.every_s == own.optimum_s == pytest.approx(own.young_s, rel=0.1)


@pytest.mark.parametrize(("changes", "line"), [
    ({"checkpoint": Checkpoints("blocking", 3600.0, 1e5)}, "a checkpoint takes .* and something fails every"),
    ({"checkpoint": Checkpoints("asynchronous", 5.0, 1e10)}, "checkpoint.every: .* is less than the .* under way"),
    ({"failures": Failures(Nodes(300.0))}, "more than 20 times as long|not through after 20 times"),
])  # fmt: skip
def test_impossible_plans_are_a_line(changes: dict[str, Any], line: str) -> None:
    campaign = replace(small(2), failures=Failures(Nodes(48 * SECONDS_PER_HOUR)), restart=Restart(launch_s=900.0))
    longer = replace(campaign.phases[0], steps=100_000)
    with pytest.raises(Refused, match=line) as refused:
        run(replace(campaign, phases=(longer,), seeds=5, **changes))
    assert "\n" not in str(refused.value)


def test_a_phase_that_does_not_fit_is_a_line() -> None:
    campaign = load("campaign_v3", ["campaign.seeds=2", "campaign.phases.6.step.recompute=none"])
    (line,) = run(campaign).summary["infeasible"]
    assert line.startswith("phase 'context of 32 K': does not fit in memory")


def test_deadline() -> None:
    summary = run(load("campaign_v3", ["campaign.seeds=20", "campaign.deadline=50 days"])).summary
    assert summary["infeasible"][0].startswith("misses its deadline of 50.0 days") and not summary["feasible"]
    assert [time(each) for each in (90.0, 5400.0, 90_000.0)] == ["90.00 s", "1.5 h", "1.0 days"]


def test_a_deadline_is_for_nineteen_seeds_of_twenty_and_goodput_is_work_over_wall(v3: Campaign) -> None:
    own = replace(v3, seeds=21, deadline_s=None)
    answer = run(own)
    late, work = sorted(answer.wall_s)[19], plan(own).calendar.work  # of 21, the 95th percentile is the last but one
    for deadline, misses in ((late - 1, True), (late + 1, False)):
        lines = run(replace(own, deadline_s=deadline)).summary["infeasible"]
        assert any(line.startswith("misses its deadline") for line in lines) == misses
    assert answer.summary["campaign"]["goodput"]["mean"] == pytest.approx((work / answer.wall_s).mean())


def test_productive_time_of_llama() -> None:
    """More than 90 % of the time was effective, and 419 interruptions in 54 days (arXiv:2407.21783, table 5);
    docs/CAMPAIGN.md says what comes of it here."""
    figures = run(load("campaign_llama3_405b")).summary["campaign"]
    assert figures["interruptions"]["mean_s"] == pytest.approx(54 * SECONDS_PER_DAY / 419, rel=0.01)
    assert figures["goodput"]["p5"] > 0.9
    page = (SCENARIOS.parent / "docs" / "CAMPAIGN.md").read_text(encoding="utf-8")
    middle, low, high = (figures["goodput"][level] * 100 for level in ("p50", "p5", "p95"))
    assert f"{middle:.1f} % ({low:.1f} to {high:.1f})" in " ".join(page.split())


def test_joules_are_of_the_job_its_waiting_and_its_spares() -> None:
    """InferenceX's lines of a node of eight (row CA-PWR-8H100), and what the building takes over it."""
    own = money.Rates(16, 8, 2.0, 1000.0, 100.0)
    assert own.joules(100.0, 10.0) == 90 * 16 * 1000 + (10 * 16 + 100 * 8) * 100
    assert own.dollars(3600.0) == 2 * 24 and own.gpu_hours(3600.0) == 16
    power = Power(0.0, 0.0, 1.25)
    assert [money.watts(power, each) * 8 / 1.25 for each in (0, 175, 350, 700, 1050)] == [1852, 3354, 4856, 8000, 11144]


def test_pauses_and_changes_are_counted_once(v3: Campaign) -> None:
    """A pause behind every thousandth step of the whole run; where the layout or the length changes, all is stored, and
    the job starts and loads anew."""
    made, own = plan(v3), v3.restart
    steps = sum(block.steps for block in made.blocks)
    assert made.calendar.pauses == v3.evaluation.takes_s * (steps // v3.evaluation.every)  # type: ignore[union-attr]
    start, changes = own.launch_s + own.connect_s + own.warm_up_s, 0.0
    for before, after in ((0, 1), (5, 6), (6, 7), (7, 8)):  # another schedule, 32 K, 128 K, and back
        changes += made.saved[before].stored_lag_s + start + made.saved[after].reload_s
    assert made.calendar.changes == pytest.approx(changes)
