"""Output folders that are complete or not there: written beside their place under another name, then moved in."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hwmodels.refused import Refused

MARK = "result.json"
"""The file that tells a folder of ours, which may be replaced, from anybody else's, which may not."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `path` at the end.

    When the block fails or is interrupted, nothing of it stays and what was at `path` before is untouched.
    Raises Refused when `path` is a file, cannot be written, or is a folder that is not one of ours.
    """
    target = path.resolve()
    with ExitStack() as undone:
        with writing(path):
            _check(target, path)
            undone.callback(_remove_empty, [parent for parent in target.parents if not parent.exists()])
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            undone.callback(shutil.rmtree, scratch, ignore_errors=True)
            fresh = scratch / target.name  # inside, for mkdtemp's own folder is closed to other users
            fresh.mkdir()
        yield fresh
        with writing(path):
            _swap(fresh, target, scratch / "old")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside it, what the system does not let us write is refused as `path`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Refused(f"cannot be written: {error.strerror or error}", str(path)) from None


def _check(target: Path, path: Path) -> None:
    if target.is_dir():
        if target in (here := Path.cwd(), *here.parents):
            raise Refused("is the working folder or above it; name a folder inside it with --out", str(path))
        if any(target.iterdir()) and not (target / MARK).is_file():
            raise Refused(f"is not empty and has no {MARK}, so it is not replaced; name another with --out", str(path))
        return
    above = next(place for place in (target, *target.parents) if place.exists())
    if not above.is_dir():
        shown = path if above == target else above
        raise Refused("is a file; name a folder with --out", str(shown))


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
