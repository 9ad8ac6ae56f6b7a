"""A run as plain values, and the file that many of them are kept in: one JSON line a run, so that a sweep resumes."""

import hashlib
import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from sim.result import Result
from sim.scenario import Scenario

Record = dict[str, Any]
"""One run. scenario_hash; then either `error` (a line: the schedule or the layout refused) or summary (as in
result.json), feasible ([true or false, why]), overlapped_steps (of each pipeline position) and cost (cpu_s of the run,
peak_memory_bytes of its process). In a book also stamp (of the code that ran) and overrides."""

ROOT = Path(__file__).parent.parent
CODE = ("sim/**/*.py", "hwmodels/**/*.py", "hwmodels/**/*.yaml", "hwmodels/**/*.json")
"""What decides a result beside the scenario: code, machines, tables."""
STAMP_BYTES = 16


def record(scenario: Scenario) -> Record:
    """Simulate one scenario; what the simulation refuses is a record too."""
    import sim
    import sim.simulation  # so that imports do not count as cost

    start = time.process_time()
    try:
        result = sim.run(scenario)
    except ValueError as error:
        return {"scenario_hash": scenario.scenario_hash, "error": " ".join(str(error).split())}
    cost = {"cpu_s": time.process_time() - start, "peak_memory_bytes": peak_memory_bytes()}
    return {
        "scenario_hash": scenario.scenario_hash, "summary": result.summary, "feasible": list(result.feasible),
        "overlapped_steps": _overlapped(result), "cost": cost,
    }  # fmt: skip


def _overlapped(result: Result) -> list[int]:
    """Overlapped steps of each pipeline position."""
    from sim.trace import PHASES

    positions = len(result.summary["phases_per_rank"]["overlapped"])
    pairs = result.steps.where(result.steps.phase == PHASES.index("overlapped"))
    return [int((pairs.rank == position).sum()) for position in range(positions)]


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


def figure(found: Record, key: str, absent: Any = None) -> Any:
    """The value under a dotted key of a record or its summary (`step_time_s`, `phases_s.bubble`, `cost.cpu_s`,
    `phases_per_rank.overlapped.7`); `absent` where there is no such key."""
    first, *_ = key.split(".")
    value: Any = found if first in ("cost", "feasible", "error", "overlapped_steps") else found.get("summary", {})
    for part in key.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return absent
    return value


class BookError(ValueError):
    """A file that cannot be a book; its text is one line."""


@cache
def stamp() -> str:
    """BLAKE2b of the code, machines and tables that decide results: a kept run counts only under the same."""
    found = hashlib.blake2b(digest_size=STAMP_BYTES)
    for path in sorted({path for pattern in CODE for path in ROOT.glob(pattern)}):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


class Book:
    """Records by scenario hash; with a path, each is also a line of that file as soon as it is added.

    Lines of other code (see `stamp`) stay in the file and are not read; a last line cut off by a crash is ignored.
    Raises BookError when the file is something else or cannot be written.
    """

    def __init__(self, path: Path | None, mark: str) -> None:
        self.path, self.mark, self.records = path, mark, dict[str, Record]()
        self._file: IO[str] | None = None
        if path is None:
            return
        if path.parent.exists() and not path.parent.is_dir():
            raise BookError(f"{path.parent}: is a file; name another folder with --out")
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            self._read(path, text)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
            if text and not text.endswith("\n"):
                self._file.write("\n")
        except UnicodeDecodeError:
            raise BookError(f"{path}: is not a file of runs; name another with --out") from None
        except OSError as error:
            raise BookError(f"{path}: cannot be written: {error.strerror}") from None

    def _read(self, path: Path, text: str) -> None:
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if isinstance(found, dict) and "scenario_hash" in found:
                if found.get("stamp") == self.mark:
                    self.records[found["scenario_hash"]] = found
            elif number == 1 and not line.startswith('{"scenario_hash"'):
                raise BookError(f"{path}:1: is not a run of a sweep; name another file with --out")

    def add(self, found: Record) -> None:
        """Keep a record; it is on disk when this returns, bar a crash of the machine."""
        self.records[found["scenario_hash"]] = found
        if self._file:
            self._file.write(json.dumps(found, separators=(",", ":")) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
