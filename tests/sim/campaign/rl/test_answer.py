"""What steps of reinforcement learning say."""

from typing import Any

import pytest

from hwmodels.document import Document
from hwmodels.refused import Refused
from sim.campaign.rl.answer import run
from sim.campaign.rl.files import resolved
from sim.campaign.rl.values import Learning
from sim.scenario.overrides import merged
from tests.sim.campaign.rl.learnings import PLAN, learning


def answer(**changes: Any) -> dict[str, Any]:
    own: dict[str, Any] = run(learning(**changes)).summary["rl"]
    return own


def test_on_policy_a_step_is_all_of_its_parts() -> None:
    own = answer(kl=0.1, reward__takes="0.1 s", controller="1 s")
    parts = own["parts_s"]
    whole = sum(value for name, value in parts.items() if name != "tail")
    assert own["step_s"] == pytest.approx(whole) == pytest.approx(sum(own["lanes_s"]["all"].values()))
    assert parts["controller"] == 1 and parts["reward"] > 0 and parts["away"] == parts["back"] > 0
    assert sum(own["steps_s"]) == pytest.approx(own["steps"] * own["step_s"])


def test_no_critic_and_a_reference_only_with_a_kl_term() -> None:
    without, host, device = answer(), answer(kl=0.1), answer(kl=0.1, reference="device")
    assert without["memory"]["critic"] == host["memory"]["critic"] == device["memory"]["critic"] == 0
    assert without["parts_s"]["reference_log_probs"] == without["parts_s"]["change"] == 0
    assert host["parts_s"]["reference_log_probs"] == device["parts_s"]["reference_log_probs"] > 0
    assert without["memory"]["reference"] == host["memory"]["reference"] == 0 < device["memory"]["reference"]
    assert answer(old_log_probs=False)["parts_s"]["old_log_probs"] == 0 < without["parts_s"]["old_log_probs"]


def test_one_step_off_hides_the_shorter_side() -> None:
    on, off = answer(rollout__nodes=1), answer(rollout__nodes=1, stale=1)
    parts = off["parts_s"]
    trains = parts["old_log_probs"] + parts["update"]
    assert off["step_s"] == pytest.approx(max(parts["rollout"], trains) + parts["sync"], rel=0.05)
    assert off["step_s"] < on["step_s"] == pytest.approx(parts["rollout"] + trains + parts["sync"], rel=0.05)
    for own in (on, off):
        for lane in ("rollouts", "training"):
            assert sum(own["lanes_s"][lane].values()) == pytest.approx(own["step_s"])


def test_more_of_anything_is_never_faster() -> None:
    base = answer()["step_s"]
    for changes in ({"samples": 16}, {"prompt": 52}, {"response__median": 300}, {"kl": 0.1}, {"rollout__host": "1 ms"},
                    {"sync__takes": "9 s"}, {"packed": False}):  # fmt: skip
        assert answer(**changes)["step_s"] > base


def test_a_host_between_steps_costs_each_step() -> None:
    """Of the longest answer every token but the first is a step."""
    plain, slow = answer(response__sigma=0.0), answer(response__sigma=0.0, rollout__host="1 ms")
    more = slow["parts_s"]["rollout"] - plain["parts_s"]["rollout"]
    assert more == pytest.approx((199 + 2) * 1e-3, abs=1e-6)  # two steps of prompts


def test_a_published_step_stands_beside() -> None:
    own = answer(published={"step": "10 s", "source": "here"})
    assert own["published"]["error"] == pytest.approx(own["step_s"] / 10 - 1) and own["published"]["source"] == "here"
    assert answer()["published"] is None
    with pytest.raises(Refused, match=r"published\.step: expected a time above 0"):
        answer(published={"step": "0 s", "source": "here"})


def test_a_reference_that_has_no_room_is_told() -> None:
    assert run(learning_on("80 GB")).summary["feasible"]
    peak = run(learning(kl=0.1)).summary["rl"]["memory"]["update_peak"]
    small = run(learning_on(f"{(peak + 1e8) / 1e9} GB")).summary
    (line,) = small["infeasible"]
    assert line.startswith("update and reference need ") and line.endswith("write rl.reference: host")


def learning_on(memory: str) -> Learning:
    """With a reference on devices of so much memory."""
    words = {"rl.kl": 0.1, "rl.reference": "device", "cluster.node.device.hbm.capacity": memory}
    return resolved(merged(Document(PLAN), Document(words)), (), None)
