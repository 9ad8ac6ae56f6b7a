"""What a run says of its loads: against the arrays that its step is priced by, and against tokens through the gate."""

from functools import cache

import numpy as np
import pytest

from sim import assembly, simulation
from sim.analysis.loads import rank_loads, reach, routing_figures, unlike
from sim.layout import plan
from sim.routing.gate import gate_of
from sim.routing.imbalance import hosts_of, loads_of, popularity_of
from sim.routing.traffic import traffic
from sim.scenario import from_mapping

TINY = {
    "cluster": {"node": "h800x8", "nodes": 4},
    "model": {"base": "deepseek_v2_lite", "layers": 9, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 4, "expert": 4},
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
    "outputs": ["result", "loads"],
}


@cache
def drawn(*overrides):
    laid = plan.lay_out(from_mapping(TINY, overrides))
    machine = assembly.machine(laid)
    return laid, machine, loads_of(laid, machine)


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipe", "dualpipev", "interleaved", "zb1p"])
@pytest.mark.parametrize("routing", ["sampled", "{kind: balanced, redundant_experts: 8}"])
def test_every_step_of_the_schedule_is_in_its_row(schedule, routing):
    """Counted step by step: forwards of each stage at each position, layer by layer, rank by rank."""
    laid, machine, loads = drawn(f"schedule={schedule}", f"routing={routing}")
    seen = {}
    for position, steps in enumerate(laid.program.steps):
        for step in steps:
            for unit in machine.stages[step.stage] if step.kind.startswith("F") else ():
                if unit.kind == "moe":
                    seen.setdefault((unit.layer, position), []).append(step.micro_batch)
    table = rank_loads(laid, machine, loads)
    keys = [(layer, p, p * 8 + replica) for layer, p in sorted(seen) for replica in range(8)]
    assert list(zip(table.layer.tolist(), table.position.tolist(), table.rank.tolist(), strict=True)) == keys
    for at, (layer, position, rank) in enumerate(keys):
        mine = seen[layer, position]
        assert table.micro_batches[at] == len(set(mine)) == len(mine)
        for values, found in ((loads.received, table.received), (loads.rows, table.rows)):
            own = values[layer - 1, mine, rank % 8]
            assert found[at].tolist() == [own.mean(), own.min(), own.max()]
    assert table.micro_batches.sum() == 9 * 8 * 8, "nine layers with experts, eight micro-batches and replicas"


def test_max_vio_is_that_of_tokens_of_experts():
    """One expert in ten of twice the tokens: known from the histogram, and as many tokens drawn."""
    histogram = [[2000] * 6 + [1000] * 58]
    laid, machine, loads = drawn("schedule=1f1b", f"routing={{kind: recorded, histogram: {histogram}}}")
    said = routing_figures(laid, machine, loads)["max_vio"]
    alike = 2 * 64 / 70 - 1
    assert said["by_layer"] == pytest.approx([alike] * 9, abs=0.08), "512 x 8 x 8 tokens choose 6 of 64: 1.4 % noise"
    assert said["mean"] == pytest.approx(np.mean(said["by_layer"])) and said["worst"] == max(said["by_layer"])
    assert said["by_layer"][said["worst_layer"] - 1] == said["worst"]
    assert min(said["by_layer"]) > alike, "the largest of six alike"


def test_a_run_says_what_its_steps_were_priced_by():
    laid, machine, loads = drawn("schedule=dualpipe", "routing=sampled")
    found = simulation.run(laid.scenario, False)
    assert found.summary["routing"] == routing_figures(laid, machine, loads)
    assert found.loads is not None
    assert (found.loads.rows == rank_loads(laid, machine, loads).rows).all()
    assert found.summary["routing"]["layers"] == list(range(1, 10))


HISTOGRAM = [[3000] + [1000] * 62 + [0]]


def test_what_was_recorded_is_told_beside_what_was_drawn():
    """Three times the others' tokens, of 64: the mean has one expert with none."""
    laid, machine, loads = drawn("schedule=1f1b", f"routing={{kind: recorded, histogram: {HISTOGRAM}}}")
    said = routing_figures(laid, machine, loads)
    alike = 3 * 64 / 65 - 1
    assert said["max_vio"]["recorded"]["by_layer"] == pytest.approx([alike] * 9)
    assert said["max_vio"]["recorded"]["worst_layer"] == 1 and said["max_vio"]["mean"] == pytest.approx(alike, abs=0.08)
    assert unlike(said) == "", "1.3 % noise"
    assert "recorded" not in routing_figures(*drawn("schedule=1f1b", "routing=sampled"))["max_vio"]
    assert unlike(routing_figures(*drawn("schedule=1f1b", "routing=sampled"))) == ""


