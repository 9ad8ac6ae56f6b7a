"""Tables of published rows off the pages that have them, and pages that are older than what is published."""

from pathlib import Path

import pytest

from hwmodels.refused import Refused
from sim.serving.rows import compared
from sim.validation import beyond, records

SERVED, STEPS, CAMPAIGNS = beyond.SOURCES
OLD = f"text\n{SERVED.under}\nmore\n\n| row | off by |\n| --- | --: |\n| DS-PROF-PF | +5.2% |\n\n| other |\n"


def test_the_section_has_every_row_of_every_page() -> None:
    """Served rows as `python -m sim serving` computes them, near ones counted as its page does."""
    section = beyond.section(records.CHECKOUT)
    for each in compared():
        assert f"| {each.row['id']} |" in section
    near = [each for each in compared() if each.row["reading"] != "gain" and abs(each.error) < 0.1]
    assert f"| {len(near)} of {len(compared()) - 3} |" in section
    assert all(f"### {source.title}" in section for source in beyond.SOURCES)


def test_a_page_that_lacks_a_published_row_is_refused() -> None:
    with pytest.raises(Refused, match="published row DS-PROF-DC is not there; write it again: python -m sim serving"):
        beyond.table(OLD, SERVED)
    with pytest.raises(Refused, match="no table under '## Published steps beside ours'"):
        beyond.table(OLD, STEPS)


def test_errors_are_read_as_pages_write_them() -> None:
    """Of gains, which are off by points, none."""
    lines = [
        "| row | off |",
        "|---|--:|",
        "| a | +5.2% |",
        "| b | \N{MINUS SIGN}10.2 % |",
        "| c | +3 points |",
        "| d | 0 % |",
    ]
    assert beyond.errors(lines, "off") == [5.2, 10.2, 0.0]


def test_a_checkout_without_such_pages_has_no_section(tmp_path: Path) -> None:
    assert beyond.section(tmp_path) == ""
