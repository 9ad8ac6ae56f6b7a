"""Output folders: what a run writes replaces what an older run wrote, whole or not at all, and nothing of anybody else.

The result of a run has a digest of each file beside it. A file of that name with another content is somebody else's.

New files are written beside the folder under a hidden name first. That scratch folder is locked as long as its run
lives; one that nobody holds is of a run that was killed, and the next run beside it clears it up.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from hwmodels.refused import Refused

MARK = "result.json"
"""The file that tells a folder of ours from anybody else's, by MARKED: a file of that name alone says nothing."""
MARKED = ("schema_version", "scenario_hash")
LISTED = "files"
"""Key of the mark: name -> digest of each file that came with it. Marks of runs before had none, and then files go by
their names."""
DIGEST_BYTES = 16

SCRATCH = ".trainyard-"
"""In the name of a scratch folder, after that of the folder it is for: `.v3.trainyard-x1y2z3`."""
FRESH, LEAVING, OLD = "fresh", "leaving", "old"
"""What a scratch folder has: what a run writes; what leaves its place; and the same once all of it has left."""


@contextmanager
def replacing(path: Path, ours: Sequence[str]) -> Iterator[Path]:
    """An empty folder to write into; at the end its files take the place of those that an older run wrote to `path`.

    ours: patterns of the files that runs write, such as `trace/*.gz`; the mark is one of them. Other files in `path`
    stay as they are. When the block fails or is interrupted, nothing of it stays and `path` is as it was.
    Raises Refused when `path` is a file, cannot be written, or has something in it and no result of ours, or a file
    that no run wrote where this one would put its own.
    """
    target = path.resolve()
    with ExitStack() as undone:
        with writing(path):
            sweep(target.parent, ours)
            _check(target, path)
            made = [place for place in (target, *target.parents) if not place.exists()]
            undone.callback(_remove_empty, made)
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}{SCRATCH}", dir=target.parent))
            undone.callback(shutil.rmtree, scratch, ignore_errors=True)
            undone.enter_context(_locked(scratch))
            (scratch / FRESH).mkdir()
        yield scratch / FRESH
        with writing(path):
            target.mkdir(exist_ok=True)
            with _locked(target):
                _check_content(target, path)
                _replace(scratch, target, ours)
        made.clear()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside it, what the system does not let us write is refused as `path`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Refused(f"cannot be written: {error.strerror or error}", str(path)) from None


def listed(folder: Path) -> dict[str, str]:
    """Name -> digest of every file in `folder`, for the mark."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(files)}


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=DIGEST_BYTES).hexdigest()


def _mark(folder: Path) -> dict[str, Any]:
    """What the mark of a run of ours in `folder` says; nothing where there is none."""
    try:
        content = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and all(key in content for key in MARKED) else {}


def sweep(parent: Path, ours: Sequence[str]) -> None:
    """Clear up what killed runs left in `parent`: a folder that was half replaced gets its older files back."""
    for scratch in parent.glob(f".*{SCRATCH}*"):
        with suppress(OSError):
            inside = {each.name for each in scratch.iterdir()}
            if scratch.is_symlink() or FRESH not in inside or inside - {FRESH, LEAVING, OLD}:
                continue
            with _locked(scratch, now=True):
                target = parent / scratch.name[1:].rpartition(SCRATCH)[0]
                if not (target / MARK).exists() and (scratch / FRESH / MARK).exists():
                    _restore(scratch, target, ours)
                shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _locked(folder: Path, now: bool = False) -> Iterator[None]:
    """Inside it, `folder` is locked as far as its file system can; the system lets go of it when we die.

    now: OSError where somebody else holds it or nobody can say; else wait for them.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with nullcontext() if now else suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if now else 0))
        yield
    finally:
        os.close(handle)


def _check(target: Path, path: Path) -> None:
    if target.is_dir():
        if target in (here := Path.cwd(), *here.parents):
            raise Refused("is the working folder or above it; name a folder inside it with --out", str(path))
        with _locked(target):  # two runs to one folder take turns
            _check_content(target, path)
        return
    above = next(place for place in (target, *target.parents) if place.exists())
    if not above.is_dir():
        shown = path if above == target else above
        raise Refused("is a file; name a folder with --out", str(shown))


def _check_content(target: Path, path: Path) -> None:
    if any(target.iterdir()) and not _mark(target):
        what = f"is not empty and has no {MARK} of a run, so nothing in it is replaced; name another with --out"
        raise Refused(what, str(path))


def _files(folder: Path, ours: Sequence[str]) -> list[Path]:
    """Files of ours in `folder`, relative to it, the mark last."""
    paths = (path for pattern in ours for path in folder.glob(pattern) if path.is_file() or path.is_symlink())
    inside = (path.relative_to(folder) for path in paths if path.parent == folder or not path.parent.is_symlink())
    return sorted(inside, key=lambda path: (str(path) == MARK, path))


def _of(mark: Mapping[str, Any], folder: Path, ours: Sequence[str]) -> list[Path]:
    """Files of ours in `folder` that came with a mark: those that are as it says, and the mark."""
    known = mark.get(LISTED)
    if not isinstance(known, dict):
        return _files(folder, ours)
    return [
        file for file in _files(folder, ours)
        if str(file) == MARK or ((folder / file).is_file() and known.get(file.as_posix()) == _digest(folder / file))
    ]  # fmt: skip


def _replace(scratch: Path, target: Path, ours: Sequence[str]) -> None:
    """Files of ours in `target` go, the mark first; fresh ones come, the mark last. When that fails or is interrupted,
    all is put back. Raises Refused where a file that is not ours is in the way of one."""
    old = _of(_mark(target), target, ours)
    if theirs := sorted({*_files(target, ours)} - {*old} & {*_files(scratch / FRESH, ours)}):
        what = "is not as a run of ours wrote it, so it is not replaced; move it, or name another folder with --out"
        raise Refused(what, str(target / theirs[0]))
    try:
        (scratch / LEAVING).mkdir()
        for file in reversed(old):
            _move(file, target, scratch / LEAVING)
        os.rename(scratch / LEAVING, scratch / OLD)
        for file in _files(scratch / FRESH, ours):
            _move(file, scratch / FRESH, target)
    except BaseException:
        _restore(scratch, target, ours)
        raise


def _restore(scratch: Path, target: Path, ours: Sequence[str]) -> None:
    """`target` as it was before a replacement that did not end."""
    if (scratch / OLD).is_dir():
        for file in _of(_mark(scratch / FRESH), target, ours):
            _move(file, target, scratch / FRESH)
    for place in (scratch / OLD, scratch / LEAVING):
        for file in _files(place, ours):
            _move(file, place, target)


def _move(file: Path, source: Path, target: Path) -> None:
    """Move `file` between folders, with the folder inside them that it lies in."""
    inner = target / file.parent
    if inner != target and inner.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, f"{file.parent} is a link to another folder")
    inner.mkdir(parents=True, exist_ok=True)
    os.rename(source / file, target / file)
    if file.parent != Path():
        with suppress(OSError):
            (source / file.parent).rmdir()


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, as far as they are there and empty."""
    with suppress(OSError):
        for folder in folders:
            if folder.exists():
                folder.rmdir()
