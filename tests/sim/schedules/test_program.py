"""Programs as text, their checks, and what holds for the programs of every schedule."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.schedules.program import (
    Program,
    Shape,
    Step,
    alternating,
    build,
    check,
    home,
    in_flight,
    names,
    needs,
    pairing,
)
from tests.oracles.programs import parse, text

SHAPES = st.builds(Shape, st.integers(1, 8), st.integers(1, 24), st.integers(1, 4), st.booleans())
NAMES = st.sampled_from(names())


def program(*ranks: str, stages: int = 2, micro_batches: int = 1) -> Program:
    """A program from its rank lines."""
    header = f"hand ranks={len(ranks)} stages={stages} micro_batches={micro_batches} weight_copies=1"
    return parse("\n".join((header, *(f"rank {rank}: {steps}" for rank, steps in enumerate(ranks)))))


def refusal(action, *arguments) -> str:
    with pytest.raises(Refused) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def legal(name: str, shape: Shape) -> bool:
    """Which shapes a schedule runs, said once more and independently."""
    pipeline, micro_batches = shape.pipeline, shape.micro_batches
    return {
        "dualpipe": pipeline % 2 == 0 and micro_batches % 2 == 0 and micro_batches >= 2 * pipeline,
        "dualpipev": micro_batches >= 2 * pipeline,
        "interleaved": micro_batches % pipeline == 0 or shape.chunks == 1,
    }.get(name, True)


@given(NAMES, SHAPES)
def test_legal_shapes_build_programs_that_run_and_others_are_refused(name, shape):
    if legal(name, shape):
        check(build(name, shape))
    else:
        with pytest.raises(Refused, match=f"^{name} .*cannot run .*; legal: .*, nearest ") as caught:
            build(name, shape)
        assert "\n" not in str(caught.value)


@given(NAMES, st.integers(1, 6), st.integers(1, 3))
def test_text_parses_back(name, pipeline, groups):
    shape = Shape(2 * pipeline, 4 * pipeline * groups)
    built = build(name, shape)
    assert parse(text(built)) == built
    assert text(parse(text(built))) == text(built)


@given(NAMES, st.integers(1, 6))
def test_stages_and_homes_agree_with_the_program(name, pipeline):
    shape = Shape(2 * pipeline, 4 * pipeline)
    built = build(name, shape)
    assert built.stages == import_module(f"sim.schedules.{name}").stages(shape)
    assert (built.schedule, built.positions, built.micro_batches) == (name, shape.pipeline, shape.micro_batches)
    homes = home(built)
    assert set(homes) == {(s, m) for s in range(built.stages) for m in range(shape.micro_batches)}
    held = {(stage, rank) for (stage, _), rank in homes.items()}
    assert len(held) == built.stages * built.weight_copies


@given(NAMES, st.integers(1, 4), st.data())
def test_a_program_with_a_step_missing_or_doubled_is_refused(name, half, data):
    built = build(name, Shape(2 * half, 4 * half))
    rank = data.draw(st.integers(0, built.positions - 1))
    index = data.draw(st.integers(0, len(built.steps[rank]) - 1))
    steps = built.steps[rank]
    for changed in (steps[:index] + steps[index + 1 :], (*steps[:index], steps[index], *steps[index:])):
        ranks = (*built.steps[:rank], changed, *built.steps[rank + 1 :])
        broken = Program(name, built.positions, built.stages, built.micro_batches, ranks, built.weight_copies)
        assert "never runs" in refusal(check, broken) or "runs twice" in refusal(check, broken)


def test_which_schedules_overlap_by_themselves_and_which_where_asked():
    told = {name: pairing(name) for name in names()}
    assert {name for name, (always, _) in told.items() if always} == {"dualpipe", "dualpipev"}
    assert {name for name, (always, chosen) in told.items() if chosen and not always} == {"1f1b", "interleaved"}
    assert all(chosen for always, chosen in told.values() if always)


def test_one_forward_one_backward():
    forwards, backwards = ([Step(kind, 0, m) for m in range(3)] for kind in ("F", "BW"))
    told = {paired: [" ".join(map(str, alternating(forwards, backwards, ahead, paired))) for ahead in (0, 1, 9)]
            for paired in (False, True)}  # fmt: skip
    first = "F0.0 F0.1 F0.2 BW0.0 BW0.1 BW0.2"
    assert told[False] == ["F0.0 BW0.0 F0.1 BW0.1 F0.2 BW0.2", "F0.0 F0.1 BW0.0 F0.2 BW0.1 BW0.2", first]
    assert told[True][1:] == ["F0.0 F0.1+BW0.0 F0.2+BW0.1 BW0.2", first]


def test_passes_of_each_kind():
    assert Step("F", 1, 2).passes() == (("F", 1, 2),)
    assert Step("W", 1, 2).passes() == (("W", 1, 2),)
    assert Step("BW", 1, 2).passes() == (("B", 1, 2), ("W", 1, 2))
    assert Step("F+B", 1, 2, 3, 4).passes() == (("F", 1, 2), ("B", 3, 4))
    assert Step("F+BW", 1, 2, 3, 4).passes() == (("F", 1, 2), ("B", 3, 4), ("W", 3, 4))


def test_needs_of_each_kind():
    assert needs(Step("F", 0, 5), 3) == []
    assert needs(Step("F", 2, 5), 3) == [("F", 1, 5)]
    assert needs(Step("B", 1, 5), 3) == [("F", 1, 5), ("B", 2, 5)]
    assert needs(Step("BW", 2, 5), 3) == [("F", 2, 5)]
    assert needs(Step("W", 1, 5), 3) == [("B", 1, 5)]
    assert needs(Step("F+BW", 1, 5, 0, 4), 3) == [("F", 0, 5), ("F", 0, 4), ("B", 1, 4)]


def test_tokens():
    mixed = program("F0.0 F0.1 B0.0 W0.0 BW0.1", "F1.0 F1.1+BW1.0 BW1.1", micro_batches=2)
    assert mixed.steps[1] == (Step("F", 1, 0), Step("F+BW", 1, 1, 1, 0), Step("BW", 1, 1))
    assert [str(step) for step in mixed.steps[1]] == ["F1.0", "F1.1+BW1.0", "BW1.1"]
    assert str(Step("F+B", 0, 5, 7, 12)) == "F0.5+B7.12"
    check(mixed)


def test_what_is_held_counts_until_the_weight_gradient_and_both_chunks_of_a_pair():
    assert in_flight(program("F0.0 B0.0 F0.1 W0.0 BW0.1", stages=1, micro_batches=2)) == [2]
    assert in_flight(program("F0.0 BW0.0 F0.1 BW0.1", stages=1, micro_batches=2)) == [1]
    assert in_flight(program("F0.0 F0.1+BW0.0 BW0.1", stages=1, micro_batches=2)) == [2]


HEADER = "hand ranks=1 stages=1 micro_batches=1 weight_copies=1"
STEPS = "is not a step; steps look like F0.3, B2.1, W2.1, BW2.1 or F0.5+BW7.2 (stage.micro-batch)"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{HEADER}\nrank 0: F0.0 G0.0", f"line 2, token 2: 'G0.0' {STEPS}"),
        (f"{HEADER}\n\nrank 0: F0.0 BW0", f"line 3, token 2: 'BW0' {STEPS}"),
        (f"{HEADER}\nrank 0: B0.0+BW0.0", f"line 2, token 1: 'B0.0+BW0.0' {STEPS}"),
        (f"{HEADER}\nrank 0: F0.0+W0.0", f"line 2, token 1: 'F0.0+W0.0' {STEPS}"),
        (f"{HEADER}\nrank 1: F0.0 BW0.0", "line 2: expected 'rank 0: ...'; got 'rank 1: F0.0 BW0.0'"),
        (f"{HEADER}\nF0.0 BW0.0", "line 2: expected 'rank 0: ...'; got 'F0.0 BW0.0'"),
        (HEADER, "line 1: the header says 1 ranks, but 0 rank lines follow"),
        (
            "rank 0: F0.0 BW0.0",
            "line 1: a program starts with a line like 'dualpipe ranks=8 stages=8 micro_batches=20 weight_copies=2';"
            " got 'rank 0: F0.0 BW0.0'",
        ),
    ],
)
def test_text_that_is_no_program(source, message):
    assert refusal(parse, source) == message


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (("F0.0 BW0.0", "F1.0"), "hand: B1.0 never runs"),
        (("F0.0 BW0.0", "F1.0 B1.0"), "hand: W1.0 never runs"),
        (("BW0.0", "F1.0 BW1.0"), "hand: F0.0 never runs"),
        (("F0.0 BW0.0", "F1.0 BW1.0 W1.0"), "hand: W1.0 runs twice: rank 1, step 2 and rank 1, step 3"),
        (("F0.0 BW0.0", "F1.0 BW1.0 F0.0"), "hand: F0.0 runs twice: rank 0, step 1 and rank 1, step 3"),
        (
            ("F0.0", "F1.0 BW1.0 BW0.0"),
            "hand: F, B and W of stage 0, micro-batch 0 must be on one rank; got ranks 0, 1 and 1",
        ),
        (("F0.0 W0.0 B0.0", "F1.0 BW1.0"), "hand: rank 0 runs W0.0 at step 2, before B0.0 at step 3"),
        (("F0.0 BW0.0", "F2.0 BW1.0"), "hand: rank 1, step 1 (F2.0): stage 2 is not in 0..1"),
        (("F0.0 BW0.7", "F1.0 BW1.0"), "hand: rank 0, step 2 (BW0.7): micro-batch 7 is not in 0..0"),
        (("F0.0+BW0.0", "F1.0 BW1.0"), "hand: rank 0, step 1 (F0.0+BW0.0): a pair needs two different chunks"),
        (("BW0.0 F0.0", "F1.0 BW1.0"), "hand: deadlock: rank 0 at BW0.0 waits for F0.0, later on the same rank"),
    ],
)
def test_programs_that_cannot_run(ranks, message):
    assert refusal(check, program(*ranks)) == message


def test_a_deadlock_says_who_waits_for_what():
    """Rank 0 is only held up; ranks 1 and 2 hold each other."""
    ranks = ("F0.0 F0.1 BW0.0 BW0.1", "F1.0 BW1.0 F1.1 BW1.1", "F2.0 F2.1 BW2.0 BW2.1")
    stuck = program(*ranks, stages=3, micro_batches=2)
    assert refusal(check, stuck) == (
        "hand: deadlock: rank 1 at BW1.0 waits for B2.0, on rank 2; rank 2 at F2.1 waits for F1.1, on rank 1"
    )


def test_unknown_kinds_and_missing_ranks_are_refused():
    odd = Program("hand", 1, 1, 1, ((Step("X", 0, 0),),))
    assert refusal(check, odd) == "hand: rank 0, step 1 (X0.0): kind 'X' is unknown; legal: F, B, W, BW, F+B, F+BW"
    assert refusal(check, Program("hand", 2, 1, 1, ((),))) == "hand: 2 ranks, but steps for 1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dualpip", "unknown schedule 'dualpip', did you mean 'dualpipe'?"),
        ("../program", f"unknown schedule '../program', legal: {', '.join(names())}"),
        ("__init__", f"unknown schedule '__init__', legal: {', '.join(names())}"),
    ],
)
def test_unknown_schedules(name, message):
    with pytest.raises(Refused) as caught:
        build(name, Shape(4, 8))
    assert str(caught.value) == message


@pytest.mark.parametrize("figures", [(0, 8), (4, 0), (4, 8, 0), (-1, 8)])
def test_shapes_hold_positive_figures(figures):
    with pytest.raises(Refused, match="must be at least 1; got"):
        Shape(*figures)


def test_schedules_load_only_when_asked_for():
    code = (
        "import sys; from sim.schedules.program import names;"
        " sys.exit(any(f'sim.schedules.{name}' in sys.modules for name in names()) or not names())"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(root)}, check=False)
    assert run.returncode == 0
