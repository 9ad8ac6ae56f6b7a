"""Pages that a command writes into a folder, which may hold other things: what is not ours is never replaced."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hwmodels.refused import Refused
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
