"""`overlap.pipeline` and `comm.messages` are two words for one thing; stacks have their own default."""

import pytest

from hwmodels.document import DocumentError
from sim.scenario import SCENARIOS, load
from sim.simulation import run

LLAMA, LITE = (str(SCENARIOS / f"{name}.yaml") for name in ("llama3_70b", "v2_lite"))
SMALL = ("cluster.nodes=2", "parallel.pipeline=4", "batch.sequences=32", "batch.sequence_length=512",
         "model.layers=8", "outputs=[result]")  # fmt: skip
TWO = "schedule={name: interleaved, chunks: 2}"


@pytest.mark.parametrize(("words", "word"), [
    ((), "hidden"), (("overlap.pipeline=true",), "hidden"), (("overlap.pipeline=false",), "waited"),
    (("comm.messages=waited",), "waited"), (("comm.messages=waited", "overlap.pipeline=false"), "waited"),
    (("stack=megatron",), "waited"), (("stack=megatron", "overlap.pipeline=true"), "hidden"),
    (("stack=megatron", "comm.messages=hidden"), "hidden"), (("stack=megatron", TWO), "hidden"),
    (("stack=megatron", TWO, "overlap.pipeline=false"), "waited"),
    (("stack=megatron", "schedule={name: interleaved, chunks: 1}"), "waited"),
    (("stack=megatron", "schedule=gpipe"), "hidden"),
    (("stack=megatron", "parallel.pipeline=1"), "hidden"),
])  # fmt: skip
def test_who_waits(words, word):
    scenario = load(LLAMA, [*SMALL, *words])
    assert scenario.comm.messages == scenario.resolved["comm"]["messages"] == word
    assert "pipeline" not in scenario.resolved.get("overlap", {})


@pytest.mark.parametrize(("asked", "word"), [("false", "hidden"), ("true", "waited")])
def test_words_at_odds_are_refused_in_a_line(asked, word):
    with pytest.raises(DocumentError) as caught:
        load(LLAMA, [f"overlap.pipeline={asked}", f"comm.messages={word}"])
    (problem,) = caught.value.problems
    other = {"hidden": "waited", "waited": "hidden"}[word]
    found = f"overlap.pipeline: found {asked} beside comm.messages {word}; legal: either of them, or {other}"
    assert f"{problem.key}: {problem.message}" == found


@pytest.mark.parametrize(
    "schedule", ["1f1b", "{name: interleaved, chunks: 2}", "{name: interleaved, chunks: 2, group: 8}"]
)
def test_waiting_for_messages_is_never_faster(schedule):
    words = [*SMALL, f"schedule={schedule}"]
    hidden, waited = (run(load(LLAMA, [*words, f"overlap.pipeline={word}"]), False) for word in ("true", "false"))
    assert waited.summary["step_time_s"] > hidden.summary["step_time_s"]
    assert waited.summary["bubble_s"]["sends"] > 0 == hidden.summary["bubble_s"].get("sends", 0)
