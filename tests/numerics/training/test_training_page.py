"""The study's page is what its rows say, and says so whatever they are."""

import pytest

pytest.importorskip("torch")

from numerics.training import page
from numerics.training.analysis import Results, turn
from numerics.training.arms import MAIN
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


def behind(kept, factor=1.001):
    """A later session: the main arms as if they had begun behind the turn, FP8 a factor from BF16."""
    main = {arm.name for arm in MAIN}
    rows = [{**row, "kind": "behind"} for row in moved(kept, factor) if row["kind"] == "run" and row["arm"] in main]
    return [{**kept[0], "commit": "1234567"}, *rows]


def test_runs_behind_the_turn_have_a_verdict_of_their_own(kept):
    first = page.page(Results(kept))
    for factor, verdict in ((1.001, EQUIVALENT), (1.01, DIFFERENT)):
        text = " ".join(page.page(Results([*kept, *behind(kept, factor)])).split())
        assert "Not run: no device time" not in text
        assert f"**{verdict}**" in text.split("## Behind the turn")[1].split("## Side arms")[0]
        assert "Session 2: 12 runs behind the turn" in text and "code of 1234567" in text
    assert "1234567" not in first and "Session 2" not in first


def test_rows_of_another_session_are_named_so(kept):
    """A side arm of other code beside a run of the first, and times again: the ratio is that of the last session."""
    seed0 = next(row for row in kept if row["kind"] == "run" and row["arm"] == "fp8" and row["seed"] == 0)
    again = [{**row, "step_ms": row["step_ms"] * (0.5 if row["precision"] == "fp8" else 1)}
             for row in kept if row["kind"] == "time"]  # fmt: skip
    later = [{**kept[0], "commit": None, "code": "abcdef012345"}, {**seed0, "arm": "FP32 moments"}, *again]
    text = " ".join(page.page(Results([*kept, *later])).split())
    assert "| FP32 moments (session 2) | fp8 |" in text and "digest abcdef012345" in text
    assert "(235 M) (session 2) | fp8" in text and "1.64 and 1.72 of BF16's speed (session 2)." in text
    assert "casts cost more than products save" not in text


def test_rows_belong_to_the_line_before_them(kept):
    results = Results([*kept, *behind(kept)])
    assert [len(rows) for _, rows in results.sessions()] == [len(kept) - 1, 12]
    assert results.session(results.rows[1]) == 0 and results.session(results.rows[-1]) == 1


def test_a_turn_is_where_the_loss_falls_below_it():
    assert turn({"losses": [3.0, 2.5, 1.9, 1.8]}) == 50.0 and turn({"losses": [3.0, 2.5]}) is None
