"""The sweep of comm.sms on the reference scenario: what binds where, and what it costs."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from sim import simulation
from sim.communication.exchange.roles import COPY, FIXED, FOLLOW
from sim.experiments import comm_sms
from sim.scenario import load

SCENARIO = Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml"


@pytest.fixture(scope="module")
def found() -> list[comm_sms.Split]:
    return list(comm_sms.splits(load(str(SCENARIO), ["outputs=[result]"]), FOLLOW, (6, 8, 20, 32)))


def test_compute_never_gains_from_sms_for_communication(found: list[comm_sms.Split]) -> None:
    """Where nothing is exposed, a pair is its compute, and that only grows."""
    hidden = [s for s in found if s.sms >= 20]
    assert all(s.pair_exposed_s < 1e-6 for s in hidden)
    assert hidden[0].pair_s < hidden[1].pair_s and hidden[0].step_s < hidden[1].step_s


def test_too_few_sms_expose_communication(found: list[comm_sms.Split]) -> None:
    assert found[0].pair_exposed_s > 10 * found[1].pair_exposed_s and found[0].step_s > found[1].step_s


def test_exchanges_only_get_faster_and_stay_above_the_bound(found: list[comm_sms.Split]) -> None:
    for fewer, more in pairwise(found):
        for a, b in zip(fewer.exchanges, more.exchanges, strict=True):
            assert a.name == b.name and b.seconds <= a.seconds and b.seconds > b.bound_s == a.bound_s
    assert {e.limited_by for e in found[-1].exchanges} == {"network"}
    assert {e.name for e in found[0].exchanges} == {"dispatch(F)", "combine(F)", "dispatch(B)", "combine(B)"}


def best(splits: Iterable[comm_sms.Split]) -> int:
    """SMs of the shortest step."""
    return min(splits, key=lambda split: (split.step_s, split.sms)).sms


def test_the_best_split_lies_between_the_ends(found: list[comm_sms.Split]) -> None:
    assert best(found) == 8
    assert comm_sms.rows(found)[0]["sms"] == 6


def test_slower_warps_and_fixed_roles_need_more_sms() -> None:
    scenario = load(str(SCENARIO), ["outputs=[result]"])
    slower = comm_sms.slower(COPY, 2.0)
    assert best(comm_sms.splits(scenario, FOLLOW, (8, 12, 16), slower)) == 12
    assert best(comm_sms.splits(scenario, FIXED, (8, 12, 16), slower)) == 16


def test_a_split_is_the_scenario_with_that_many_sms(found: list[comm_sms.Split]) -> None:
    """To the nanosecond, also where the scenario itself has others: what messages leave of the NICs follows. Twenty is
    V3's own; the NIC binds there, so that its step is the same with fixed roles."""
    changes = ["outputs=[result]", "detail=chunk"]
    eight = simulation.run(load(str(SCENARIO), [*changes, "comm.sms=8"]), False).summary
    assert (found[1].step_s, found[1].pair_s) == (eight["step_time_s"], eight["pair_s"]["seconds"])
    runs = (simulation.run(load(str(SCENARIO), [*changes, f"comm.warps={kind}"]), False) for kind in (FOLLOW, FIXED))
    follow, fixed = (run.summary["step_time_s"] for run in runs)
    assert found[2].step_s == follow
    assert fixed == pytest.approx(follow, rel=0.0005)
