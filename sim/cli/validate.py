"""The command `validate`: predictions beside what was published."""

import sys

from sim.cli.command import DONE, Parser
from sim.cli.interleaving import interleaving
from sim.cli.runs import runs


def validate(words: list[str]) -> int:
    """A line a group goes to stderr (--all: a line a figure), Markdown and JSON to stdout; --write renews what a
    checkout records of predictions. --runs FILE.csv: training runs instead, see `sim.cli.runs`; --interleaving: bubbles
    of NVIDIA's controlled pairs by stages a position, see `sim.cli.interleaving`."""
    if "--runs" in words:
        return runs(words)
    if "--interleaving" in words:
        return interleaving(words)
    import json

    from sim.validation import beyond, page, records, table
    from sim.validation import predictions as validate

    parser = Parser()
    parser.add_argument("--format", choices=("text", "markdown", "json"), default="text")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(words)
    rows, left = validate.compare_all(), validate.unanswered()
    if args.format == "markdown":
        root = records.CHECKOUT
        print(page.page(rows, left, validate.readings(rows), records.runs(root), beyond.section(root)), end="")
    elif args.format == "json":
        open_figures = [figure._asdict() for figure in left]
        print(json.dumps({"rows": [table.plain(row) for row in rows], "unanswered": open_figures}, indent=1))
    else:
        from shutil import get_terminal_size

        width = get_terminal_size((120, 24)).columns
        print(table.text(rows, width) if args.all else table.overview(rows), file=sys.stderr)
        more = "" if args.all else "; --all prints each"
        print(f"\n{len(rows)} figures answered, {len(left)} not (see docs/VALIDATION.md){more}", file=sys.stderr)
    if args.write:
        moved = records.write(records.CHECKOUT, rows, validate.headlines(rows), left, validate.readings(rows))
        print(*moved, f"{len(moved)} predictions moved", sep="\n", file=sys.stderr)
        if moved:
            print("say so in CHANGELOG.md: a PREDICTION line with the step and the pair", file=sys.stderr)
    return DONE
