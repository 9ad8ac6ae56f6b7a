"""Copies of an embedding: who has one, how far apart they are, and what it takes to sum their gradients, by hand."""

import pytest

from sim import assembly
from sim.layout import optimizer, tied
from sim.layout.plan import lay_out
from sim.scenario import SCENARIOS, load

LLAMA, LITE = (str(SCENARIOS / f"{name}.yaml") for name in ("llama3_70b", "v2_lite"))
SMALL = ("cluster.nodes=2", "parallel.pipeline=4", "batch.sequences=32", "batch.sequence_length=512",
         "model.layers=8", "outputs=[result]")  # fmt: skip
TABLE = 128256 * 8192


def laid_out(path, *words):
    plan = lay_out(load(path, [*SMALL, *words]))
    return plan, assembly.machine(plan)


def test_the_ends_of_a_tied_model_sum_the_table_of_each_replica():
    """Position 0 is on the first node and position 3 on the other: a pair passes the whole table in FP32 each way."""
    plan, machine = laid_out(LLAMA, "model.tied=true")
    together = tied.sync(plan, machine)
    assert tied.holders(plan, machine) == (0, 3)
    assert (together.kind, together.size, together.ranks, together.nodes) == ("all_reduce", TABLE * 4, 2, 2)
    assert together.bytes() == TABLE * 4
    took = [tied.sync_ns(plan, machine, position) for position in range(4)]
    assert took == [machine.pricer.price(together).ns, 0, 0, took[0]]
    assert took[0] > TABLE * 4 / machine.pricer.wires.network * 1e9


def test_it_is_part_of_what_follows_the_steps():
    """Before the norm of all gradients; an end holds as many parameters, tied or not."""
    plan, machine = laid_out(LLAMA, "model.tied=true")
    untied = laid_out(LLAMA)
    added = [optimizer.tail(plan, machine, p).norm_ns - optimizer.tail(*untied, p).norm_ns for p in (0, 1, 3)]
    assert added == [tied.sync_ns(plan, machine, 0), 0, tied.sync_ns(plan, machine, 3)]


def test_pipelines_inside_a_node_sum_over_nvlink():
    plan, machine = laid_out(LLAMA, "model.tied=true", "parallel.order=tp-cp-ep-pp-dp")
    assert (tied.sync(plan, machine).ranks, tied.sync(plan, machine).nodes) == (2, 1)


@pytest.mark.parametrize(("path", "words"), [
    (LLAMA, ()), (LLAMA, ("model.tied=true", "parallel.pipeline=1", "batch.sequences=32")),
    (LLAMA, ("model.tied=true", "schedule=dualpipe")), (LLAMA, ("model.tied=true", "schedule=dualpipev")),
    (LITE, ("model.mtp_depth=1", "parallel.expert=4", "schedule=1f1b")),  # DeepSeek's own stack: not published
])  # fmt: skip
def test_nothing_is_summed_where_there_is_one_copy(path, words):
    plan, machine = laid_out(path, *words)
    assert tied.holders(plan, machine) == () and tied.sync(plan, machine) is None


def test_a_module_by_itself_has_a_copy_on_megatron():
    """It reads the embedding of the token it predicts from."""
    words = ("model.mtp_depth=1", "parallel.expert=4", "stack=megatron", "precision=bf16", "cluster.node=h100x8")
    plan, machine = laid_out(LITE, *words, "schedule=1f1b", "placement=Et*4|t*4|m|L")
    assert tied.holders(plan, machine) == (0, 2)
