"""Folders of runs: ours are replaced whole or not at all, what is not ours stays, and what killed runs left goes."""

import json
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest

from hwmodels.refused import Refused
from sim.result import archive, folder
from sim.result.folder import replacing

MARK = {"schema_version": 1, "scenario_hash": "ab"}
FOREIGN = {
    "notes.txt": "mine",
    "model/weights.ckpt": "days of work",
    "trace/mine.json.gz": "a profile",
    "trace/rank.txt": "",
}


def put(place: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


def run(number: int, more: bool = True) -> dict[str, str]:
    """Files of a run; the first has some that the second lacks."""
    files = {"scenario.yaml": f"seed: {number}", "trace/rank0000.json.gz": f"bars {number}"}
    files |= {"report.html": f"page {number}", "trace/rank0001.json.gz": f"bars {number}"} if more else {}
    return files | {"result.json": json.dumps(MARK | {"seed": number})}


def write(place: Path, files: dict[str, str]) -> None:
    with replacing(place, archive.FILES) as fresh:
        put(fresh, files)


def content(place: Path) -> dict[str, str]:
    return {path.relative_to(place).as_posix(): path.read_text() for path in place.rglob("*") if path.is_file()}


def hidden(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.name.startswith(".")]


def test_only_what_a_run_wrote_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "o", run(1))
    put(tmp_path / "o", FOREIGN)
    write(tmp_path / "o", run(2, more=False))
    assert content(tmp_path / "o") == run(2, more=False) | FOREIGN and hidden(tmp_path) == []


def told(number: int, more: bool = True) -> dict[str, str]:
    """Files of a run whose result lists them."""
    files = run(number, more)
    known = {name: blake2b(text.encode(), digest_size=16).hexdigest() for name, text in files.items()}
    return files | {"result.json": json.dumps(MARK | {"seed": number, "files": known})}


def test_a_file_that_no_run_wrote_stays_also_under_the_name_of_one(tmp_path: Path) -> None:
    write(tmp_path / "o", told(1))
    put(tmp_path / "o", {"links.csv": "by hand"})
    write(tmp_path / "o", told(2))
    assert content(tmp_path / "o") == told(2) | {"links.csv": "by hand"}


@pytest.mark.parametrize("name", ["report.html", "scenario.yaml", "trace/rank0001.json.gz"])
def test_a_file_that_somebody_changed_is_not_replaced_but_told(tmp_path: Path, name: str) -> None:
    """Where the next run writes none of that name it stays; where it does, nothing is written."""
    write(tmp_path / "o", told(1))
    put(tmp_path / "o", {name: "changed"})
    if name in told(2, more=False):
        with pytest.raises(Refused, match=f"{name}: is not as a run of ours wrote it, so it is not replaced; move it"):
            write(tmp_path / "o", told(2, more=False))
        assert content(tmp_path / "o") == told(1) | {name: "changed"}
    else:
        write(tmp_path / "o", told(2, more=False))
        assert content(tmp_path / "o") == told(2, more=False) | {name: "changed"}
    with pytest.raises(Refused, match=f"{name}: is not as a run of ours wrote it"):
        write(tmp_path / "o", told(3))
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("theirs", ['{"metric": 0.9}', "[1]", "{half", '{"schema_version": 1}', "[" * 9999, "\udcff"])
def test_a_result_of_somebody_else_is_no_mark(tmp_path: Path, theirs: str) -> None:
    put(tmp_path / "d", {"model.ckpt": "w"})
    (tmp_path / "d" / "result.json").write_bytes(theirs.encode(errors="surrogateescape"))
    with pytest.raises(Refused, match=r"is not empty and has no result.json of a run, so nothing in it is replaced"):
        write(tmp_path / "d", run(1))
    assert (tmp_path / "d" / "result.json").read_bytes() == theirs.encode(errors="surrogateescape")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["model.ckpt", "result.json"]


@pytest.mark.parametrize("theirs", ["report.html/deep/thesis.tex", "trace"])
def test_a_folder_in_the_way_is_refused_and_all_is_put_back(tmp_path: Path, theirs: str) -> None:
    first = {name: text for name, text in run(1).items() if not name.startswith(theirs.split("/")[0])}
    write(tmp_path / "o", first)
    put(tmp_path / "o", {theirs: "x"})
    with pytest.raises(Refused, match="cannot be written"):
        write(tmp_path / "o", run(2))
    assert content(tmp_path / "o") == first | {theirs: "x"} and hidden(tmp_path) == []


