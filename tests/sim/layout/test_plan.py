"""The layout of a scenario: who holds what, how many micro-batches, where groups lie."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim import assembly
from sim.layout import plan
from sim.models.layer import COMMUNICATION, Unit
from sim.scenario import from_mapping, load

V3 = str(Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml")
FIXED = "placement=[4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,1]"


@pytest.fixture(scope="module")
def main():
    laid = plan.lay_out(load(V3, [FIXED]))
    return laid, assembly.machine(laid)


def test_layout_of_v3(main):
    """2,048 GPUs / 16 positions = 128 replicas; 15,360 sequences / 128 = 120 micro-batches each."""
    laid, _ = main
    assert (laid.data, laid.micro_batches, laid.program.positions, laid.program.stages) == (128, 120, 16, 16)
    assert laid.holds == tuple(tuple(sorted({r, 15 - r})) for r in range(16))


@pytest.mark.parametrize(
    ("schedule", "holds"),
    [
        ("1f1b", ((0,), (1,), (2,), (3,))), ("dualpipe", ((0, 3), (1, 2), (1, 2), (0, 3))),
        ("dualpipev", ((0, 7), (1, 6), (2, 5), (3, 4))), ("interleaved", ((0, 4), (1, 5), (2, 6), (3, 7))),
    ],
)  # fmt: skip
def test_who_holds_what(schedule, holds):
    mapping = {
        "schedule": schedule, "parallel": {"pipeline": 4}, "batch": {"micro_batches": 8},
        "chunk_times": {"forward": "1 ms", "backward_input": "1 ms", "weight": "1 ms"},
    }  # fmt: skip
    laid = plan.lay_out(from_mapping(mapping))
    assert laid.holds == holds
    for (stage, micro_batch), rank in laid.homes.items():
        assert stage in laid.holds[rank] and 0 <= micro_batch < 8


def test_site_of_v3(main):
    site = main[1].site
    assert (site.tokens, site.group, site.group_nodes, site.local_experts) == (4096, 64, 8, 4)
    assert site.nodes_reached == pytest.approx(3.96, abs=0.01) and site.ranks_reached == pytest.approx(7.49, abs=0.02)
    assert site.rows == 33024 and site.received == round(4096 * site.ranks_reached)


def test_stages_of_v3(main):
    """All units, in order, four layers a stage; the last has a layer, the head and the prediction module."""
    machine = main[1]
    assert sum(machine.stages, ()) == machine.units
    assert [u.kind for u in machine.stages[-1]] == ["moe", "head", "projection", "moe", "head"]
    assert machine.pricer.compute_sms == 112


@pytest.mark.parametrize("unit", [Unit("moe", 5), Unit("dense", 0), Unit("head", -1)])
def test_cost_of_a_unit(main, unit):
    """Kernels and launch gaps of what computes, directions adding up."""
    machine = main[1]
    by_hand = 0
    for direction in "FBW":
        for part in machine.parts(unit, direction):
            for kernel in part.kernels:
                if kernel.lane != COMMUNICATION:
                    by_hand += machine.pricer.price(kernel.op).ns + 1990 * kernel.op.kernels
    assert machine.unit_ns(unit) == by_hand
    each = [machine.unit_ns(unit, d) for d in "FBW"]
    assert sum(each) == by_hand


def test_refused_format():
    """A mode without a price for a format says so (the check before it names the file; this is the last line)."""
    laid = plan.lay_out(load(V3, [FIXED, "precision=bf16", "cluster.node=a100x8", "comm.sms=20"]))
    machine = assembly.machine(laid)
    from hwmodels.op import Gemm

    with pytest.raises(Refused, match="has no fp8 tensor cores; legal precisions: "):
        machine.pricer.price(Gemm(128, 128, 128, "fprop", "fp8"))


@given(first=st.integers(0, 60), kinds=st.lists(st.sampled_from(["dense", "moe"]), min_size=1, max_size=6))
def test_relative(first, kinds):
    """Equal stages become equal values, wherever they are in the model."""
    stage = [Unit(kind, first + i) for i, kind in enumerate(kinds)]
    units, offset = plan.relative(stage)
    assert offset == first
    assert units == tuple(Unit(kind, i) for i, kind in enumerate(kinds))
    assert plan.relative([Unit("embedding", -1), *stage])[0][0] == Unit("embedding", -1)


def test_relative_without_layers():
    assert plan.relative([Unit("head", -1)]) == ((Unit("head", -1),), 0)
