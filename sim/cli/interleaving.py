"""`python -m sim validate --interleaving`: interleaving against 1F1B beside its closed form."""

from sim.cli import pages
from sim.cli.command import DONE, Parser


def interleaving(words: list[str]) -> int:
    """The table goes to stdout; --write renews it in docs/SCHEDULES.md."""
    from sim.validation import interleaving as tables
    from sim.validation import records

    parser = Parser()
    parser.add_argument("--interleaving", action="store_true")
    parser.add_argument("--write", action="store_true")
    args, page = parser.parse_args(words), records.CHECKOUT / tables.PAGE
    if args.write:
        pages.of_checkout(page)
    table_rows = list(tables.table())
    print(tables.markdown(table_rows))
    if args.write:
        page.write_text(tables.renewed(page.read_text(encoding="utf-8"), table_rows), encoding="utf-8")
    return DONE
