"""The study's runs, arm by arm and seed by seed, on a run small enough for a CPU."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from hwmodels.refused import Refused  # noqa: E402
from numerics.training import study  # noqa: E402
from numerics.training.arms import ARMS, MAIN, SEEDS, SIDE, plan  # noqa: E402
from numerics.training.schedules import Ramp  # noqa: E402
from tests.numerics.training import small  # noqa: E402

SETTINGS = replace(small.SETTINGS, steps=2, micro_batches=Ramp(1, 1))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "rows.jsonl"
    first = study.main(SETTINGS, SETTINGS, small.corpus(), file, 0.4, lambda text: None)
    some = len(study.read(file))
    study.TIMED = 1
    second = study.main(SETTINGS, SETTINGS, small.corpus(), file, 1e9, lambda text: None)
    assert not first and second and 0 < some < len(study.read(file))
    return study.read(file)


def test_runs_over_another_corpus_are_no_pairs(rows, tmp_path):
    """The kept runs' data are another's: refused before anything runs, and times alone need no pair."""
    kept = [{**row, "corpus": "another"} for row in rows]
    file = tmp_path / "rows.jsonl"
    for what in (study.ALL, study.BEHIND):
        with pytest.raises(Refused, match=r"--corpus: the tokens' sha256 .* are of another: no pairs; .*--afresh"):
            study.main(SETTINGS, SETTINGS, small.corpus(), file, 1e9, lambda text: None, what, kept)
    assert not file.exists()
    study.main(SETTINGS, SETTINGS, small.corpus(), file, 0.0, lambda text: None, study.TIMES, kept)


def of(rows, kind):
    return [row for row in rows if row["kind"] == kind]


def test_every_arm_and_seed_is_there_once(rows):
    found = [(row["arm"], row["seed"]) for row in of(rows, "run")]
    assert found == [(arm.name, seed) for arm, seed in plan()]
    assert len(found) == SEEDS * len(MAIN) + len(SIDE)


def test_arms_of_a_seed_see_the_same_first_loss_and_differ_after(rows):
    """One weight an ulp away, or FP8, moves the first loss a little; another seed moves it a lot."""
    first = {(row["arm"], row["seed"]): row["losses"][0] for row in of(rows, "run")}
    assert abs(first["bf16", 0] - first["null", 0]) < 1e-3
    assert abs(first["bf16", 0] - first["fp8", 0]) < 2e-2
    assert abs(first["bf16", 0] - first["bf16", 1]) > 2e-2


def test_gradients_are_compared_at_every_checkpoint(rows):
    found = of(rows, "gradient")
    steps = sorted({row["step"] for row in found})
    assert steps == sorted({round(share * SETTINGS.steps) for share in study.CHECKPOINTS})
    at = {row["recipe"]: row["figures"]["all"] for row in found if row["step"] == steps[-1]}
    assert at["bf16"][1] > at["fp8"][1] + 5 and at["bf16"][0] > at["fp8"][0] > 0.9
    assert at["E5M2 gradients"][1] < at["fp8 as V3, emulated"][1]


def test_times_have_both_precisions(rows):
    assert {(row["precision"], row["recompute"]) for row in of(rows, "time")} == {
        ("bf16", False), ("bf16", True), ("fp8", True)
    }  # fmt: skip


def test_a_run_says_what_it_was_made_on(rows):
    made = [row for row in rows if row["kind"] != "about"]
    assert all(row["device"] == "cpu" and row["torch"] == torch.__version__ for row in made)
    assert {row["code"] for row in rows} == {study.code()}
    assert [row["kind"] for row in rows].count("about") == 2, "one a session"
    assert json.loads(json.dumps(rows)) == rows


def test_side_arms_name_what_they_are_against():
    assert all(arm.against in ARMS for arm in ARMS.values())
