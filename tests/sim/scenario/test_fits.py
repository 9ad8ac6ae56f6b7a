"""Schedules, pipelines and micro-batches: what cannot run is refused at the key that makes it, with the nearest legal.

Hypothesis finds counts; the nearest that a message names is then run.
"""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.document import DocumentError
from sim.layout.plan import lay_out
from sim.scenario import SCENARIOS, from_mapping, load
from sim.schedules.program import Shape, misfits, names

V3, LITE = (str(SCENARIOS / f"{name}.yaml") for name in ("v3_2048gpu", "v2_lite"))
TIMES = {
    "name": "times", "schedule": "1f1b", "parallel": {"pipeline": 4}, "batch": {"micro_batches": 8},
    "chunk_times": {"forward": "1 ms", "backward_input": "1 ms", "weight": "1 ms"},
}  # fmt: skip


def refusal(scenario, *words):
    """The one line of a refusal, without its place."""
    with pytest.raises(DocumentError) as caught:
        load(scenario, words)
    (problem,) = caught.value.problems
    return f"{problem.key}: {problem.message}"


@pytest.mark.parametrize(
    ("scenario", "words", "line"),
    [
        (
            V3, ["batch.sequences=3840", "schedule=interleaved"],
            "batch.sequences: batch.sequences 3840 make 30 micro-batches a pipeline, which interleaved with "
            "parallel.pipeline 16 cannot run; legal: multiples of 16, nearest 32 (batch.sequences=4096)",
        ),
        (
            V3, ["batch.sequences=5632", "batch.micro_batch=2", "schedule=dualpipev"],
            "batch.sequences: batch.sequences 5632 make 22 micro-batches a pipeline, which dualpipev with "
            "parallel.pipeline 16 cannot run; legal: 32 or more, nearest 32 (batch.sequences=8192)",
        ),
        (
            V3, ["batch={micro_batches: 33, sequences: null}"],
            "batch.micro_batches: dualpipe with parallel.pipeline 16 cannot run 33; legal: even numbers from 32 on, "
            "nearest 34",
        ),
        (
            TIMES, ["schedule=dualpipe", "parallel.pipeline=3"],
            "parallel.pipeline: dualpipe cannot run 3; legal: even numbers (its ranks mirror each other), nearest 4",
        ),
    ],
)  # fmt: skip
def test_the_key_and_the_nearest_legal_value(scenario, words, line):
    assert refusal(scenario, *words) == line


def test_a_layout_that_gives_no_micro_batches_is_told_alone():
    """Not also what follows from it."""
    for words in (["parallel.pipeline=32", "cluster.nodes=3"], ["batch.sequences=1"]):
        assert "micro-batches a pipeline" not in refusal(LITE, "schedule=1f1b", "model.layers=60", *words)


@settings(max_examples=40)
@given(name=st.sampled_from(names()), pipeline=st.integers(1, 9), micro_batches=st.integers(1, 40))
def test_what_a_message_calls_the_nearest_runs(name, pipeline, micro_batches):
    words = [f"schedule={name}", f"parallel.pipeline={pipeline}", f"batch.micro_batches={micro_batches}"]
    try:
        lay_out(from_mapping(TIMES, words))
        assert not misfits(name, Shape(pipeline, micro_batches))
        return
    except DocumentError as error:
        (problem,) = error.problems
    nearest = re.search(r"nearest (\d+)$", problem.message)[1]
    again = [*words, f"{problem.key}={nearest}"]
    if problem.key == "parallel.pipeline":
        again.append(f"batch.micro_batches={4 * int(nearest)}")
    lay_out(from_mapping(TIMES, again))
