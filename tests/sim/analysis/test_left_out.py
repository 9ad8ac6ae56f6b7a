"""The second part of the interval: it widens, moves nothing, and is wider where less is said."""

import json
from dataclasses import replace
from math import exp, hypot, log
from unittest.mock import patch

import numpy as np
import pytest

import sim
from sim.analysis import left_out
from sim.analysis.left_out import ANY, FLOOR, HALF, Class, Learned, Spread, class_of, joined, learned, reach, unsaid
from sim.scenario import from_mapping, load

DENSE = {
    "cluster": {"node": "h100x8", "nodes": 2}, "model": "llama3_8b", "precision": "bf16", "outputs": ["result"],
    "stack": {"name": "megatron"}, "parallel": {"tensor": 2}, "schedule": "1f1b",
    "batch": {"sequences": 16, "sequence_length": 2048},
}  # fmt: skip
MIXED = {**DENSE, "model": "qwen3_30b_a3b", "parallel": {"expert": 8}}
SAID = {"recompute": "none", "stack.cuda_graphs": False, "stack.dispatcher": "alltoall", "stack.release": "26.06"}
SCALE = {ANY: log(0.1), "mixture": log(2), "unsaid": log(1.5), "short": 1.0, "untimed": log(3)}
TABLE = Learned(1.0, SCALE, {"dense": Spread(2, 1.0, 2.0), "mixture": Spread(3, 0.5, 4.0)}, {"torch": 1.5, ANY: 2.0,
                "megatron": 1.0})  # fmt: skip


def told(mapping, *overrides):
    return sim.run(from_mapping(mapping, overrides)).summary


def test_no_centre_moves_by_it():
    """Every figure that is no interval is the same whatever was learned."""
    wide = replace(TABLE, scale=dict.fromkeys(SCALE, 0.0), sides={"dense": Spread(0, 3.0, 3.0)})
    plain = told(DENSE)
    with patch.object(left_out, "learned", lambda: wide):
        other = told(DENSE)
    ends = ("intervals_90", "interval_parts")
    assert {k: v for k, v in plain.items() if k not in ends} == {k: v for k, v in other.items() if k not in ends}
    assert plain["intervals_90"]["phases_s"] == other["intervals_90"]["phases_s"]
    assert other["intervals_90"]["step_time_s"][1] == pytest.approx(plain["step_time_s"] * exp(3), rel=0.05)
    assert other["interval_parts"]["prices"] == plain["interval_parts"]["prices"]


def test_both_parts_add_up_as_independent_causes_a_side_by_itself():
    low, high = joined(-0.03, 0.03, 1.0, 0.04, 0.0)
    assert (low, high) == pytest.approx((-hypot(0.03, 0.04), 0.03))
    assert joined(0.2, 0.4, 0.5, 0.0, 0.0) == pytest.approx(
        (0.25, 0.35)
    )  # half of the spread of prices, its middle kept
    assert joined(-0.1, 0.1, 1.0, 0.0, 0.0) == pytest.approx((-0.1, 0.1))


def test_a_run_says_both_parts_and_what_the_second_was_learned_on():
    with patch.object(left_out, "learned", lambda: TABLE):
        found = told(DENSE)
    parts, step = found["interval_parts"], found["step_time_s"]
    assert parts["class"] == {"kind": "dense", "stack": "megatron", "generation": "hopper", "scale": "cluster",
                              "blocks": "timed", "launched": "host"}  # fmt: skip
    assert (parts["groups"], parts["unsaid"]) == (2, ["recompute", "stack.cuda_graphs"])
    assert parts["mfu"] == found["mfu"]["causal"] < HALF
    size = 0.1 * 1.5**2 * HALF / parts["mfu"]
    low, high = (log(end / step) for end in parts["left_out"])
    assert (low, high) == pytest.approx((-size, 2 * size))
    prices, both = parts["prices"], found["intervals_90"]["step_time_s"]
    assert both[0] < prices[0] < step < prices[1] < both[1]
    rates = found["intervals_90"]["tokens_per_day"]
    assert rates == pytest.approx([found["tokens_per_day"] * step / end for end in reversed(both)])
    assert found["intervals_90"]["mfu"]["causal"][1] == pytest.approx(found["mfu"]["causal"] * step / both[0])


DENSE_CLASS = Class("dense", "megatron", "hopper", "node")


@pytest.mark.parametrize(("of", "unsaid_", "mfu", "spread"), [
    (DENSE_CLASS, 0, HALF, (2, 0.1, 0.2)),
    (DENSE_CLASS, 0, 2 * HALF, (2, 0.1, 0.2)),  # a step near the peak is no surer than at half of it
    (DENSE_CLASS, 0, HALF / 2, (2, 0.2, 0.4)),
    (DENSE_CLASS, 2, HALF, (2, 0.225, 0.45)),
    (replace(DENSE_CLASS, blocks="untimed"), 0, HALF, (2, 0.3, 0.6)),
    (replace(DENSE_CLASS, kind="mixture"), 0, HALF, (3, 0.1, 0.8)),
    (replace(DENSE_CLASS, kind="mixture", blocks="untimed"), 0, HALF, (3, 0.1, 0.8)),  # experts take most of its step
    (replace(DENSE_CLASS, stack="torch"), 0, HALF, (2, 0.15, 0.3)),
    (replace(DENSE_CLASS, stack="deepseek"), 0, HALF, (2, 0.2, 0.4)),  # no run had it
])  # fmt: skip
def test_it_is_as_wide_as_what_is_known_makes_it(of, unsaid_, mfu, spread):
    assert TABLE.spread(of, unsaid_, mfu) == pytest.approx(spread)


