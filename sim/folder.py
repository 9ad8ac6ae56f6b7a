"""Output folders that are complete or not there: written beside their place under another name, then moved in."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "result.json"
"""The file that tells a folder of ours, which may be replaced, from anybody else's, which may not."""


class FolderError(ValueError):
    """An output folder that cannot be used; its text is one line."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `path` at the end.

    When the block fails or is interrupted, nothing of it stays and what was at `path` before is untouched.
    Raises FolderError when `path` is a file, cannot be written, or is a folder that is not one of ours.
    """
    target = path.resolve()
    _check(target, path)
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        _remove_empty(missing)
        raise FolderError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        fresh = scratch / target.name  # inside, for mkdtemp's own folder is closed to other users
        fresh.mkdir()
        yield fresh
        _swap(fresh, target, scratch / "old")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(missing)


def _check(target: Path, path: Path) -> None:
    if target.is_dir():
        if target in (here := Path.cwd(), *here.parents):
            raise FolderError(f"{path}: is the working folder or above it; name a folder inside it with --out")
        if any(target.iterdir()) and not (target / MARK).is_file():
            raise FolderError(f"{path}: is not empty and has no {MARK}, so it is not replaced; name another with --out")
        return
    above = next(place for place in (target, *target.parents) if place.exists())
    if not above.is_dir():
        shown = path if above == target else above
        raise FolderError(f"{shown}: is a file; name a folder with --out")


def _swap(fresh: Path, target: Path, old: Path) -> None:
    """`fresh` to `target`; what was there goes to `old`, and comes back when the move fails or is interrupted."""
    had = target.exists()
    try:
        if had:
            os.rename(target, old)
        os.rename(fresh, target)
    except BaseException:
        if had and old.exists() and not target.exists():
            os.rename(old, target)
        raise


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, as far as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
