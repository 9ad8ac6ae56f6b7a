"""A run as plain values, and the file that many of them are kept in: one JSON line a run, so that a sweep resumes."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from traceback import format_exc
from typing import Any

from hwmodels.refused import Refused
from sim.experiments import kinds
from sim.result import Result
from sim.result.folder import writing
from sim.scenario.values import Scenario

Record = dict[str, Any]
"""One run. scenario_hash; then one of three: `error` (a line: what refused it; without a hash where no scenario came);
`failed` (the traceback of a bug of ours, its cause in the last line); or summary (as in result.json), overlapped_steps
(of each pipeline position) and cost (cpu_s of the run, peak_memory_bytes of its process). In a book also stamp (of the
code that ran) and overrides."""

OWN = ("cost.cpu_s|peak_memory_bytes", "error", "failed", "overlapped_steps.*", "scenario_hash")
"""Figures that a record has beside those of result.json, as patterns of `sim.result.figures`."""

ROOT = Path(__file__).parents[2]
CODE = ("sim/**/*.py", "hwmodels/**/*.py", "hwmodels/**/*.yaml", "hwmodels/**/*.json")
"""What decides a result beside the scenario: code, machines, tables."""
STAMP_BYTES = 16


def record(scenario: kinds.Value) -> Record:
    """Simulate one of any kind; what the simulation refuses and what a bug ends is a record too."""
    import sim.experiments.unfelt
    import sim.simulation  # noqa: F401  (so that imports do not count as cost)

    start = time.process_time()
    try:
        answer = _step(scenario) if isinstance(scenario, Scenario) else {"summary": kinds.summary(scenario)}
    except Refused as refused:
        return {"scenario_hash": scenario.scenario_hash, "error": " ".join(str(refused).split())}
    except Exception:
        return {"scenario_hash": scenario.scenario_hash, "failed": format_exc()}
    cost = {"cpu_s": time.process_time() - start, "peak_memory_bytes": peak_memory_bytes()}
    return {"scenario_hash": scenario.scenario_hash, **answer, "cost": cost}


def _step(scenario: Scenario) -> Record:
    """What a training step says, as `sim.run` does."""
    from sim.experiments.unfelt import unfelt
    from sim.simulation import run

    result = run(scenario)
    summary = result.summary | {"unfelt": list(unfelt(scenario))}
    return {"summary": summary, "overlapped_steps": _overlapped(result)}


def _text(path: Path) -> str:
    """Content of a file of runs, nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except UnicodeDecodeError:
        raise Refused("is not a file of runs; name another with --out", str(path)) from None


def tables(path: Path) -> set[str]:
    """Digests of the tables that were written beside a file of runs; see `sim.experiments.table`."""
    lines = (line for line in _text(path).splitlines() if line.startswith('{"table"'))
    return {str(json.loads(line)["table"]) for line in lines if line.endswith("}")}


def _overlapped(result: Result) -> list[int]:
    """Overlapped steps of each pipeline position."""
    from sim.result.trace import PHASES

    positions = len(result.summary["phases_per_rank"]["overlapped"])
    pairs = result.steps.where(result.steps.phase == PHASES.index("overlapped"))
    return [int((pairs.position == position).sum()) for position in range(positions)]


def peak_memory_bytes() -> int:
    """Largest memory this process has held, or 0 where the system does not say.

    From VmHWM: ru_maxrss would include what the parent held when it started this process.
    """
    from hwmodels.units import KIB

    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) * KIB for line in text.splitlines() if line.startswith("VmHWM")), 0)


def figure(entry: Record, key: str, absent: Any = None) -> Any:
    """The value under a dotted key of a record or its summary (`step_time_s`, `phases_s.bubble`, `cost.cpu_s`,
    `phases_per_rank.overlapped.7`); `absent` where there is no such key."""
    first, *_ = key.split(".")
    value: Any = entry if any(first == own.split(".")[0] for own in OWN) else entry.get("summary", {})
    for part in key.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return absent
    return value


@cache
def stamp() -> str:
    """BLAKE2b of the code, machines and tables that decide results: a kept run counts only under the same."""
    hasher = hashlib.blake2b(digest_size=STAMP_BYTES)
    for path in sorted({path for pattern in CODE for path in ROOT.glob(pattern)}):
        hasher.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return hasher.hexdigest()


class Book:
    """Records by their key (the scenario hash); with a path, each is a line of that file as soon as it is added, and is
    read from there when it is asked for, so that a million of them need no room but for their keys.

    Lines of other code (see `stamp`) and of failed runs stay in the file and are not read, so that those run again; a
    last line cut off by a crash is ignored. Raises Refused when the file is something else or cannot be written.
    """

    def __init__(self, path: Path | None, mark: str, key: str = "scenario_hash") -> None:
        self.path, self.mark, self.key = path, mark, key
        self._file: int | None = None
        self._held, self._at = dict[str, Record](), dict[str, int]()
        if path is None:
            return
        if path.parent.exists() and not path.parent.is_dir():
            raise Refused("is a file; name another folder with --out", str(path.parent))
        with writing(path):
            if path.exists():
                self._read(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, OTHERS_READ)
            if (size := os.fstat(self._file).st_size) and os.pread(self._file, 1, size - 1) != b"\n":
                self._write(b"\n")

    def _read(self, path: Path) -> None:
        at = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                entry = _entry(line)
                if isinstance(entry, dict) and self.key in entry:
                    if entry.get("stamp") == self.mark and "failed" not in entry:
                        self._at[entry[self.key]] = at
                elif number == 1 and not line.startswith(f'{{"{self.key}"'.encode()):
                    raise Refused("is not a run of a sweep; name another file with --out", str(path), 1)
                at += len(line)

    def add(self, entry: Record) -> None:
        """Keep a record; it is on disk when this returns, bar a crash of the machine. Raises Refused where it does not
        fit there; what was there stays, in whole lines."""
        if self._file is None or self.path is None:
            self._held[entry[self.key]] = entry
            return
        with writing(self.path):
            at = os.fstat(self._file).st_size
            self._write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        self._at[entry[self.key]] = at

    def _write(self, line: bytes) -> None:
        """All of a line, or nothing of it."""
        assert self._file is not None
        before = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def __getitem__(self, key: str) -> Record:
        if self._file is None:
            return self._held[key]
        line, at = b"", self._at[key]
        while not line.endswith(b"\n"):
            line += os.pread(self._file, READ_BYTES, at + len(line))
            line = line[: line.find(b"\n") + 1] or line
        return dict(json.loads(line))

    def __contains__(self, key: object) -> bool:
        return key in self._at or key in self._held

    def __len__(self) -> int:
        return len(self._at) + len(self._held)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


OTHERS_READ, READ_BYTES = 0o644, 1 << 16


def _entry(line: bytes) -> Any:
    """What a line says; None where it was cut off, or is of somebody else."""
    try:
        return json.loads(line)
    except ValueError:
        return None
