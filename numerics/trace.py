"""A torch.profiler trace as columns: kernels of the devices, and what the host did around their launches.

Only what the importer needs is kept (about 90 bytes a kernel and 40 a host event), so that a trace of a gigabyte fits
in a fraction of its size: names are stored once, flow arrows, Python frames and counters are left out. Times are
integer nanoseconds; torch writes microseconds, whole ones in old versions and with three decimals in new ones.
"""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.units import US_NS
from numerics.events import EventReader, TraceError

Ints = npt.NDArray[np.int64]
KERNEL, COPY, FILL = 0, 1, 2
"""Kinds of device work."""
OPERATOR, ANNOTATION, LAUNCH = 0, 1, 2
"""Kinds of host events."""
_DEVICE = {"kernel": KERNEL, "gpu_memcpy": COPY, "memcpy": COPY, "gpu_memset": FILL, "memset": FILL}
_HOST = {
    "cpu_op": OPERATOR, "operator": OPERATOR, "user_annotation": ANNOTATION, "cuda_runtime": LAUNCH,
    "cuda_driver": LAUNCH, "runtime": LAUNCH, "driver": LAUNCH,
}  # fmt: skip
"""torch.profiler's categories, lower case (versions before 1.13 wrote Kernel, Operator, Runtime)."""
_LAUNCHES = re.compile(r"Launch|Memcpy|Memset")
"""Runtime calls that put work on a device; the others (events, attributes, allocations) are not kept."""
_DEVICE_COLUMNS = {
    "start_ns": "q", "duration_ns": "q", "name": "i", "kind": "b", "device": "i", "stream": "q", "correlation": "q",
    "grid_x": "i", "grid_y": "i", "grid_z": "i", "shared_bytes": "i",
}  # fmt: skip
_HOST_COLUMNS = {
    "start_ns": "q", "duration_ns": "q", "name": "i", "kind": "b", "thread": "i", "correlation": "q", "dims": "i",
}  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """Columns of one trace; every array of a table has its length, in the order of the file.

    device: start_ns, duration_ns, name, kind, device, stream, correlation (-1 without), grid_x, grid_y, grid_z (0 for
    copies and fills), shared_bytes (dynamic).
    host: start_ns, duration_ns, name, kind, thread, correlation, dims. `name` and `dims` index `texts`.
    head: what the file says beside the events. threads: (process, thread) as written. events: how many were read.
    """

    source: str
    head: dict[str, Any] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    threads: tuple[tuple[str, str], ...] = field(repr=False)
    device: dict[str, Ints] = field(repr=False)
    host: dict[str, Ints] = field(repr=False)
    events: int

    @property
    def kernels(self) -> int:
        return len(self.device["start_ns"])

    def sms(self) -> int:
        """Multiprocessors of the device that ran the kernels, as the trace says; 0 when it does not."""
        found = self._property("numSms")
        return found if isinstance(found, int) else 0

    def device_name(self) -> str:
        """Name of that device, or "CPU" for a trace without kernels, or "" when unsaid."""
        return str(self._property("name") or "") if self.kernels else "CPU"

    def _property(self, key: str) -> Any:
        number = int(self.device["device"][0]) if self.kernels else 0
        found = self.head.get("deviceProperties")
        for entry in found if isinstance(found, list) else ():
            if isinstance(entry, dict) and entry.get("id") == number:
                return entry.get(key)
        return None


def read_trace(path: Path | str) -> Trace:
    """The trace in `path` (JSON or gzip; object or array form), read as a stream.

    Raises TraceError, one line with the byte: empty, truncated, malformed, not a trace, or nothing in it to import.
    """
    reader = EventReader(Path(path))
    tables = _Tables(reader)
    count = 0
    for event in reader:
        count += 1
        if event.get("ph") == "X":
            tables.add(event)
    tables.check(count)
    return Trace(
        Path(path).name, reader.head, tuple(tables.texts), tuple(tables.threads), tables.device.columns(),
        tables.host.columns(), count,
    )  # fmt: skip


