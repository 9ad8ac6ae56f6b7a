"""Tables of pages in Markdown."""

from sim.result.markdown import table


def test_columns_but_the_first_are_numbers_unless_said() -> None:
    assert table(("a", "b"), [("x", "1")]) == "| a | b |\n| --- | --: |\n| x | 1 |"
    assert table(["a", "b"], iter([["x", "y"]]), ()) == "| a | b |\n| --- | --- |\n| x | y |"