def test_no_interval_reaches_less_than_a_configuration_differs_between_sites():
    sure = replace(TABLE, scale={**SCALE, ANY: log(0.001)})
    assert sure.spread(DENSE_CLASS, 0, 1.0) == (2, FLOOR, FLOOR)


def test_what_is_not_said_makes_it_wider_key_by_key():
    widths = []
    for said in range(len(SAID) + 1):
        overrides = [f"{key}={json.dumps(value)}" for key, value in list(SAID.items())[:said]]
        scenario = from_mapping(MIXED, overrides)
        assert len(unsaid(scenario)) == len(SAID) - said
        low, high = reach(10.0, [9.9, 10.1], class_of(scenario), len(unsaid(scenario)), 0.4)
        widths.append(high / low)
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == len(widths)


def test_only_keys_that_decide_are_asked_for():
    dense = from_mapping(DENSE)
    assert unsaid(dense) == ("recompute", "stack.cuda_graphs")
    assert unsaid(from_mapping(DENSE, ["stack.cuda_graphs=false", "recompute=full"])) == ()
    assert unsaid(load("v3_2048gpu")) == ()  # DeepSeek's stack is its own
    one = from_mapping(MIXED, ["parallel.expert=1", "parallel.tensor=2"])
    assert "stack.dispatcher" not in unsaid(one) and "stack.release" in unsaid(one)


def test_a_resolved_scenario_is_as_sure_as_the_one_it_came_from():
    for mapping in (DENSE, MIXED):
        scenario = from_mapping(mapping)
        assert unsaid(from_mapping(scenario.resolved)) == unsaid(scenario)


@pytest.mark.parametrize(("gpus", "scale"), [(1, "node"), (8, "node"), (16, "cluster"), (1024, "large")])
def test_scale_goes_by_gpus(gpus, scale):
    node = {"base": "h100x8", "gpus": min(gpus, 8)}
    mapping = {**DENSE, "cluster": {"node": node, "nodes": max(1, gpus // 8)}, "parallel": {"tensor": 1}}
    mapping["batch"] = {"sequences": gpus, "sequence_length": 2048}
    assert class_of(from_mapping(mapping)).scale == scale


def test_what_ships_knows_both_kinds_and_is_never_surer_where_less_is_known():
    table, runs = learned(), []
    assert set(table.sides) == {"dense", "mixture"} and 0 < table.share <= 1
    assert table.scale["unsaid"] >= log(1.1) and min(table.scale[name] for name in left_out.FEATURES) >= 0
    for stack in ("megatron", "torch", "deepseek"):
        for kind in ("dense", "mixture"):
            for blocks in ("timed", "untimed"):
                of = Class(kind, stack, "hopper", "node", blocks)
                for mfu in (0.6, 0.4, 0.2):
                    runs.append([table.spread(of, count, mfu)[1:] for count in range(4)])
    widths = np.array(runs).reshape(3, 2, 2, 3, 4, 2)  # stack, kind, blocks, mfu, unsaid, side
    for axis in (2, 3, 4):
        assert (np.diff(widths, axis=axis) >= 0).all()
    assert (np.diff(widths, axis=4).sum(axis=-1) > 0).all()


@pytest.mark.parametrize(("model", "blocks"), [
    ("llama3_8b", "timed"), ("qwen3_30b_a3b", "timed"), ("deepseek_v2_lite", "timed"), ("gpt_oss_20b", "untimed"),
    ("nemotron3_nano_30b_a3b", "untimed"),
])  # fmt: skip
def test_blocks_that_nobody_timed_are_told_apart(model, blocks):
    scenario = from_mapping(
        {**DENSE, "model": model, "parallel": {"tensor": 1}, "cluster": {"node": "h100x8", "nodes": 1}}
    )
    assert class_of(scenario).blocks == blocks


def test_who_launches_is_a_class():
    assert class_of(from_mapping(DENSE)).launched == "host"
    assert class_of(from_mapping(DENSE, ["stack.cuda_graphs=true"])).launched == "graphs"
    assert class_of(load("v3_2048gpu")).launched == "graphs"  # its profile has the gaps as they were


@pytest.mark.parametrize(("overrides", "blocks"), [
    (["parallel.context=2", "parallel.tensor=1"], "timed"),
    (["parallel.context=2", "parallel.tensor=1", "stack={name: torch}"], "untimed"),
    (["parallel.context=2", "parallel.tensor=1", "stack={name: torch}", "parallel.context_kind=all_gather"], "untimed"),
    (["parallel.context=2", "parallel.tensor=1", "stack={name: torch}", "parallel.context_kind=all_to_all"], "timed"),
    (["precision=nvfp4", "cluster.node=b200x8"], "untimed"),
])  # fmt: skip
def test_so_are_formats_and_joined_steps_of_a_ring(overrides, blocks):
    assert class_of(from_mapping(DENSE, overrides)).blocks == blocks