class _Table:
    """Growing columns of machine integers."""

    def __init__(self, types: dict[str, str]) -> None:
        self.arrays = {name: array(code) for name, code in types.items()}
        self._appends = [a.append for a in self.arrays.values()]

    def add(self, *row: int) -> None:
        for append, value in zip(self._appends, row, strict=True):
            append(value)

    def columns(self) -> dict[str, Ints]:
        return {name: np.frombuffer(a, a.typecode) if a else np.empty(0, a.typecode) for name, a in self.arrays.items()}


class _Tables:
    """Sorts events into the two tables; names and threads become numbers."""

    def __init__(self, reader: EventReader) -> None:
        self.reader = reader
        self.texts: dict[str, int] = {}
        self.threads: dict[tuple[str, str], int] = {}
        self.device, self.host = _Table(_DEVICE_COLUMNS), _Table(_HOST_COLUMNS)
        self.categories: dict[str, None] = {}

    def add(self, event: dict[str, Any]) -> None:
        category = str(event.get("cat", "")).lower()
        self.categories.setdefault(category)
        args = event.get("args")
        args = args if isinstance(args, dict) else {}
        try:
            if category in _DEVICE:
                self._add_device(_DEVICE[category], event, args)
            elif category in _HOST:
                self._add_host(_HOST[category], event, args)
        except (TypeError, ValueError, ArithmeticError) as error:
            what = f"{category} event {str(event.get('name'))[:60]!r}"
            raise self.reader.error(f"{what}: a field has the wrong form: {error}") from None

    def _add_device(self, kind: int, event: dict[str, Any], args: dict[str, Any]) -> None:
        grid = [*args.get("grid", ()), 0, 0, 0][:3]
        self.device.add(
            *self._span(event), self._text(event), kind, int(args.get("device", event.get("pid", 0))),
            int(args.get("stream", event.get("tid", 0))), int(args.get("correlation", -1)), *map(int, grid),
            int(args.get("shared memory", 0)),
        )  # fmt: skip

    def _add_host(self, kind: int, event: dict[str, Any], args: dict[str, Any]) -> None:
        if kind == LAUNCH and ("correlation" not in args or not _LAUNCHES.search(str(event.get("name")))):
            return
        key = (str(event.get("pid")), str(event.get("tid")))
        thread = self.threads.setdefault(key, len(self.threads))
        dims = args.get("Input Dims", args.get("Input dims", "")) if kind == OPERATOR else ""
        self.host.add(
            *self._span(event), self._text(event), kind, thread, int(args.get("correlation", -1)),
            self._number(str(dims) if dims else ""),
        )  # fmt: skip

    def _span(self, event: dict[str, Any]) -> Iterator[int]:
        for key in ("ts", "dur"):
            if key not in event:
                raise ValueError(f"no {key!r}")
            yield nanoseconds(event[key])

    def _text(self, event: dict[str, Any]) -> int:
        return self._number(str(event.get("name", "")))

    def _number(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def check(self, count: int) -> None:
        """Raises TraceError when there is nothing to import, and says what there was."""
        if self.device.arrays["name"] or self.host.arrays["name"]:
            return
        found = ", ".join(sorted(c or "(none)" for c in self.categories)[:8]) or "no complete ('X') events"
        raise TraceError(
            f"{self.reader.path}: {count} events, but no kernels and no CPU operators (categories found: {found}); "
            "record with torch.profiler and ProfilerActivity.CUDA or CPU"
        )


def nanoseconds(microseconds: int | float | Decimal | str) -> int:
    """Whole nanoseconds of a time as torch writes it. Raises ValueError when it is no finite number."""
    if isinstance(microseconds, int):
        return microseconds * US_NS
    try:
        value = Decimal(str(microseconds))
    except InvalidOperation:
        raise ValueError(f"{microseconds!r} is not a time") from None
    if not value.is_finite():
        raise ValueError(f"{microseconds!r} is not a time")
    return round(value * US_NS)
