"""300 hostile or careless inputs: a result, or lines that say what is wrong; never a traceback, never a lost file.

Drawn from seeds, so that a failure comes again. A bug of ours, planted here, is a traceback and exit code 70, in a
sweep a failed row.
"""

import json
import random
import shutil
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.analysis import metrics
from sim.scenario import SCENARIOS, reference

TINY = """\
cluster: {node: h800x8, nodes: 1, fabric: null}
model: {base: deepseek_v2_lite, layers: 4, vocabulary: 1024}
parallel: {pipeline: 2, expert: 4}
schedule: 1f1b
batch: {micro_batches: 4, sequence_length: 512}
routing: {kind: sampled, spread: 0.2}
faults:
- {kind: gpu, at: 1, slower: 1.5, start: 1 ms}
outputs: [result]
"""
CHUNKS = (SCENARIOS / "dualpipe_8x20.yaml").read_text(encoding="utf-8") + "outputs: [result]\n"
SWEEP = "scenario: tiny.yaml\naxes: {seed: [0, 1], comm.sms: [4, 20]}\ncolumns: {step: step_time_s}\n"

ODD = (
    "null", "~", "0", "-1", "-0", "0.5", "1e999", "-1e30", ".nan", ".inf", "[]", "{}", "[1, 2", "{a: b}",
    "[[1], {b: 2}]", "true", "off", "''", '"\\0"', "'x'", "x" * 5000, "\U0001f4a5", "\udc80", "\x1b[2J", "a\u2028b",
    "!!python/object:os.system {}", "!!binary aGk=", "&a [*a]", "*nobody", "{<<: 3}", "{<<: [{seed: 1}]}",
    "5 parsecs", "1 GB", "-3 ms", "1e3", "0x10", "1_000", "2024-01-01", "../../etc/passwd", "/dev/null", "=", "a=b",
    "|\n  text", "? x", "- - -", "%TAG", "@", "`", "3 s  4", "1,5", "9" * 400, "[" * 200, "[" + "1," * 3000 + "1]",
    "dualpipe", "balanced", "deepseek_v3", "{base: h800x8}", "{base: {}}", "{value: 3}",
    "{value: 1 GB, kind: x, source: y}", "{base: deepseek_v2_lite, layers: 1e9}", "2", "3", "7", "64",
)  # fmt: skip
"""Values that people and programs write."""

PLAUSIBLE = (
    "1", "2", "3", "4", "5", "8", "16", "0.5", "0", "true", "3 us", "1 s", "1 GB", "1 MB", "100 GB/s", "90 %", "1 GHz",
    "10 TFLOP/s", "null", "zb1p", "dualpipev", "skewed", "scattered", "even", "h200x8", "mpft", "ecmp",
)  # fmt: skip


BELOW = {"Scenario": "", "Node": "cluster.node.", "Device": "cluster.node.device.", "Fabric": "cluster.fabric."}
"""Part of the reference -> where its keys lie in a scenario; those of models lie below `model`."""
NO_KEYS = ("", ".", "a", "a.b.c", "faults.9.at", "faults.x", "faults.-1", "seed.x", "cluster.node.device.hbm", "x-y",
           "<<", "\u00e9")  # fmt: skip


@cache
def keys() -> list[str]:
    """Dotted keys of scenarios, of machines and models inside them, and some that are none."""
    legal, below = [], ""
    for line in reference.keys({}).splitlines():
        if line.startswith("### "):
            below = BELOW.get(line.removeprefix("### "), "model.")
        elif line.startswith("| `"):
            legal.append(below + line.split("`")[1].replace("[N]", ".0"))
    return [*legal, *NO_KEYS]


def mangled(text: str, draw: random.Random) -> str:
    """A document after one to three accidents."""
    for _ in range(draw.randint(1, 3)):
        lines, at = text.split("\n"), draw.randrange(len(text) + 1)
        row = draw.randrange(len(lines))
        kind = draw.randrange(8)
        if kind == 0:
            text = text[:at] + text[at + draw.randint(1, 6) :]
        elif kind == 1:
            text = (
                text[:at] + draw.choice([*string.punctuation, "\t", "\x00", "\ufeff", "\n", "---\n", "é"]) + text[at:]
            )
        elif kind == 2:
            text = "\n".join([*lines[:row], lines[row], *lines[row:]])
        elif kind == 3:
            text = "\n".join([*lines[:row], " " * draw.randint(1, 4) + lines[row], *lines[row + 1 :]])
        elif kind == 4:
            text = text[:at]
        elif kind == 5:
            head, colon, _ = lines[row].partition(":")
            text = "\n".join([*lines[:row], f"{head}{colon} {draw.choice(ODD)}", *lines[row + 1 :]])
        elif kind == 6:
            word = draw.choice(text.split(" ")) or ":"
            text = text.replace(word, draw.choice(ODD), 1)
        else:
            text = text.replace("\n", draw.choice(["\r\n", "\r", "\n\n"]))
    return text


