"""The pair where ranks differ: as long as it was in the run, by every rank."""

from functools import cache

import numpy as np
import pytest

from sim import assembly, simulation
from sim.layout import plan
from sim.scenario import from_mapping
from sim.simulation import simulated

TINY = {
    "cluster": {"node": "h800x8", "nodes": 4},
    "model": {"base": "deepseek_v2_lite", "layers": 9, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 4, "expert": 4},
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
    "schedule": "dualpipe",
    "outputs": ["result"],
}


@cache
def told(*overrides):
    return simulation.run(from_mapping(TINY, overrides), False).summary


def test_it_is_counted_step_by_step():
    """Replica by replica over the steps of those two stages at position 2."""
    laid = plan.lay_out(from_mapping(TINY, ("routing=sampled",)))
    done = simulated(laid, assembly.machine(laid)).timeline.positions[2]
    said = told("routing=sampled")["pair_s"]
    stages = [int(word) for word in said["name"].split() if word.isdigit()]
    rows = [
        end - start
        for step, start, end in zip(laid.program.steps[2], done.starts, done.ends, strict=True)
        if "+" in step.kind and [step.stage, step.stage_b] == stages
    ]
    means = np.mean(rows, axis=0) / 1e9
    assert said["position"] == 2 and said["steps"] == len(rows) > 1 and len(means) == 8
    assert [said["seconds"], said["min"], said["max"]] == pytest.approx([means.mean(), means.min(), means.max()])


def test_columns_count_as_many_as_they_stand_for():
    """A slow GPU: replicas alike are one column when folded, and the mean does not notice."""
    fault = "faults=[{kind: gpu, at: 17, slower: 1.5}]"
    folded, apart = told(fault)["pair_s"], told(fault, "fold=false")["pair_s"]
    assert folded == pytest.approx(apart)
    assert folded["max"] > folded["seconds"] > folded["min"]


def test_more_skew_makes_longer_pairs():
    """The balanced pair stays as it is, and is what a run of ranks alike tells."""
    tokens = "batch.sequence_length=4096"
    alike = told(tokens)["pair_s"]
    found = [told(f"routing={{kind: skewed, max_vio: {max_vio}}}", tokens)["pair_s"] for max_vio in (0.1, 3, 9)]
    assert found[0]["seconds"] < found[1]["seconds"] < found[2]["seconds"]
    assert {each["balanced_seconds"] for each in found} == {alike["seconds"]}
    assert "balanced_seconds" not in alike and alike["position"] == 2


def test_position_and_kind_decide():
    """A schedule without pairs tells its longest chunk."""
    said = told("schedule=1f1b", "routing=sampled")["pair_s"]
    assert " with " not in said["name"] and said["steps"] == 8 and said["min"] <= said["seconds"] <= said["max"]


def test_what_is_communicated_says_of_whom_where_ranks_differ():
    assert told("routing=sampled")["communication_of"] == "balanced loads, and no faults"
    assert "communication_of" not in told() and told()["communication"]
