"""When a stage asks for its parameters, and in how many pieces they come."""

import pytest

from sim.assembly import assembled
from sim.layout.buckets import asked, gathered, traffic
from sim.layout.plan import lay_out
from sim.scenario.files import load
from sim.simulation import run

SMALL = (
    "stack=megatron", "precision=bf16", "parallel.pipeline=4", "batch.sequences=128", "overlap.parameters=true",
    "overlap.gradients=true", "overlap.buckets=1 MB", "placement=even", "model.layers=16", "outputs=[result]",
)  # fmt: skip
ONE, SEVERAL = ("schedule=1f1b",), ("schedule={name: interleaved, chunks: 2}",)


def stages(*words: str) -> list[tuple[int, int, bool]]:
    """Of each stage its buckets, collectives that gather them, and whether its first forward waits for them."""
    plan = lay_out(load("v2_lite.yaml", [*SMALL, *words]))
    machine, _ = assembled(plan)
    answer = []
    for stage in range(plan.program.stages):
        parts, moved = gathered(plan, machine, stage), traffic(plan, machine, stage, first=True)
        answer.append((len(parts), sum(len(part.gather) for part in parts), moved is not None and moved.forward))
    return answer


@pytest.mark.parametrize("words", [ONE, (*SEVERAL, "overlap.gather=on_demand")])
def test_a_stage_that_asks_for_its_parameters_has_one_bucket_and_one_of_experts(words: tuple[str, ...]) -> None:
    first, *others = stages(*words)
    assert first[0] > 1 and first[2]
    assert set(others) == {(1, 2, True)}


def test_aligned_stages_have_their_parameters_when_activations_come() -> None:
    first, *others = stages(*SEVERAL)
    assert first[2] and not any(asks for _, _, asks in others[2:])
    assert not any(asks for _, _, asks in stages(*SEVERAL, "overlap.gather=before"))


@pytest.mark.parametrize(("words", "word"), [
    (ONE, "on_demand"), (SEVERAL, "aligned"), (("stack=torch", *ONE), "aligned"),
    ((*ONE, "overlap.gather=aligned"), "aligned"),
])  # fmt: skip
def test_megatrons_positions_of_one_stage_ask_on_demand_unless_said(words: tuple[str, ...], word: str) -> None:
    assert asked(lay_out(load("v2_lite.yaml", [*SMALL, *words]))) == word


def test_who_asks_late_takes_longer_and_who_has_them_takes_least() -> None:
    step = {
        word: run(load("v2_lite.yaml", [*SMALL, *SEVERAL, f"overlap.gather={word}"])).summary["step_time_s"]
        for word in ("before", "aligned", "on_demand")
    }
    assert step["before"] < step["aligned"] < step["on_demand"]
