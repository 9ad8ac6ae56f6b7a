"""Import of a torch.profiler trace of any size: time, MB/s and peak memory, beside json.load of a smaller one.

    python tests/bench/importing.py [megabytes, 1000] [megabytes for json.load, 100]

Writes traces to a temporary folder, plain and gzip: the three steps that torch recorded on an H200
(tests/numerics/traces/h200_mlp.json.gz), again and again, each with its own times and correlation ids. Every
measurement is a process of its own; its peak is that of the resident set above what the imports alone take.
"""

import gzip
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = ROOT / "tests" / "numerics" / "traces" / "h200_mlp.json.gz"
MB, US_A_REPEAT, IDS_A_REPEAT = 10**6, 20_000, 10_000
"""A repeat of the recorded steps lasts 15 ms and has fewer than a thousand ids."""
_SHIFTED = re.compile(r'("ts": |"correlation": |"External id": |"id": )(\d+)')


def repeats(size: int) -> Iterator[str]:
    """Parts of a trace of at least `size` bytes."""
    text = gzip.decompress(STEPS.read_bytes()).decode()
    begin, end = text.index('"traceEvents": [') + len('"traceEvents": ['), text.rindex("]")
    parts = _SHIFTED.split(text[begin:end])
    keys, numbers = parts[1::3], [int(n) for n in parts[2::3]]
    steps = [US_A_REPEAT if key == '"ts": ' else IDS_A_REPEAT for key in keys]
    yield text[:begin]
    written, again = 0, 0
    while written < size:
        parts[2::3] = [str(n + again * step) for n, step in zip(numbers, steps, strict=True)]
        block = ("," if again else "") + "".join(parts)
        yield block
        written, again = written + len(block), again + 1
    yield text[end:]


def write(path: Path, size: int) -> None:
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as file:
        for part in repeats(size):
            file.write(part.encode())


def measured(how: str, path: Path) -> tuple[float, float, float, str]:
    """Seconds, those of the processor, MB of memory, what was found: of one way to read `path` in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--alone", how, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, worked, peak, found = done.stdout.strip().split(maxsplit=3)
    return float(seconds), float(worked), float(peak), found


def alone(how: str, path: Path) -> None:
    """One measurement in this process, printed."""
    sys.path.insert(0, str(ROOT))
    import json

    from numerics.tables import recording
    from numerics.traces import rules
    from numerics.traces.importer import analyse
    from numerics.traces.trace import read_trace

    before, start, worked = resident(), time.perf_counter(), time.process_time()
    if how == "json.load":
        found = f"{len(json.loads(path.read_text())['traceEvents']):,} events"
    elif how == "read":
        found = f"{read_trace(path).kernels:,} kernels"
    else:
        trace = read_trace(path)
        analysis = analyse(trace, rules.load(recording.best(trace)))
        found = f"{analysis.kernels:,} kernels in {len(analysis.operations)} operations of {trace.events:,} events"
    print(time.perf_counter() - start, time.process_time() - worked, (resident() - before) / MB, found)


def resident() -> int:
    """Peak of the resident set so far, in bytes (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(size: int, small: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for how, name, mb in (
            ("json.load", "small.json", small), ("import", "small.json", small), ("read", "large.json", size),
            ("import", "large.json", size), ("import", "large.json.gz", size),
        ):  # fmt: skip
            path = Path(folder, name)
            if not path.exists():
                write(path, mb * MB)
            seconds, worked, peak, found = measured(how, path)
            print(
                f"{how:9} {name:13} {mb:5} MB of text: {seconds:6.1f} s ({worked:.1f} of CPU), {mb / seconds:.0f} MB/s "
                f"({mb / worked:.0f}), peak {peak:.0f} MB, {peak / mb:.2f} of the text; {found}", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(sys.argv[2], Path(sys.argv[3]))
    else:
        asked = [int(word) for word in sys.argv[1:]]
        main(*asked, *(1000, 100)[len(asked) :])
