"""What a scenario needs is what its model lowers, once each; other row counts are the same operation."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from numerics.card import needs
from sim.scenario import from_mapping, load

ROOT = Path(__file__).parents[3]
V3 = load(str(ROOT / "scenarios" / "v3_2048gpu.yaml"))
NEEDED = needs.operations(V3)


def test_the_site_is_the_published_one():
    """4096 x 8 routed rows and half a tile for each of 4 experts; 7.488 ranks a token (h800_dualpipe_trace.json)."""
    where = needs.site(V3)
    assert (where.tokens, where.rows, where.local_experts) == (4096, 32768 + 4 * 64, 4)
    assert (where.received, where.group, where.group_nodes) == (round(4096 * 7.488), 64, 8)


def test_products_of_every_layer_and_pass_are_there():
    assert NEEDED[Gemm(4096, 32768, 512)] == ("kv_b", "kv_b_recompute")
    assert NEEDED[Gemm(4096, 129280, 7168, "fprop", "bf16")] == ("head",)
    assert NEEDED[Gemm(4096, 36864, 7168)] == ("shared_gateup",), "the dense layers' width"
    assert NEEDED[GroupedGemm(4, 33024, 4096, 7168)] == ("routed_gateup",)
    assert NEEDED[Gemm(7168, 2048, 8256, "wgrad")][0] == "routed_down_wgrad_e0"
    assert {op.direction for op in NEEDED if isinstance(op, Attention)} == {"forward", "backward"}


def test_no_operation_is_asked_twice_and_none_needs_a_second_gpu():
    assert len(NEEDED) == 145 and all(isinstance(op, needs.Timed) for op in NEEDED)


def test_a_scenario_of_chunk_times_needs_none():
    times = {"forward": "1 ms", "backward_input": "1 ms", "weight": "1 ms", "overlapped": "2 ms", "p2p": "0.1 ms"}
    chunks = {"schedule": "zb1p", "parallel": {"pipeline": 8}, "batch": {"micro_batches": 24}, "chunk_times": times}
    with pytest.raises(ValueError, match="chunk times need no operations"):
        needs.site(from_mapping(chunks))


@given(st.sampled_from(list(NEEDED)), st.sampled_from([0.5, 2.0]))
def test_another_size_scales_the_work_of_rows(op, factor):
    other = needs.resized(op, factor)
    assert type(other) is type(op) and needs.kind_of(other) == needs.kind_of(op)
    if isinstance(op, Memory):
        assert other.bytes() == pytest.approx(op.bytes() * factor, abs=op.read + op.write)
    elif isinstance(op, Attention):
        assert other.flop() == op.flop() * factor**2
    else:
        assert other.flop() == pytest.approx(op.flop() * factor, rel=0.02), "whole tiles"
        assert (other.rows % (128 * op.groups) if isinstance(op, GroupedGemm) else other.m % 128 * other.k) == 0 or (
            op.role == "wgrad"
        )


def test_only_fp8_products_are_confined():
    assert needs.confinable(Gemm(1, 1, 1)) and needs.confinable(GroupedGemm(1, 1, 1, 1))
    assert not needs.confinable(Gemm(1, 1, 1, "fprop", "bf16")) and not needs.confinable(Memory("cast", 1, 1, 1))
