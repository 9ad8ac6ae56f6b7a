"""The Chrome trace of a served load: every step, what instances hold, each request by what it waits for."""

import gzip
import json
from pathlib import Path

import pytest

from reports import served

SPANS = [(0, 1_500, 0, "prefill", 2048), (1_500, 10_001, 0, "decode", 3)]
LOAD = [(1_500, 0, 3, 1, 0.256)]
MARKS = [(0, 100, 1_500, 1_500, 10_001), (200, 300, 1_500, 2_000, 2_000)]


def read(path: Path) -> list[dict[str, object]]:
    served.write(path, ["one"], SPANS, LOAD, MARKS)
    events: list[dict[str, object]] = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return events


def test_steps_keep_every_nanosecond(tmp_path: Path) -> None:
    steps = [each for each in read(tmp_path / "t") if each["ph"] == "X"]
    assert [(each["name"], each["ts"], each["dur"]) for each in steps] == [
        ("prefill", 0.0, 1.5),
        ("decode", 1.5, 8.501),
    ]
    assert steps[0]["args"] == {"prompt_tokens": 2048} and steps[1]["args"] == {"sequences": 3}
    assert {each["pid"] for each in steps} == {1}


def test_requests_are_cut_where_they_wait_for_something_else(tmp_path: Path) -> None:
    """Begins and ends in pairs; what takes no time is left out."""
    events = read(tmp_path / "t")
    begins, ends = ([each for each in events if each["ph"] == kind] for kind in "be")
    assert [(each["id"], each["name"]) for each in begins] == [
        (0, "instance"), (0, "prompt"), (0, "answer"), (1, "instance"), (1, "prompt"), (1, "transfer"),
    ]  # fmt: skip
    assert [each["ts"] for each in ends] == [0.1, 1.5, 10.001, 0.3, 1.5, 2.0]
    counted = [each["args"] for each in events if each["ph"] == "C"]
    assert counted == [{"sequences": 3, "prompts and waiting": 1}, {"used": 25.6}]


def test_the_same_load_gives_the_same_bytes(tmp_path: Path) -> None:
    read(tmp_path / "one"), read(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_no_event_is_lost_where_they_are_compressed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(tmp_path / "whole")
    monkeypatch.setattr(served, "LINES", 3)
    assert read(tmp_path / "parts") == whole
