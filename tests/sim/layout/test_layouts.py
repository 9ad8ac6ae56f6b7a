"""Runs of layouts: what is written another way is the same run; messages behind a module carry its states; stages that
hold an end alone run, whoever else is there."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import assembly
from sim.layout.plan import lay_out
from sim.scenario import SCENARIOS, from_mapping, load
from sim.simulation import run

LITE, LLAMA = (str(SCENARIOS / f"{name}.yaml") for name in ("v2_lite", "llama3_70b"))
SMALL = ("cluster.nodes=2", "parallel.pipeline=4", "parallel.expert=4", "batch.sequences=64", "model.mtp_depth=1",
         "batch.sequence_length=512", "model.layers=4", "model.vocabulary=4096", "outputs=[result]")  # fmt: skip
TOLD = ("scenario", "scenario_hash", "overrides", "events", "wall_seconds", "unfelt")


def figures(path, *words):
    summary = run(load(path, words), interval=False).summary
    return {key: value for key, value in summary.items() if key not in TOLD}


@pytest.mark.parametrize(("schedule", "layout", "counts"), [
    ("1f1b", "Et|t|t|tmL", [1, 1, 1, 1]), ("zb1p", "Ett|t|t|mL", [2, 1, 1, 0]),
    ("dualpipe", "E|t|t|ttmL", [0, 1, 1, 2]),
    ("{name: interleaved, chunks: 1}", "{first: 1, last: 1}", [1, 1, 1, 1]),
])  # fmt: skip
def test_a_layout_that_says_the_same_as_a_list_is_the_same_run(schedule, layout, counts):
    words = [*SMALL, f"schedule={schedule}"]
    assert figures(LITE, *words, f"placement={layout}") == figures(LITE, *words, f"placement={counts}")


def test_messages_behind_a_module_carry_its_states_too():
    """Megatron Core hands on both, one behind the other (`torch.cat` of hidden states in
    megatron/core/transformer/multi_token_prediction.py, @d98e8a6)."""
    plan = lay_out(load(LITE, [*SMALL, "schedule=1f1b", "placement=Ett|tt|m|L"]))
    machine = assembly.machine(plan)
    sizes = [machine.message(plan.mesh, *ends).size for ends in plan.messages.ends]
    assert sizes == [512 * 2048 * 2, 512 * 2048 * 2, 2 * 512 * 2048 * 2]
    assert {message.end for message in plan.messages.sent[3]} == {2}  # gradients go over the same end


@settings(max_examples=12, deadline=None)
@given(
    chunks=st.integers(1, 3), group=st.integers(2, 5), waited=st.booleans(),
    cuts=st.lists(st.integers(1, 9), min_size=5, max_size=5, unique=True),
)  # fmt: skip
def test_folded_is_unfolded_and_parameters_add_up_over_any_layout(chunks, group, waited, cuts):
    """Of ten letters cut anywhere."""
    text, stages = "Ettttttt" + "mL", 2 * chunks
    inner = sorted(cuts[: stages - 1])
    layout = "".join("|" * (i in inner) + letter for i, letter in enumerate(text))
    words = [
        *SMALL, "parallel.pipeline=2", "model.layers=7", f"placement={layout}",
        f"schedule={{name: interleaved, chunks: {chunks}, group: {group}}}", f"batch.sequences={8 * 4 * group}",
        f"overlap.pipeline={str(not waited).lower()}",
    ]  # fmt: skip
    scenario = load(LITE, words)
    folded, unfolded = figures(LITE, *words), figures(LITE, *words, "fold=false")
    assert folded == {key: unfolded[key] for key in folded}
    machine = assembly.machine(lay_out(scenario))
    assert sorted(unit for stage in machine.stages for unit in stage) == sorted(machine.units)


EVEN = {
    "name": "even", "batch": {"micro_batches": 8}, "parallel": {"pipeline": 4},
    "chunk_times": {"forward": "2 ms", "backward_input": "2 ms", "weight": "2 ms"},
}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(pipeline=st.integers(2, 6), chunks=st.integers(1, 4), larger=st.integers(0, 3), groups=st.integers(1, 3))
def test_the_simulated_bubble_is_the_closed_form(pipeline, chunks, larger, groups):
    """(p - 1) / (m v) of the time without it, where costs are even, whatever the group."""
    count = groups * (pipeline + larger)
    words = [f"parallel.pipeline={pipeline}", f"batch.micro_batches={count}",
             f"schedule={{name: interleaved, chunks: {chunks}, group: {pipeline + larger}}}"]  # fmt: skip
    summary = run(from_mapping(EVEN, words), interval=False).summary
    ideal = count * chunks * 6e-3
    assert summary["step_time_s"] / ideal - 1 == pytest.approx((pipeline - 1) / (count * chunks), rel=1e-9)
    waited = run(from_mapping(EVEN, [*words, "overlap.pipeline=false"]), interval=False).summary
    assert waited["step_time_s"] >= summary["step_time_s"]
