"""A torch.profiler trace as columns: kernels of the devices, and what the host did around their launches.

Only what the importer needs is kept (64 bytes a kernel and 48 a host event), so that a trace of a gigabyte fits in a
fraction of its size: names are stored once, flow arrows, Python frames and counters are left out. Times are integer
nanoseconds; torch writes microseconds, whole ones in old versions and with three decimals in new ones.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.units import MIB, US_NS
from numerics.traces.events import EventReader, TraceError

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
_DEVICE_COLUMNS = np.dtype(
    {"names": ["start_ns", "duration_ns", "stream", "correlation", "name", "device", "grid_x", "grid_y", "grid_z",
               "shared_bytes", "kind"],
     "formats": ["i8"] * 4 + ["i4"] * 7}, align=True,
)  # fmt: skip
_HOST_COLUMNS = np.dtype(
    {"names": ["start_ns", "duration_ns", "correlation", "name", "thread", "dims", "types", "kind"],
     "formats": ["i8"] * 3 + ["i4"] * 5}, align=True,
)  # fmt: skip
LATEST_NS = 2**62
"""Times reach to 146 years from zero, so that sums of two fit 64 bits."""
TEXT_CHARACTERS = 256 * MIB
"""All distinct names and dimensions together; a trace of a training job has a few MiB."""
WATCHED_EVENTS = 4096
"""How many events are read between two looks at the progress."""


@dataclass(frozen=True)
class Trace:
    """Columns of one trace; every array of a table has its length, in the order of the file.

    device: start_ns, duration_ns, name, kind, device, stream, correlation (-1 without), grid_x, grid_y, grid_z (0 for
    copies and fills), shared_bytes (dynamic).
    host: start_ns, duration_ns, name, kind, thread, correlation, dims, types (of the operands; as torch writes them).
    `name`, `dims` and `types` index `texts`.
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
        count = self._property("numSms")
        return count if isinstance(count, int) else 0

    def device_name(self) -> str:
        """Name of that device, or "CPU" for a trace without kernels, or "" when unsaid."""
        return str(self._property("name") or "") if self.kernels else "CPU"

    def _property(self, key: str) -> Any:
        number = int(self.device["device"][0]) if self.kernels else 0
        entries = self.head.get("deviceProperties")
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("id") == number:
                return entry.get(key)
        return None


def read_trace(path: Path | str, watch: Callable[[float], object] = lambda share: None) -> Trace:
    """The trace in `path` (JSON or gzip; object or array form), read as a stream. watch: told the share that was read.

    Raises TraceError, one line with the byte: empty, truncated, malformed, not a trace, or nothing in it to import.
    """
    reader = EventReader(Path(path))
    tables = _Tables(reader)
    count = 0
    for event in reader:
        count += 1
        if event.get("ph") == "X":
            tables.add(event)
        if count % WATCHED_EVENTS == 0:
            watch(reader.share())
    tables.check(count)
    return Trace(
        Path(path).name, reader.head, tuple(tables.texts), tables.thread_names(), tables.device.columns(),
        tables.host.columns(), count,
    )  # fmt: skip


class _Table:
    """Growing rows of machine integers, packed as `columns` say."""

    def __init__(self, columns: np.dtype[Any]) -> None:
        self.dtype, self.rows = columns, bytearray()
        codes = "".join({8: "q", 4: "i"}[columns[name].itemsize] for name in columns.names or ())
        self._pack = struct.Struct(f"@{codes}{columns.itemsize - struct.calcsize(codes)}x").pack

    def add(self, *row: int) -> None:
        self.rows += self._pack(*row)

    def columns(self) -> dict[str, Ints]:
        rows = np.frombuffer(self.rows, self.dtype)
        return {name: rows[name] for name in self.dtype.names or ()}


class _Category(NamedTuple):
    """What is done with the events of a category. kind: KERNEL ... or OPERATOR ..., -1 for those left out."""

    device: bool
    kind: int


