"""The phase table finds its figures in both places and adds up."""

import pytest

from reports import phases
from reports.headline import seconds
from tests.reports import sample


def test_both_places_are_read_and_ordered() -> None:
    columns = {"bubble": [1.0], "forward": [2.0], "novel": [3.0]}
    for summary in ({"phases_per_rank": columns}, {"phases_s": {"forward": 2.0, "phases_per_rank": columns}}):
        assert list(phases.per_rank(summary)) == ["forward", "bubble", "novel"]
    assert phases.per_rank({"phases_s": {"forward": 2.0}}) == {}


def test_a_row_a_position_and_their_mean() -> None:
    result = sample.result()
    made = phases.section(result)
    assert made is not None
    assert made.body.count("<tr>") == 1 + 1 + sample.RANKS
    forward = result.summary["phases_per_rank"]["forward"]
    assert seconds(sum(forward) / len(forward)) in made.body
    assert seconds(forward[3]) in made.body
    assert ">position 3</td>" in made.body and "rank" not in made.body
    assert "mean of its 128 ranks, which are alike." in made.lead


def test_where_ranks_differ_a_row_is_only_their_mean() -> None:
    made = phases.section(sample.differing())
    assert made is not None
    assert "mean of its 128 ranks; a rank's own can lie outside." in made.lead


def test_the_sample_adds_up_to_the_step() -> None:
    summary = sample.result().summary
    for rank in range(sample.RANKS):
        total = sum(column[rank] for column in summary["phases_per_rank"].values())
        assert total == pytest.approx(summary["step_time_s"])


def test_no_ranks_no_section() -> None:
    assert phases.section(sample.chunk_times()) is None
