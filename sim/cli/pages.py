"""Pages that a command writes into a folder, which may hold other things: what is not ours is never replaced."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hwmodels.refused import Refused
from sim.cli.command import DONE, Parser
from sim.result.folder import writing


class Page(NamedTuple):
    """A file to write. mark: what a file of ours holds, and one of another program does not."""

    text: str
    mark: str


def check(folder: Path, marks: Mapping[str, str]) -> None:
    """Refuse where a file in `folder` has one of these names and not its mark. Raises Refused."""
    if folder.exists() and not folder.is_dir():
        raise Refused("is a file; name a folder with --out", str(folder))
    for name, mark in marks.items():
        place = folder / name
        with writing(place):
            if place.exists() and (not place.is_file() or mark not in place.read_text("utf-8", "replace")):
                raise Refused("is no file of ours and would be replaced; name another folder with --out", str(place))


def write(folder: Path, pages: Mapping[str, Page]) -> None:
    """Write files into `folder`, each whole or not at all. Raises Refused."""
    check(folder, {name: page.mark for name, page in pages.items()})
    for name, page in pages.items():
        with writing(folder / name):
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".{name}.{os.getpid()}.part"
            part.write_text(page.text, encoding="utf-8")
            os.replace(part, folder / name)


def deliver(
    args: argparse.Namespace, marks: Mapping[str, str], page: str, data: str, show: Callable[[], None],
    notes: Iterable[str] = (),
) -> int:  # fmt: skip
    """Write an answer's page and its JSON into --out, and tell it: as JSON where `--format` says so, else by `show`
    unless quiet. marks: name -> mark of both. notes: lines for stderr. Raises Refused."""
    write(args.out, {name: Page(text, marks[name]) for name, text in zip(marks, (page, data), strict=True)})
    if args.format == "json":
        sys.stdout.write(data)
    elif not args.quiet:
        show()
    for line in notes:
        print(line, file=sys.stderr)
    if not args.quiet:
        print(f"written to {args.out / next(iter(marks))}", file=sys.stderr)
    return DONE


def of_checkout(page: Path) -> None:
    """Raises Refused for a page of docs/ that is not there: an installed package has none to renew."""
    if not page.is_file():
        raise Refused("is not here; --write renews it in a checkout", str(page))


def document(words: Sequence[str], place: Path, page: Callable[[], str]) -> int:
    """A command that prints a page of docs/; --write renews the page in a checkout instead."""
    parser = Parser()
    parser.add_argument("--write", action="store_true")
    return renewed(place, page, parser.parse_args(words).write)


def renewed(place: Path, page: Callable[[], str], write: bool) -> int:
    """A page of docs/ on stdout, or in its place."""
    if write:
        of_checkout(place)
        place.write_text(page(), encoding="utf-8")
        print(f"written to {place}", file=sys.stderr)
    else:
        print(page(), end="")
    return DONE
