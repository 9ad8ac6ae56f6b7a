"""Prices that scenarios share: what is priced after others costs what it does by itself."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim import assembly
from sim.assembly import machine
from sim.layout.plan import lay_out
from sim.scenario import load

ROOT = Path(__file__).parents[2]
BASE = ("llama3_70b_fsdp", "stack=torch;stack.attention=flash2", "model.layers=2", "comm.collectives=ring")
FELT = (
    "cluster.node.device.power=400 W", "cluster.node.device.hbm.bandwidth=2.4 TB/s", "cluster.node=b200x8",
    "pricing=roofline", "batch.sequences=1024;cluster.nodes=64",
    "stack.attention=cudnn", "stack.compiled=true", "stack=megatron", "stack=megatron;stack.attention=flash2",
    "comm.collectives=nccl", "cluster.node.nvlink.bandwidth=20 GB/s",
)  # fmt: skip
"""Each moves what a layer takes."""
MIXTURE = ("v2_lite", "model.layers=3", "comm.hold=while_running")
FELT_BY_EXPERTS = (
    "comm.sms=40", "comm.hold=always", "comm.waits=measured", "comm.exchange=messages",
    "pricing=fitted", "parallel.expert=1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    forgotten()
    yield
    forgotten()


def forgotten() -> None:
    for kept in (assembly._prices, assembly._shared, assembly._totals):
        kept.cache_clear()


def costs(words: tuple[str, ...]) -> list[tuple[int, int]]:
    """Of each layer, alone and beside the other side."""
    made = machine(lay_out(load(words[0], [each for word in words[1:] for each in word.split(";")])))
    each = [part.kernels for unit in made.units for direction in "FB" for part in made.parts(unit, direction)]
    ops = [kernel.op for kernels in each for kernel in kernels]
    return [made.pricer.price(op, on)[:2] for op in ops for on in (False, True)]


@pytest.mark.parametrize(("base", "felt"), [(BASE, FELT), (MIXTURE, FELT_BY_EXPERTS)])
def test_prices_after_others_are_those_of_a_process_by_itself(base: tuple[str, ...], felt: tuple[str, ...]) -> None:
    each = [base, *((*base, word) for word in felt)]
    alone = []
    for words in each:
        forgotten()
        alone.append(costs(words))
    assert not [word for word, one in zip(felt, alone[1:], strict=True) if one == alone[0]], "shows nothing"
    for seed in range(2):
        order = random.Random(seed).sample(range(len(each)), len(each))
        assert {i: costs(each[i]) for i in order} == dict(enumerate(alone))
