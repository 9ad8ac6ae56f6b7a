"""Programs a person can read, tests/golden/programs/<name>_<ranks>x<micro-batches>.txt, held against what is built.

UPDATE_GOLDENS=1 in the environment writes them anew; read the difference before it goes in.
"""

import os
from pathlib import Path

import pytest

from sim.schedules.program import Shape, build, check, names
from tests.oracles.programs import parse, text

FOLDER = Path(__file__).parents[2] / "golden" / "programs"
CASES = [
    ("gpipe", 4, 6),
    ("1f1b", 4, 6),
    ("zb1p", 4, 8),
    ("interleaved", 2, 4),
    ("interleaved", 4, 8),
    ("dualpipe", 4, 8),
    ("dualpipe", 8, 20),
    ("dualpipev", 2, 4),
    ("dualpipev", 4, 10),
]


@pytest.mark.parametrize(("name", "ranks", "micro_batches"), CASES)
def test_golden(name, ranks, micro_batches):
    program = build(name, Shape(ranks, micro_batches))
    path = FOLDER / f"{name}_{ranks}x{micro_batches}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(text(program), encoding="utf-8")
    golden = path.read_text(encoding="utf-8")
    assert text(program) == golden
    assert parse(golden) == program
    check(parse(golden))


def test_every_schedule_has_a_golden_and_no_golden_is_left_over():
    assert {name for name, *_ in CASES} == set(names())
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}_{p}x{m}.txt" for name, p, m in CASES}