def test_few_tokens_are_unlike_what_was_recorded():
    few = ("schedule=1f1b", "routing={kind: recorded, histogram: [[" + ",".join(["7"] * 64) + "]]}")
    said = routing_figures(*drawn(*few, "batch.sequence_length=8"))
    line = unlike(said)
    assert line.startswith("routing.histogram: as drawn, the busiest expert's load differs from the recorded one")
    assert "in 9 of 9 layers" in line and "recorded 0)" in line
    worst = int(np.argmax(said["max_vio"]["by_layer"]))
    assert f"(layer {said['layers'][worst]}: MaxVio {said['max_vio']['worst']:.3g}" in line


def test_what_ranks_get_is_told_and_copies_even_it_out():
    """MaxVio is of experts, copies together; ranks with copies of the popular ones get less unlike loads."""
    found = {}
    for copies in (0, 8):
        skewed = f"routing={{kind: skewed, max_vio: 2, redundant_experts: {copies}}}"
        laid, machine, loads = drawn("schedule=1f1b", skewed)
        found[copies] = routing_figures(laid, machine, loads)
        for name, values in (("received", loads.received), ("rows", loads.rows)):
            said, step = found[copies]["rank_imbalance"][name], values.sum(axis=1)
            assert said["by_layer"] == pytest.approx((step.max(axis=1) / step.mean(axis=1) - 1).tolist())
            assert said["mean"] == pytest.approx(np.mean(said["by_layer"])) and said["worst"] == max(said["by_layer"])
    plain, copied = found[0], found[8]
    assert copied["max_vio"]["mean"] == pytest.approx(plain["max_vio"]["mean"], rel=0.02)
    for name in ("received", "rows"):
        assert copied["rank_imbalance"][name]["mean"] < 0.6 * plain["rank_imbalance"][name]["mean"]


def test_percentiles_are_rows_of_some_rank():
    laid, machine, loads = drawn("schedule=dualpipe", "routing=sampled")
    said = routing_figures(laid, machine, loads)["rows_percentiles"]
    rows = np.sort(loads.rows.ravel())
    for percent, value in said.items():
        assert value % 128 == 0
        assert (rows < value).mean() < int(percent) / 100 <= (rows <= value).mean()


def test_balanced_routing_says_nothing():
    found = simulation.run(from_mapping(TINY, ("schedule=1f1b",)), False)
    assert "routing" not in found.summary and found.loads is None


def test_loads_come_only_when_asked_for():
    found = simulation.run(from_mapping(TINY, ("schedule=1f1b", "routing=sampled", "outputs=[result]")), False)
    assert "routing" in found.summary and found.loads is None


@pytest.mark.parametrize(("routing", "nodes", "ranks"), [
    ("sampled", 0.001, 0.002), ("{kind: skewed, max_vio: 2}", 0.003, 0.002),
])  # fmt: skip
def test_a_token_reaches_as_many_nodes_and_ranks_as_through_the_gate(routing, nodes, ranks):
    """V3 in groups of 64, three layers: relative to tokens through the gate, whose own error is 0.001."""
    mapping = {"cluster": {"node": "h800x8", "nodes": 16},
               "model": {"base": "deepseek_v3", "layers": 6, "mtp_depth": 0},
               "parallel": {"pipeline": 2, "expert": 64}, "schedule": "1f1b", "placement": "even",
               "batch": {"micro_batches": 2, "sequence_length": 4096}}  # fmt: skip
    scenario = from_mapping(mapping, (f"routing={routing}",))
    laid = plan.lay_out(scenario)
    machine = assembly.machine(laid)
    found = reach(machine, loads_of(laid, machine))
    mixture = machine.mixture
    liked = popularity_of(scenario, mixture, len(machine.routed))
    for layer, (row, where) in enumerate(zip(liked, hosts_of(liked, scenario, mixture, 8), strict=True)):
        tokens = traffic(gate_of(mixture), row, where, 256, 0, layer, 0)
        assert found[0][layer] == pytest.approx(tokens.nodes_reached.mean(), rel=nodes)
        assert found[1][layer] == pytest.approx(tokens.ranks_reached.mean(), rel=ranks)