PLACES = (
    "out", "out/run", "new/deep/er", ".", "..", "theirs", "theirs/result.json", "theirs/x", "ours", "ours/notes.txt",
    "link", "dangling", "closed", "x" * 300, "\U0001f4a5", "a\nb", "tiny.yaml", "-", "ours/", "/dev/null/x", "",
)  # fmt: skip
BOOKS = ("runs.jsonl", "elsewhere.jsonl", "o.jsonl", "o", ".jsonl")
"""Output folders, and files of sweeps."""
WORDS = ("check", "tokens", "exchange", "run", "list", "schema", "study", "--out", "-q", "--format", "json", "f.yaml",
         "x", "", "-", "--", "--jobs", "2")  # fmt: skip
"""Of a command line."""
BATCH = 25
"""Inputs of a test."""


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with files of ours and of somebody else."""
    place = tmp_path / "yard"
    (place / "theirs").mkdir(parents=True)
    (place / "theirs" / "result.json").write_text('{"metric": 0.9}')
    (place / "theirs" / "model.ckpt").write_text("days of work")
    (place / "tiny.yaml").write_text(TINY)
    (place / "runs.csv").write_text("theirs")
    (place / "elsewhere.jsonl").write_text("theirs\n")
    monkeypatch.chdir(place)
    assert main(["dualpipe_8x20", "outputs=[result]", "-q", "--out", "ours"]) == 0
    (place / "ours" / "notes.txt").write_text("mine")
    (place / "ours" / "trace").mkdir()
    (place / "ours" / "trace" / "profile.json.gz").write_text("mine")
    (place / "link").symlink_to("theirs")
    (place / "dangling").symlink_to("nowhere")
    return place


def foreign(place: Path) -> dict[str, bytes]:
    """What must not change, whatever runs."""
    names = ("theirs/result.json", "theirs/model.ckpt", "tiny.yaml", "runs.csv", "elsewhere.jsonl", "ours/notes.txt",
             "ours/trace/profile.json.gz")  # fmt: skip
    return {name: (place / name).read_bytes() for name in names}


def commands(seed: int) -> Iterator[tuple[list[str], str]]:
    """Command lines, each with the text of the file `f.yaml` that it may name."""
    draw = random.Random(seed)
    legal = keys()
    for _ in range(BATCH):
        text = draw.choice((TINY, TINY, CHUNKS))
        words = ["f.yaml"]
        kind = draw.randrange(10)
        if kind < 3:
            text = mangled(text, draw)
        elif kind < 7:
            values = draw.choice((ODD, PLAUSIBLE))
            words += [f"{draw.choice(legal)}={draw.choice(values)}" for _ in range(draw.choice((1, 1, 2, 3)))]
        elif kind == 7:
            words += ["--out", draw.choice(PLACES)]
        elif kind == 8:
            text, words = mangled(SWEEP, draw), ["sweep", "f.yaml", "--out", draw.choice(BOOKS)]
        else:
            words = draw.sample(WORDS, draw.randint(1, 4))
        yield words, text


@pytest.mark.parametrize("seed", range(12))
def test_hostile_input_is_told_or_answered(seed: int, yard: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = foreign(yard)
    for words, text in commands(seed):
        (yard / "f.yaml").write_bytes(text.encode("utf-8", errors="surrogateescape"))
        capfd.readouterr()
        code = main(words)
        out, err = capfd.readouterr()
        case = f"{words}\n{text[:2000]}\n--- {code}\n{err[-3000:]}"
        assert code in (0, 1, 2), case
        assert "Traceback" not in err and "Traceback" not in out, case
        assert (code == 0) or err.strip(), case
        assert max(map(len, err.splitlines()), default=0) < 1400 and len(err.splitlines()) < 60, case
        assert foreign(yard) == before, case
        assert not list(yard.rglob(".*trainyard-*")), case
        for made in ("out", "new", "o.csv", "o.jsonl"):
            shutil.rmtree(yard / made, ignore_errors=True)
            (yard / made).unlink(missing_ok=True)


def test_a_bug_of_ours_is_a_traceback_and_in_a_sweep_a_failed_row(
    yard: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = foreign(yard)

    def bug(*arguments: object) -> dict[int, int]:
        return dict(zip([1], [1, 2], strict=True))

    monkeypatch.setattr(metrics, "summary", bug)
    assert main(["tiny.yaml", "-q"]) == 70
    err = capfd.readouterr().err
    assert err.startswith("Traceback") and err.endswith("ValueError: zip() argument 2 is longer than argument 1\n")
    (yard / "f.yaml").write_text(SWEEP)
    assert main(["sweep", "f.yaml", "--out", "o.jsonl"]) == 70
    out, err = capfd.readouterr()
    kept = [json.loads(line) for line in (yard / "o.jsonl").read_text().splitlines()]
    assert out.count("failed: ValueError: zip()") == 4 and err.count("Traceback") == 1
    assert all("in bug" in each["failed"] for each in kept if "table" not in each)
    assert foreign(yard) == before and not (yard / "out").exists()
