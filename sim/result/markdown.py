"""Tables of pages that a program makes, in Markdown."""

from collections.abc import Collection, Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] | None = None) -> str:
    """Cells as text; `numbers`: columns that are set to the right, all but the first unless said."""
    right = range(1, len(head)) if numbers is None else numbers
    rule = ["--:" if column in right else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))
