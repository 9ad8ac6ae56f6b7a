"""A schedule that the project does not know is one file: breadth-first, several stages a rank, from another folder."""

import sys

import pytest

from hwmodels.document import DocumentError
from sim import schedules, simulation
from sim.layout import plan
from sim.scenario import SCENARIOS, load, schema
from sim.schedules import program
from sim.schedules.program import Shape, build, check, chunked, names, stages

BREADTH_FIRST = '''
"""Breadth-first: a rank runs all micro-batches through its first stage, then through its second, and so on; backwards
likewise, in reverse.

Source: Lamy-Poirier, Breadth-First Pipeline Parallelism (arXiv:2211.05953), figure 4d.
Bubble: (PP-1)(F+B)/chunks, for M >= PP.
"""

from sim.schedules.program import Program, Shape, Step


def stages(shape: Shape) -> int:
    """`chunks` stages a rank."""
    return shape.pipeline * shape.chunks


def build(shape: Shape) -> Program:
    """Runs with any number of micro-batches."""
    steps = tuple(_rank(rank, shape) for rank in range(shape.pipeline))
    return Program("breadth_first", shape.pipeline, stages(shape), shape.micro_batches, steps)


def _rank(rank: int, shape: Shape) -> tuple[Step, ...]:
    chunks = [(chunk * shape.pipeline + rank, m) for chunk in range(shape.chunks) for m in range(shape.micro_batches)]
    return (*(Step("F", *at) for at in chunks), *(Step("BW", *at) for at in reversed(chunks)))
'''

V3 = str(SCENARIOS / "v3_2048gpu.yaml")
SMALL = ("outputs=[result]", "detail=chunk", "parallel.pipeline=8", "batch.sequences=2048")
"""V3 on 8 positions with 8 micro-batches a pipeline."""
EVEN = [2] * 29 + [1] * 3
"""Layers of 32 stages."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The schedule in a folder beside the shipped ones."""
    (tmp_path / "breadth_first.py").write_text(BREADTH_FIRST, encoding="utf-8")
    monkeypatch.setattr(schedules, "__path__", [*schedules.__path__, str(tmp_path)])
    yield
    sys.modules.pop("sim.schedules.breadth_first", None)
    vars(schedules).pop("breadth_first", None)


def run(*words):
    return simulation.run(load(V3, [*SMALL, *words]), False)


def refused(*words):
    with pytest.raises(DocumentError) as caught:
        load(V3, [*SMALL, *words])
    return str(caught.value)


def test_it_is_known_by_its_file_alone():
    assert "breadth_first" in names() and chunked("breadth_first", 8)
    assert "breadth_first" in schema()["$defs"]["ScheduleForm"]["properties"]["name"]["enum"]


@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize("ranks", [1, 4, 8])
def test_bubble(clock, ranks, chunks):
    """(PP-1)(F+B)/chunks, where a rank's F and B are `chunks` times those of one stage."""
    built = build("breadth_first", Shape(ranks, 2 * ranks, chunks))
    check(built)
    assert clock(built, f=1, b=1, w=1).idle == [(ranks - 1) * 3] * ranks


@pytest.mark.parametrize("name", program.names())
def test_stages_are_those_of_the_program(name):
    for shape in (Shape(4, 8), Shape(4, 8, 3), Shape(2, 4)):
        assert stages(name, shape) == build(name, shape).stages
    assert chunked(name, 4) == (stages(name, Shape(4, 8, 5)) == 20)


def test_v3_runs_with_it_and_chunks_shorten_the_bubble():
    two, four = run("schedule=breadth_first"), run("schedule={name: breadth_first, chunks: 4}")
    assert two.scenario["schedule"] == {"name": "breadth_first", "chunks": 2}
    assert (len(two.stages), len(four.stages)) == (16, 32)
    fill = [result.summary["bubble_s"]["fill"] for result in (two, four)]
    assert 0 < fill[1] < 0.6 * fill[0]
    assert load(V3, [*SMALL, "schedule=breadth_first"]).scenario_hash != load(
        V3, [*SMALL, "schedule={name: breadth_first, chunks: 4}"]).scenario_hash  # fmt: skip


def test_layers_are_placed_on_all_its_stages():
    listed = run("schedule={name: breadth_first, chunks: 4}", f"placement={EVEN}")
    assert listed.summary["layers_per_stage"] == EVEN
    assert listed.stages[-1].layers == EVEN[-1] + 1  # and the prediction module
    assert [stage.position for stage in listed.stages] == [*range(8)] * 4


@pytest.mark.parametrize(("words", "line"), [
    (("schedule={name: breadth_first, chunks: 4}", "placement=[8,8,8,8,8,8,8,5]"),
     "breadth_first with parallel.pipeline 8 has 32 stages; found 8 numbers of layers"),
    (("schedule=breadth_first", f"placement={EVEN}"),
     "breadth_first with parallel.pipeline 8 has 16 stages; found 32 numbers of layers"),
    (("schedule={name: breadth_first, chunks: 4}", f"placement={[2] * 31 + [1]}"),
     "the stages hold 63 layers; the model has 61"),
    (("schedule={name: breadth_first, chunks: 8}", "model.layers=60"),
     "breadth_first with parallel.pipeline 8 has 64 stages, more than the model's 60 layers and ends; legal: up to 7"),
    (("schedule={name: zb1p, chunks: 4}",), "zb1p runs without chunks; they go with: breadth_first, interleaved"),
    (("schedule=1f1b", "placement=[9,9,0,9,9,9,9,7]"),
     "stage 2 holds nothing; only the first, which has the embedding, and the last, which has the head, may be without "
     "layers"),
])  # fmt: skip
def test_what_does_not_fit_its_stages_is_one_line(words, line):
    said = refused(*words)
    assert said.endswith(line) and "\n" not in said


@pytest.mark.parametrize(("schedule", "mirrored", "overlapped"), [
    ("dualpipe", True, True), ("dualpipev", True, True), ("interleaved", False, False), ("1f1b", False, False),
    ("breadth_first", False, False), ("zb1p", False, False),
])  # fmt: skip
@pytest.mark.parametrize("pipeline", [2, 4, 8])
def test_stages_that_mirror_each_other_show_in_the_program(schedule, mirrored, overlapped, pipeline):
    words = ["batch.sequences=null", "batch.micro_batches=16", f"parallel.pipeline={pipeline}"]
    laid = plan.lay_out(load(V3, [*words, f"schedule={schedule}"]))
    assert (laid.mirrored, laid.overlapped) == (mirrored, overlapped)
