"""When gradients and parameters move, by stage, stack and what a scenario asks for."""

from dataclasses import replace

import pytest

from sim.layout.shards import AGAIN, EVERY, FIRST, LAST, NEVER, moves
from sim.models.stacks.stack import Stack
from sim.scenario.files import load
from sim.scenario.values import Overlap, Scenario

V3 = load("v3_2048gpu.yaml")


def scenario(
    stack: str, zero: int, reshard: bool = True, pipeline: int = 1, no_sync: bool = False, **overlap: bool
) -> Scenario:
    parallel = replace(V3.parallel, zero=zero, reshard=reshard, pipeline=pipeline, no_sync=no_sync)
    return replace(V3, stack=Stack(stack), parallel=parallel, overlap=Overlap(**overlap))


@pytest.mark.parametrize(("stack", "zero", "more", "reduces", "gathers"), [
    ("deepseek", 1, {}, NEVER, NEVER), ("deepseek", 0, {}, NEVER, NEVER), ("deepseek", 3, {}, EVERY, AGAIN),
    ("megatron", 1, {}, NEVER, NEVER), ("megatron", 1, {"gradients": True, "parameters": True}, NEVER, FIRST),
    ("megatron", 2, {}, EVERY, NEVER), ("megatron", 2, {"parameters": True}, EVERY, FIRST),
    ("megatron", 0, {"parameters": True}, NEVER, NEVER),
    ("torch", 0, {}, LAST, NEVER), ("torch", 1, {}, LAST, NEVER), ("torch", 0, {"gradients": False}, NEVER, NEVER),
    ("torch", 2, {}, EVERY, EVERY), ("torch", 3, {}, EVERY, AGAIN), ("torch", 3, {"reshard": False}, EVERY, EVERY),
    ("torch", 2, {"no_sync": True}, LAST, EVERY), ("torch", 3, {"no_sync": True}, LAST, AGAIN),
])  # fmt: skip
def test_in_which_passes_they_move(stack: str, zero: int, more: dict[str, bool], reduces: str, gathers: str) -> None:
    own = moves(scenario(stack, zero, **more))
    assert (own.reduces, own.gathers) == (reduces, gathers)


@pytest.mark.parametrize(("zero", "more", "gathers"), [
    (2, {}, FIRST), (3, {"reshard": False}, FIRST), (3, {}, AGAIN), (3, {"reshard": False, "gradients": True}, FIRST),
])  # fmt: skip
def test_a_pipeline_of_torch_reduces_once_and_gathers_once_what_forward_leaves(
    zero: int, more: dict[str, bool], gathers: str
) -> None:
    """PipelineStage lets fully_shard reduce behind a stage's last backward, and not in it."""
    own = moves(scenario("torch", zero, pipeline=4, **more))
    assert (own.reduces, own.gathers, own.beside, own.drains, own.units) == (NEVER, gathers, False, True, True)
    assert moves(scenario("torch", 1, pipeline=4)) == moves(scenario("torch", 1))


def test_what_stacks_overlap_by_themselves() -> None:
    """fully_shard and DDP do; Megatron when asked; DeepSeek reduces each stage's when that is through."""
    for stack, zero, expected in (
        ("torch", 3, (True, True, False)), ("torch", 0, (True, False, False)), ("megatron", 1, (False, False, False)),
        ("deepseek", 1, (False, False, True)),
    ):  # fmt: skip
        own = moves(scenario(stack, zero))
        assert (own.beside, own.ahead, own.drains) == expected
    assert not moves(scenario("torch", 3, gradients=False, parameters=False)).beside
    assert not moves(scenario("deepseek", 1, gradients=False)).drains
