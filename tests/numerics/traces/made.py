"""Small traces made by hand, for tests that change one thing in them."""

import json
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def span(category: str, name: str, ts: float, dur: float, thread: tuple[object, object] = (1, 1), **args: Any) -> Event:
    """An event of the host."""
    pid, tid = thread
    return {"ph": "X", "cat": category, "name": name, "ts": ts, "dur": dur, "pid": pid, "tid": tid, "args": args}


def kernel(
    name: str, ts: float, dur: float, correlation: int = -1, device: int = 0, stream: int = 7, pid: object = None
) -> Event:
    """A kernel; pid: its process (None: the device's number, as torch writes it)."""
    args = {"device": device, "stream": stream, "correlation": correlation, "grid": [132, 1, 1]}
    where = {"pid": device if pid is None else pid, "tid": stream}
    return {"ph": "X", "cat": "kernel", "name": name, "ts": ts, "dur": dur, **where, "args": args}


def launch(
    ts: float, correlation: int, name: str = "cudaLaunchKernel", thread: tuple[object, object] = (1, 1)
) -> Event:
    """The call that starts a kernel."""
    return span("cuda_runtime", name, ts, 1, thread, correlation=correlation)


def launched(name: str, ts: float, dur: float, correlation: int, device: int = 0, stream: int = 7) -> list[Event]:
    """A kernel and its launch, which took place at `correlation` us."""
    return [launch(correlation, correlation), kernel(name, ts, dur, correlation, device, stream)]


def write(folder: Path, events: list[Event], **head: Any) -> Path:
    """A file of these events; head: what stands beside them. Returns its path."""
    path = folder / "trace.json"
    path.write_text(json.dumps({**head, "traceEvents": events}))
    return path


def properties(*names: str, sms: int = 132) -> list[Event]:
    """What torch writes of devices of these names, numbered from 0."""
    return [{"id": i, "name": name, "numSms": sms} for i, name in enumerate(names)]
