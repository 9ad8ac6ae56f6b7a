"""The command `cache`: what every model keeps of a token, in elements and in bytes."""

import sys

from sim.cli.command import DONE, PROG, Parser


def cache(words: list[str]) -> int:
    """The page goes to stdout; --write renews docs/CACHE.md of a checkout."""
    from sim.serving.cache_page import PAGE, page, write

    parser = Parser(prog=PROG, add_help=False)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args(words).write:
        write()
        print(f"written to {PAGE}", file=sys.stderr)
    else:
        print(page(), end="")
    return DONE
