"""The study's page is what its rows say, and says so whatever they are."""

import pytest

pytest.importorskip("torch")

from numerics.training import page
from numerics.training.analysis import Results, turn
from numerics.training.arms import MAIN, ORDERS, SIDE
from numerics.training.equivalence import DIFFERENT, EQUIVALENT


@pytest.fixture(scope="module")
def kept():
    return page.rows()


def test_the_page_in_the_repository_is_of_the_rows_in_it(kept):
    results = Results(kept)
    assert page.PAGE.read_text(encoding="utf-8") == page.page(results)
    for file, text in page.drawings(results).items():
        assert file.read_text(encoding="utf-8") == text


def test_every_main_arm_has_four_pairs_of_sixty_million_tokens(kept):
    results = Results(kept)
    assert all(results.seeds(arm.name) == [0, 1, 2, 3] for arm in MAIN)
    assert all(row["tokens"] > 60e6 and row["parameters"] >= 18e6 for row in results.of("run"))


def moved(kept, factor):
    """The rows as if FP8 were BF16 times a factor, a hair apart from seed to seed."""
    base = Results(kept).runs
    for row in kept:
        if row["kind"] == "run" and row["arm"] in ("fp8", "null"):
            scale = (factor if row["arm"] == "fp8" else 1.0) * (1 + 1e-5 * row["seed"])
            losses = [scale * loss for loss in base["bf16", row["seed"]]["losses"]]
            last = scale * base["bf16", row["seed"]]["last_fifth"]
            yield {**row, "losses": losses, "last_fifth": last, "held": {**row["held"], "loss": last}}
        else:
            yield row


@pytest.mark.parametrize("factor, verdict", [(1.001, EQUIVALENT), (1.01, DIFFERENT)])
def test_the_verdict_follows_the_rows(kept, factor, verdict):
    text = page.page(Results(list(moved(kept, factor))))
    assert f"**{verdict}**" in " ".join(text.split())


def behind(kept, factor):
    """The rows, with FP8 behind the turn as BF16's times a factor, a hair apart from order to order."""
    base = Results(kept).behind.runs
    for row in kept:
        if row["kind"] == "behind" and row["arm"] == "fp8":
            own = base["bf16", row["seed"]]
            scale = factor * (1 + 1e-5 * row["seed"])
            losses = [scale * loss for loss in own["losses"]]
            yield {**row, "losses": losses, "last_fifth": scale * own["last_fifth"], "held": own["held"]}
        else:
            yield row


@pytest.mark.parametrize("factor, verdict, cost", [(1.001, EQUIVALENT, True), (1.01, DIFFERENT, True),
                                                   (0.999, EQUIVALENT, False)])  # fmt: skip
def test_the_verdict_behind_the_turn_follows_the_rows(kept, factor, verdict, cost):
    text = page.page(Results(list(behind(kept, factor)))).split("## Behind the turn")[1].split("\n## ")[0]
    assert f"**{verdict}**" in " ".join(text.split())
    assert ("FP8 has a cost" in " ".join(text.split())) is cost


def test_side_arms_behind_the_turn_are_held_against_chaos(kept):
    rows = [row for row in kept if row["kind"] != "behind" or row["arm"] not in {arm.name for arm in SIDE}]
    fp8 = Results(rows).behind.runs["fp8", ORDERS]
    far = {**fp8, "arm": "FP32 moments", "last_fifth": 1.01 * fp8["last_fifth"]}
    near = {**fp8, "arm": "balance by a loss"}
    text = " ".join(page.page(Results([*rows, far, near])).split())
    assert "outside of it: FP32 moments." in text
    assert "FP32 moments behind the turn" not in text and "E5M2 gradients behind the turn (order 10)" in text


def test_without_runs_behind_the_turn_the_page_says_so(kept):
    text = page.page(Results([row for row in kept if row["kind"] != "behind"]))
    assert "Not run: no device time" in text


def test_rows_of_a_later_session_are_named_so(kept):
    """A side arm of other code beside a run of the first, and times again: the ratio is that of the last session."""
    seed0 = next(row for row in kept if row["kind"] == "run" and row["arm"] == "fp8" and row["seed"] == 0)
    again = [{**row, "step_ms": row["step_ms"] * (0.5 if row["precision"] == "fp8" else 1)}
             for row in kept if row["kind"] == "time"]  # fmt: skip
    later = [{**kept[0], "commit": None, "code": "abcdef012345"}, {**seed0, "arm": "FP32 moments"}, *again]
    text = " ".join(page.page(Results([*kept, *later])).split())
    number = len(Results(kept).sessions()) + 1
    assert f"Session {number}: 1 runs, 6 times of a step" in text and "digest abcdef012345" in text
    assert f"| FP32 moments (session {number}) | fp8 |" in text
    assert f"(235 M) (session {number}) | fp8" in text and f"of BF16's speed (session {number})." in text
    assert "Session" not in page.page(Results(kept))


def test_a_turn_is_where_the_loss_falls_below_it():
    assert turn({"losses": [3.0, 2.5, 1.9, 1.8]}) == 50.0 and turn({"losses": [3.0, 2.5]}) is None
