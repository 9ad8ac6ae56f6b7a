"""Kernels of traces as operations that hwmodels prices: by how operands lie, by names, and what is not told."""

import json
from pathlib import Path

import pytest

from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from numerics.tables.recording import best
from numerics.traces.importer import Analysis, analyse
from numerics.traces.operations import Operation, deduce
from numerics.traces.priced import priced
from numerics.traces.rules import load
from numerics.traces.trace import read_trace

TRACES = Path(__file__).parents[2] / "fixtures" / "traces"
TORCH = load("torch")


def operation(operator: str, kernel: str, dims: list, strides: list = (), kind: str = "", us: float = 50.0, **more):
    types = ["c10::BFloat16"] * len(dims)
    named = TORCH.classify(kernel)
    op = Operation(
        "", -1, kernel, kind or named.kind, kernel, True, False, False, (0,), (us,), (0.0,), ((320, 1, 1),), (0,),
        (True,), operator, json.dumps(dims), more.pop("types", str(types)), json.dumps(list(strides)), **more,
    )  # fmt: skip
    return deduce([op], TORCH)[0]


@pytest.mark.parametrize(
    ("dims", "strides", "expected"),
    [
        ([[8, 64], [64, 32]], [[64, 1], [1, 64]], Gemm(8, 32, 64, "fprop", "bf16")),
        ([[8, 32], [32, 64]], [[32, 1], [64, 1]], Gemm(8, 64, 32, "dgrad", "bf16")),
        ([[32, 8], [8, 64]], [[1, 32], [64, 1]], Gemm(32, 64, 8, "wgrad", "bf16", result="bf16")),
        ([[8, 64], [64, 32]], [], Gemm(8, 32, 64, "fprop", "bf16")),
    ],
)
def test_a_products_role_is_told_by_how_its_operands_lie(dims, strides, expected):
    assert priced(operation("aten::mm", "nvjet_sm90_tst_128x128_64x6_2x1_v_bz_TNT", dims, strides)) == expected


def test_grouped_products_go_by_their_node_of_autograd():
    kernel, dims = "cutlass::device_kernel<GroupProblemShape>", [[512, 64], [8, 64, 32], [8]]
    forward = operation("aten::_grouped_mm", kernel, dims, kind="gemm_grouped")
    assert priced(forward) == GroupedGemm(8, 512, 32, 64, "fprop", "bf16")
    back = operation("aten::_grouped_mm", kernel, dims, kind="gemm_grouped", node="GroupedMmBackward0")
    assert priced(back) == GroupedGemm(8, 512, 32, 64, "dgrad", "bf16")
    weights = operation("aten::_grouped_mm", kernel, [[32, 512], [512, 64], [8]], kind="gemm_grouped")
    assert priced(weights) == GroupedGemm(8, 512, 32, 64, "wgrad", "bf16")


def test_attention_has_its_heads_where_its_operator_puts_them():
    given = "['', '', '', '', '', '', '16', '16', 'True', '0.', 'False', 'False', '']"
    dims = [[2, 8, 16, 64], [2, 2, 16, 64], [2, 2, 16, 64]]
    cudnn = operation("aten::_cudnn_attention_forward", "cudnn_sdpa_flash_fprop", dims, given=given)
    assert priced(cudnn) == Attention("forward", 2, 8, 16, 64, 64, False, 1, 2)
    rows = [[2, 16, 8, 64], [2, 16, 2, 64], [2, 16, 2, 64]]
    flash = operation("aten::_flash_attention_forward", "flash_fwd_kernel", rows)
    assert priced(flash) == Attention("forward", 2, 8, 16, 64, 64, True, 1, 2)


@pytest.mark.parametrize(
    ("operator", "kernel", "dims", "expected"),
    [
        ("add", "vectorized_elementwise_kernel<8>", [[4, 64], [4, 64], []], Memory("elementwise", 4, 256.0, 128.0)),
        ("mul", "elementwise_kernel<128>", [[2, 4, 64], [4, 64]], Memory("strided", 8, 128.0, 128.0)),
        ("silu", "vectorized_elementwise_kernel<8>", [[4, 64]], Memory("silu", 4, 128.0, 128.0)),
        ("cat", "CatArrayBatchedCopy<1>", [[[4, 64], [4, 64]], []], Memory("concatenate", 4, 256.0, 256.0)),
        ("zero_", "vectorized_elementwise_kernel<FillFunctor>", [[4, 64]], Memory("fill", 4, 0.0, 128.0)),
        ("_fused_rms_norm", "layer_norm_kernel<1>", [[4, 64], [], [64]], Memory("norm_forward", 4, 128.0, 128.0)),
        ("native_layer_norm", "layer_norm_kernel<1>", [[4, 64], [], []], Memory("layer_norm_forward", 4, 128.0, 128.0)),
        ("mm", "Memset (Device)", [[4, 64], [64, 4]], Memory("memset", 1, 0.0, 0.0)),
        ("topk", "gatherTopK<float>", [[4, 64]], Memory("topk", 4, 128.0, 10.0)),
    ],
)  # fmt: skip
def test_memory_bound_kernels_by_operator_and_name(operator, kernel, dims, expected):
    assert priced(operation(f"aten::{operator}", kernel, dims)) == expected


def test_what_is_not_told_is_nothing_and_what_is_tiny_is_tiny():
    assert priced(operation("", "vectorized_elementwise_kernel<8>", [])) is None
    assert priced(operation("", "vectorized_elementwise_kernel<8>", [], us=2.0)) == Memory("tiny", 1, 0.0, 0.0)
    assert priced(operation("aten::mm", "nvjet_sm90_tst_128x128", [], us=2.0)) is None


def analysed(name: str) -> Analysis:
    trace = read_trace(TRACES / f"{name}.json.gz")
    return analyse(trace, load(best(trace)))


@pytest.mark.parametrize("name", ["dense", "mixture", "compiled", "small"])
def test_real_steps_are_nearly_all_priced(name):
    operations = analysed(name).operations
    whole = sum(sum(op.us) for op in operations)
    assert sum(sum(op.us) for op in operations if priced(op) is None) < 0.01 * whole


def test_the_products_of_a_step_do_its_work():
    """Forward, and twice that backward, of two layers and a head: 4,096 tokens times parameters of products."""
    weights = 2 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096) + 128256 * 4096
    found = [(op, priced(op)) for op in analysed("dense").operations]
    flop = {role: sum(len(op.us) * what.flop() for op, what in found if isinstance(what, Gemm) and what.role == role)
            for role in ("fprop", "dgrad", "wgrad")}  # fmt: skip
    assert flop == dict.fromkeys(flop, 2.0 * 4096 * weights)