def test_a_link_to_another_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "o", {"result.json": run(1)["result.json"]})
    put(tmp_path / "theirs", {"rank0000.json.gz": "a profile"})
    (tmp_path / "o" / "trace").symlink_to(tmp_path / "theirs")
    with pytest.raises(Refused, match="cannot be written"):
        write(tmp_path / "o", run(2))
    assert content(tmp_path / "theirs") == {"rank0000.json.gz": "a profile"}
    assert json.loads((tmp_path / "o" / "result.json").read_text())["seed"] == 1


def stopped_at(call: int, stop: Callable[[], None]) -> Callable[..., None]:
    """os.rename that stops at its call of that number, counted from 0."""
    rename, calls = os.rename, iter(range(1000))

    def renaming(source: object, target: object) -> None:
        if next(calls) == call:
            stop()
        rename(source, target)  # type: ignore[arg-type]

    return renaming


def interrupt() -> None:
    raise KeyboardInterrupt


RENAMES = 10
"""Of run(2, more=False) over run(1): five files go, three come, and a folder gets another name."""


@pytest.mark.parametrize("call", range(RENAMES))
def test_an_interrupted_replacement_leaves_foreign_files_of_our_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    write(tmp_path / "o", told(1))
    put(tmp_path / "o", {"links.csv": "by hand"})
    monkeypatch.setattr(os, "rename", stopped_at(call, interrupt))
    if call < RENAMES - 1:
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "o", told(2, more=False))
    else:
        write(tmp_path / "o", told(2, more=False))
    assert content(tmp_path / "o") == told(1 + call // (RENAMES - 1), call < RENAMES - 1) | {"links.csv": "by hand"}


@pytest.mark.parametrize("call", range(RENAMES))
def test_an_interrupted_replacement_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    write(tmp_path / "o", run(1))
    put(tmp_path / "o", FOREIGN)
    monkeypatch.setattr(os, "rename", stopped_at(call, interrupt))
    if call < RENAMES - 1:
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "o", run(2, more=False))
    else:
        write(tmp_path / "o", run(2, more=False))  # which shows that all calls were tried
    assert content(tmp_path / "o") == (run(1) if call < RENAMES - 1 else run(2, more=False)) | FOREIGN
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("call", range(RENAMES))
def test_what_a_killed_run_left_is_cleared_up_by_the_next(tmp_path: Path, call: int) -> None:
    """Whatever the moment: the older run is there again, and nothing hidden stays."""
    write(tmp_path / "o", run(1))
    put(tmp_path / "o", FOREIGN)
    child = os.fork()
    if not child:
        os.rename = stopped_at(call, lambda: os._exit(9))
        write(tmp_path / "o", run(2, more=False))
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(hidden(tmp_path)) == (0 if call == RENAMES - 1 else 1)
    write(tmp_path / "other", run(3))
    assert hidden(tmp_path) == []
    assert content(tmp_path / "o") == (run(2, more=False) if call == RENAMES - 1 else run(1)) | FOREIGN


def test_scratch_of_a_run_that_lives_and_of_others_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, {".o.trainyard-notes/mine.txt": "x", ".cache/x": "x"})
    with replacing(tmp_path / "o", archive.FILES) as fresh:
        write(tmp_path / "other", run(2))
        assert fresh.is_dir()
        put(fresh, run(1))
    assert content(tmp_path / "o") == run(1)
    assert sorted(hidden(tmp_path)) == [".cache", ".o.trainyard-notes"]


def test_a_new_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a" / "b", archive.FILES) as fresh:
        put(fresh, run(1))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_runs_to_one_folder_take_turns(tmp_path: Path) -> None:
    """Eight processes at once; what stays is one run, whole."""
    children = []
    for number in range(8):
        if not (child := os.fork()):
            write(tmp_path / "o", run(number))
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    (seed,) = {json.loads((tmp_path / "o" / "result.json").read_text())["seed"]}
    assert content(tmp_path / "o") == run(seed) and hidden(tmp_path) == []


def test_where_folders_cannot_be_locked_runs_are_written_all_the_same(tmp_path: Path, monkeypatch: object) -> None:
    def unable(handle: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folder.fcntl, "flock", unable)  # type: ignore[attr-defined]
    write(tmp_path / "o", run(1))
    assert content(tmp_path / "o") == run(1) and hidden(tmp_path) == []
