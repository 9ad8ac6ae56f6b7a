"""The pieces of HTML that sections share escape what they are given."""

from reports import section


def test_tables_mark_numbers_and_escape_heads() -> None:
    text = section.table(("a<b", "n"), [("x", "1")])
    assert "<th>a&lt;b</th>" in text and '<th class="n">n</th>' in text and '<td>x</td><td class="n">1</td>' in text


def test_cells_of_many_columns_say_which_they_are() -> None:
    """A narrow page stacks them below each other, where no head is above them."""
    wide = section.table("abcde", ["12345"])
    words = section.table(("part", "time", "share", "meaning"), ["1234"], (0, 3))
    assert '<td class="n" data-head="e">5</td>' in wide and '<td data-head="meaning">4</td>' in words
    assert "stacked" in wide and "stacked" in words and "stacked" not in section.table("abcd", ["1234"])


def test_bars_stay_in_their_cell() -> None:
    assert "width:100.0%" in section.bar(3.0, "#000000")
    assert "width:0.0%" in section.bar(-1.0, "#000000")
    assert "width:25.0%" in section.bar(0.25, "#000000")


def test_legends_and_labels_are_escaped() -> None:
    assert "a &amp; b" in section.legend([("a & b", "#123456")])
    assert "&quot;" in section.plot("x", 'say "x"')


def test_buttons_have_names() -> None:
    text = section.controls("x", "step")
    assert 'aria-label="earlier"' in text and 'aria-label="later"' in text
    assert ">Whole step<" in text and text.count("<button") == 5