class _Tables:
    """Sorts events into the two tables; names and threads become numbers."""

    def __init__(self, reader: EventReader) -> None:
        self.reader = reader
        self.texts: dict[str, int] = {}
        self.threads: dict[tuple[Any, Any], int] = {}
        self.device, self.host = _Table(_DEVICE_COLUMNS), _Table(_HOST_COLUMNS)
        self.categories: dict[str, _Category] = {}
        self._launches: dict[str, bool] = {}
        self._room = TEXT_CHARACTERS

    def add(self, event: dict[str, Any]) -> None:
        name = str(event.get("cat", ""))
        category = self.categories.get(name) or self._category(name)
        if category.kind < 0:
            return
        args = event.get("args")
        try:
            add = self._add_device if category.device else self._add_host
            add(category.kind, event, args if isinstance(args, dict) else {})
        except (TypeError, ValueError, ArithmeticError, struct.error) as error:
            what = f"{name} event {str(event.get('name'))[:60]!r}"
            raise self.reader.error(f"{what}: a field has the wrong form: {error}") from None

    def _category(self, name: str) -> _Category:
        lower = name.lower()
        category = _Category(lower in _DEVICE, _DEVICE.get(lower, _HOST.get(lower, -1)))
        if len(self.categories) < WATCHED_EVENTS:  # a file whose every event has another is no trace
            self.categories[name] = category
        return category

    def _add_device(self, kind: int, event: dict[str, Any], args: dict[str, Any]) -> None:
        start, duration = _span(event)
        x, y, z = [*map(_whole, args.get("grid", ())), 0, 0, 0][:3]
        self.device.add(
            start, duration, _whole(args.get("stream", event.get("tid", 0))), _whole(args.get("correlation", -1)),
            self._number(str(event.get("name", ""))), _whole(args.get("device", event.get("pid", 0))), x, y, z,
            _whole(args.get("shared memory", 0)), kind,
        )  # fmt: skip

    def _add_host(self, kind: int, event: dict[str, Any], args: dict[str, Any]) -> None:
        name = str(event.get("name", ""))
        if kind == LAUNCH and not ("correlation" in args and self._is_launch(name)):
            return
        start, duration = _span(event)
        thread = self.threads.setdefault((event.get("pid"), event.get("tid")), len(self.threads))
        dims = types = None
        if kind == OPERATOR:
            dims, types = args.get("Input Dims") or args.get("Input dims"), args.get("Input type")
        self.host.add(
            start, duration, _whole(args.get("correlation", -1)), self._number(name), thread,
            self._number(str(dims) if dims else ""), self._number(str(types) if types else ""), kind,
        )  # fmt: skip

    def _is_launch(self, name: str) -> bool:
        is_launch = self._launches.get(name)
        if is_launch is None:
            is_launch = bool(_LAUNCHES.search(name))
            if len(self._launches) < WATCHED_EVENTS:
                self._launches[name] = is_launch
        return is_launch

    def _number(self, text: str) -> int:
        """Index of a text among those kept. Half a surrogate pair, which JSON can hold and no file can, becomes "?"."""
        index = self.texts.get(text)
        if index is None:
            whole = text.encode(errors="replace").decode()
            index = self.texts.setdefault(whole, len(self.texts))
            self._room -= len(text)
            if self._room < 0:
                raise ValueError(f"names of more than {TEXT_CHARACTERS // MIB} MiB in all; is this a trace?")
        return index

    def thread_names(self) -> tuple[tuple[str, str], ...]:
        return tuple((str(process), str(thread)) for process, thread in self.threads)

    def check(self, count: int) -> None:
        """Raises TraceError when there is nothing to import, and says what there was."""
        if self.device.rows or self.host.rows:
            return
        categories = ", ".join(sorted(c or "(none)" for c in self.categories)[:8]) or "no complete ('X') events"
        raise TraceError(
            f"{self.reader.path}: {count} events, but no kernels and no CPU operators (categories found: {categories});"
            " record with torch.profiler and ProfilerActivity.CUDA or CPU"
        )


def _whole(value: Any) -> int:
    """A whole number, also one written as 7.0. Raises ValueError, TypeError, OverflowError."""
    return value if type(value) is int else int(float(value))


def _span(event: dict[str, Any]) -> tuple[int, int]:
    """Start and duration of an event in nanoseconds. Raises ValueError."""
    for key in ("ts", "dur"):
        if key not in event:
            raise ValueError(f"no {key!r}")
    start, duration = nanoseconds(event["ts"]), nanoseconds(event["dur"])
    if duration < 0:
        raise ValueError(f"'dur' {event['dur']} is negative")
    if max(abs(start), duration) >= LATEST_NS:
        raise ValueError(f"'ts' {event['ts']} or 'dur' {event['dur']} is over a hundred years")
    return start, duration


def nanoseconds(microseconds: int | float | Decimal | str) -> int:
    """Whole nanoseconds of a time as torch writes it. Raises ValueError when it is no finite number."""
    if type(microseconds) is int:
        return microseconds * US_NS
    text = str(microseconds)
    whole, _, fraction = text.partition(".")
    if len(fraction) == 3 and fraction.isdecimal() and whole.isdecimal():  # torch's form, twenty times as often read
        return int(whole + fraction)
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]!r} is not a time") from None
    if not value.is_finite() or value.adjusted() > len(str(LATEST_NS)):
        raise ValueError(f"{text[:40]!r} is not a time")
    return round(value * US_NS)
