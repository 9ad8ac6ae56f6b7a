"""What is shown of rows: text, Markdown, the page, the chart, and the records of a checkout."""

import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.validation import chart, page, records, table
from sim.validation.row import Row, Unanswered

ROWS = [
    Row("a", "step <of> all & sundry", 18.26, 20.0, "s", "paper", "first", 17.0, 19.0, headline=True),
    Row("b", "rate", 2000.0, 1900.0, "TFLOP/s", "paper", "first", 1800.0, 2200.0, "partly", "its kernels are"),
    Row("c", "count", 8.0, 8.0, "", "other", "second"),
]
LEFT = [Unanswered("x", "loss", "it is not simulated"), Unanswered("y", "cost", "it is not simulated")]
README = f"# Title\n\n{records.START}old\n{records.END.lstrip()}\ntext\n"


def test_errors_and_intervals():
    assert [table.error(row) for row in ROWS] == ["-8.7%", "+5.3%", "+0.0%"]
    assert [row.inside for row in ROWS] == [False, True, None]
    assert table.interval(ROWS[1]) == "1,800 to 2,200" and table.interval(ROWS[2]) == ""
    assert table.used(ROWS[1]) == "partly: its kernels are"


def test_nothing_has_no_sign():
    assert table.error(ROWS[2]._replace(predicted=8.0 - 1e-9)) == "+0.0%"


def test_sums_leave_inputs_out():
    first, second = table.sums(ROWS)
    assert first == ("first", 2, 1, pytest.approx(0.087), 2, 1)
    assert second == ("second", 1, 1, 0.0, 0, 0)


@given(st.integers(20, 200))
def test_text_fits_the_terminal_or_the_least_that_can_be_read(width):
    lines = table.text(ROWS, width).splitlines()
    assert max(map(len, lines)) <= max(width, table.NAME + 40)
    assert lines[1].startswith("step <of>") and "18.26" in lines[1] and "-8.7%" in lines[1]


def test_wide_text_shows_the_interval():
    assert "17 to 19" in table.text(ROWS, 120) and "17 to 19" not in table.text(ROWS, 70)


def test_the_page_has_every_row_and_every_gap():
    text = page.page(ROWS, LEFT)
    assert all(f"| {row.id} |" in text for row in (*ROWS, *LEFT))
    assert "3 figures are answered, 2 are not." in text
    assert "| first | 2 | 1 | 8.7% | 1 of 2 |" in text
    assert "- 2 because it is not simulated" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_the_chart_is_xml_with_a_dot_a_row():
    root = ElementTree.fromstring(chart.chart(ROWS))
    dots = [node for node in root.iter() if node.tag.endswith("circle")]
    assert len(dots) == len(ROWS) + len(chart.MEANING)
    assert "step <of> all & sundry" in [node.text for node in root.iter()]


def test_the_chart_is_logarithmic_and_ends_at_its_axis():
    at, ticks = chart.AXIS.at, chart.AXIS.ticks
    assert at(2) - at(1) == pytest.approx(at(1) - at(0.5), abs=0.11)
    assert at(1e-3) == at(0) == at(ticks[0]) and at(99) == at(ticks[-1])


def test_inputs_are_hollow():
    used = ROWS[2]._replace(input="yes")
    assert chart.chart([used]).count(f'fill="{chart.PAPER}" stroke') == 2  # the legend's and the row's


def test_json_is_plain():
    assert json.loads(json.dumps(table.plain(ROWS[0])))["interval_90"] == [17.0, 19.0]
    assert table.plain(ROWS[2])["interval_90"] is None


def test_what_moved_is_told():
    before = {"a": 18.26, "b": 1999.0, "gone": 1.0}
    assert records.differences(before, records.golden(ROWS)) == [
        "b: 1999.0 -> 2000.0",
        "c: new -> 8.0",
        "gone: 1.0 -> gone",
    ]


def test_four_digits_are_kept():
    assert records.golden([ROWS[0]._replace(predicted=18.2649)]) == {"a": 18.26}


def test_writing_renews_all_records(tmp_path):
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "pyproject.toml").touch()
    assert records.write(tmp_path, ROWS, ROWS[:1], LEFT) == ["a: new -> 18.26", "b: new -> 2000.0", "c: new -> 8.0"]
    assert records.write(tmp_path, ROWS, ROWS[:1], LEFT) == []
    readme = (tmp_path / "README.md").read_text()
    assert table.markdown(ROWS[:1]) in readme and "old" not in readme and readme.endswith("text\n")
    assert (tmp_path / "docs" / "VALIDATION.md").read_text() == page.page(ROWS, LEFT)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no README.md and pyproject.toml here; --write needs a checkout of the source"),
        ({"README.md": "#", "pyproject.toml": ""}, "the marks <!-- validate --> and <!-- /validate --> are missing"),
    ],
)
def test_a_place_that_is_no_checkout_is_refused_untouched(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Refused, match=re.escape(message)) as error:
        records.write(tmp_path, ROWS, ROWS[:1], LEFT)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files
