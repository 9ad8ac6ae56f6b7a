"""Products in FP8 with a scale for each 128 of their depth: rows of their own on Hopper, wider spreads elsewhere."""

import math
from statistics import median

import pytest

from hwmodels.op import BY_BLOCK, Gemm
from sim import assembly
from sim.layout.plan import lay_out
from sim.scenario import from_mapping


def machine(node: str, precision: str = "fp8_block"):  # type: ignore[no-untyped-def]
    return assembly.machine(lay_out(from_mapping({
        "cluster": {"node": node, "nodes": 1}, "model": "llama3_8b", "precision": precision, "stack": "megatron",
        "batch": {"sequences": 8, "sequence_length": 8192}, "outputs": ["result"],
    })))  # fmt: skip


SHAPES = [(8192, 6144, 4096), (8192, 4096, 4096), (8192, 28672, 4096), (8192, 4096, 14336)]


@pytest.mark.parametrize(("node", "rung"), [("h200x8", "measured"), ("h100x8", "transferred")])
def test_hopper_takes_longer_by_what_was_timed(node: str, rung: str) -> None:
    """1.16 times forward and 1.09 of inputs in the median of equal shapes timed both ways."""
    pricer = machine(node).pricer
    for role, ratio in (("fprop", 1.16), ("dgrad", 1.085)):
        blocks, one = ([pricer.price(Gemm(*shape, role + end, "fp8")) for shape in SHAPES] for end in (BY_BLOCK, ""))
        found = median(a.ns / b.ns for a, b in zip(blocks, one, strict=True))
        assert found == pytest.approx(ratio, abs=0.02) and rung in {price.rung for price in blocks}


@pytest.mark.parametrize("node", ["b200x8", "h20x8"])
def test_others_are_as_sure_as_that_tells(node: str) -> None:
    pricer = machine(node).pricer
    for shape in SHAPES:
        blocks, one = (pricer.price(Gemm(*shape, f"fprop{end}", "fp8")) for end in (BY_BLOCK, ""))
        assert blocks.ns == one.ns and blocks.spread == pytest.approx(math.hypot(one.spread, math.log(1.16)), abs=0.03)


def test_the_recipe_asks_for_them_where_they_were_timed() -> None:
    own = machine("h200x8")
    ops = [k.op for u in own.units for d in "FBW" for part in own.parts(u, d) for k in part.kernels]
    roles = {op.role for op in ops if isinstance(op, Gemm) and op.precision == "fp8"}
    assert roles == {"fprop by block", "dgrad by block", "wgrad"}
