"""What a run says of its loads: against the arrays that its step is priced by, and against tokens through the gate."""

from functools import cache

import numpy as np
import pytest

import sim
from sim import plan
from sim.scenario import from_mapping
from sim.tokens import summary
from sim.tokens.gate import gate_of
from sim.tokens.imbalance import hosts_of, liked_in, loads_of
from sim.tokens.traffic import traffic

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
    machine = plan.machine(laid)
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
    table = summary.table(laid, machine, loads)
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
    said = summary.figures(laid, machine, loads)["max_vio"]
    alike = 2 * 64 / 70 - 1
    assert said["by_layer"] == pytest.approx([alike] * 9, abs=0.08), "512 x 8 x 8 tokens choose 6 of 64: 1.4 % noise"
    assert said["mean"] == pytest.approx(np.mean(said["by_layer"])) and said["worst"] == max(said["by_layer"])
    assert said["by_layer"][said["worst_layer"] - 1] == said["worst"]
    assert min(said["by_layer"]) > alike, "the largest of six alike"


def test_a_run_says_what_its_steps_were_priced_by():
    laid, machine, loads = drawn("schedule=dualpipe", "routing=sampled")
    found = sim.run(laid.scenario)
    assert found.summary["routing"] == summary.figures(laid, machine, loads)
    assert found.loads is not None
    assert (found.loads.rows == summary.table(laid, machine, loads).rows).all()
    assert found.summary["routing"]["layers"] == list(range(1, 10))


def test_percentiles_are_rows_of_some_rank():
    laid, machine, loads = drawn("schedule=dualpipe", "routing=sampled")
    said = summary.figures(laid, machine, loads)["rows_percentiles"]
    rows = np.sort(loads.rows.ravel())
    for percent, value in said.items():
        assert value % 128 == 0
        assert (rows < value).mean() < int(percent) / 100 <= (rows <= value).mean()


def test_balanced_routing_says_nothing():
    found = sim.run(from_mapping(TINY, ("schedule=1f1b",)))
    assert "routing" not in found.summary and found.loads is None


def test_loads_come_only_when_asked_for():
    found = sim.run(from_mapping(TINY, ("schedule=1f1b", "routing=sampled", "outputs=[result]")))
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
    machine = plan.machine(laid)
    found = summary.reach(machine, loads_of(laid, machine))
    shape, liked = machine.site.shape, liked_in(scenario, machine.site.shape)
    for layer, (row, where) in enumerate(zip(liked, hosts_of(liked, scenario, shape, 8), strict=True)):
        tokens = traffic(gate_of(shape), row, where, 256, 0, layer, 0)
        assert found[0][layer] == pytest.approx(tokens.nodes.mean(), rel=nodes)
        assert found[1][layer] == pytest.approx(tokens.ranks.mean(), rel=ranks)
