"""A torch.profiler trace as columns: kernels of the devices, and what the host did around their launches.

Only what the importer needs is kept (64 bytes a kernel and 56 a host event), so that a trace of a gigabyte fits in a
fraction of its size: names are stored once, flow arrows, Python frames and counters are left out. Times are integer
nanoseconds; torch writes microseconds, whole ones in old versions and with three decimals in new ones.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.units import MIB, US_NS
from numerics.traces.events import EventReader
from numerics.traces.window import TraceError

Ints = npt.NDArray[np.int64]
KERNEL, COPY, FILL = 0, 1, 2
"""Kinds of device work."""
OPERATOR, ANNOTATION, LAUNCH = 0, 1, 2
"""Kinds of host events."""
_DEVICE = {"kernel": KERNEL, "gpu_memcpy": COPY, "memcpy": COPY, "gpu_memset": FILL, "memset": FILL}
_HOST = {"cpu_op": OPERATOR, "operator": OPERATOR, "user_annotation": ANNOTATION}
"""torch.profiler's categories, lower case (versions before 1.13 wrote Kernel, Operator, Runtime); those of calls that
launch end in runtime or driver, whoever's they are (cuda_runtime, xpu_runtime, ...)."""
_NO_WORK = frozenset({
    "python_function", "gpu_user_annotation", "overhead", "cuda_sync", "cpu_instant_event", "external_correlation",
    "trace", "cuda_profiler_range", "ac2g", "fwdbwd",
})  # fmt: skip
"""Categories that are left out without a word: frames, copies of annotations, waits, the profiler's own."""
_LAUNCHES = re.compile(r"Launch|Memcpy|Memset")
"""Runtime calls that put work on a device; the others (events, attributes, allocations) are not kept."""
_KERNEL_LAUNCHES = re.compile(r"Launch(?!HostFunc)")
"""Those that start kernels (one, or a graph of them)."""
_DEVICE_COLUMNS = np.dtype(
    {"names": ["start_ns", "duration_ns", "stream", "correlation", "name", "device", "grid_x", "grid_y", "grid_z",
               "shared_bytes", "kind"],
     "formats": ["i8"] * 4 + ["i4"] * 7}, align=True,
)  # fmt: skip
_HOST_COLUMNS = np.dtype(
    {"names": ["start_ns", "duration_ns", "correlation", "name", "thread", "dims", "types", "strides", "given", "kind"],
     "formats": ["i8"] * 3 + ["i4"] * 7}, align=True,
)  # fmt: skip
LATEST_NS = 2**62
"""Times reach to 146 years from zero, so that sums of two fit 64 bits."""
TEXT_CHARACTERS = 256 * MIB
"""All distinct names and dimensions together; a trace of a training job has a few MiB."""
WATCHED_EVENTS = 4096
"""How many events are read between two looks at the progress."""


class LeftOut(NamedTuple):
    """Events that were not read because their category is none of torch.profiler's: how many, and their time."""

    category: str
    events: int
    duration_ns: int


@dataclass(frozen=True)
class Trace:
    """Columns of one trace; every array of a table has its length, in the order of the file.

    device: start_ns, duration_ns, name, kind, device (index of `devices`), stream, correlation (-1 without), grid_x,
    grid_y, grid_z (0 for copies and fills), shared_bytes (dynamic).
    host: start_ns, duration_ns, name, kind, thread, correlation, dims, types, strides (of the operands; as torch writes
    them), given (values of the other arguments). `name`, `dims`, `types`, `strides` and `given` index `texts`.
    head: what the file says beside the events. threads: (process, thread) as written. devices: (process, number) of
    each device that ran something; two processes with one number are ranks merged into one file. events: how many were
    read. launches: calls that start kernels; lost: those of them without anything on a device. left_out: most time
    first.
    """

    source: str
    head: dict[str, Any] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    threads: tuple[tuple[str, str], ...] = field(repr=False)
    devices: tuple[tuple[str, int], ...]
    device: dict[str, Ints] = field(repr=False)
    host: dict[str, Ints] = field(repr=False)
    events: int
    launches: int
    lost: int
    left_out: tuple[LeftOut, ...]

    @property
    def kernels(self) -> int:
        return len(self.device["start_ns"])

    def labels(self) -> tuple[str, ...]:
        """What to call each device: its number, with the process where several have it."""
        numbers = [number for _, number in self.devices]
        return tuple(str(n) if numbers.count(n) == 1 else f"{n}@{process}" for process, n in self.devices)

    def of_device(self, label: str) -> "Trace":
        """The trace as if only one device had run. Raises TraceError for one that ran nothing."""
        if label not in self.labels():
            raise TraceError(
                f"{self.source}: nothing ran on device {label!r}; legal: {', '.join(self.labels()) or 'none'}"
            )
        index = self.labels().index(label)
        mine = self.device["device"] == index
        device = {name: column[mine] for name, column in self.device.items()} | {
            "device": np.zeros(mine.sum(), np.int64)
        }
        return replace(self, devices=(self.devices[index],), device=device)

    def sms(self, device: int = 0) -> int:
        """Multiprocessors of a device, as the trace says; 0 when it does not."""
        sms = self._property("numSms", device)
        return sms if type(sms) is int else 0

    def device_name(self, device: int = 0) -> str:
        """Name of a device, or "CPU" for a trace without kernels, or "" when unsaid."""
        return str(self._property("name", device) or "") if self.kernels else "CPU"

    def _property(self, key: str, device: int) -> Any:
        """What deviceProperties says of a device. Where its number is not among them (with ROCm properties count the
        visible cards and kernels all of the host), what all that are there agree on."""
        entries = self.head.get("deviceProperties")
        entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        number = self.devices[device][1] if self.devices else 0
        said = [entry.get(key) for entry in entries if entry.get("id") == number]
        said = said or [entry.get(key) for entry in entries]
        return said[0] if said and all(value == said[0] for value in said) else None


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
    texts, device, host = tuple(tables.texts), tables.device.columns(), tables.host.columns()
    launches, lost = _lost(texts, device, host)
    return Trace(
        Path(path).name, reader.head, texts, tables.thread_names(), tables.device_numbers(), device, host, count,
        launches, lost, tables.left_out(),
    )  # fmt: skip


def _lost(texts: tuple[str, ...], device: dict[str, Ints], host: dict[str, Ints]) -> tuple[int, int]:
    """How many calls started kernels, and of how many nothing ran that is in the trace."""
    starts = np.array([bool(_KERNEL_LAUNCHES.search(text)) for text in texts], bool)
    launched = host["correlation"][(host["kind"] == LAUNCH) & starts[host["name"]]]
    tellable = len(device["correlation"]) == 0 or bool((device["correlation"] >= 0).any())
    return len(launched), int((~np.isin(launched, device["correlation"])).sum()) if tellable else 0


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
    """What is done with the events of a category. kind: KERNEL ... or OPERATOR ..., -1 for those left out; counted:
    whether these are told."""

    device: bool
    kind: int
    counted: bool


class _Tables:
    """Sorts events into the two tables; names and threads become numbers."""

    def __init__(self, reader: EventReader) -> None:
        self.reader = reader
        self.texts: dict[str, int] = {}
        self.threads: dict[tuple[Any, Any], int] = {}
        self.devices: dict[tuple[str, int], int] = {}
        self.omitted: dict[str, tuple[int, int]] = {}
        self.device, self.host = _Table(_DEVICE_COLUMNS), _Table(_HOST_COLUMNS)
        self.categories: dict[str, _Category] = {}
        self._launches: dict[str, bool] = {}
        self._room = TEXT_CHARACTERS

    def add(self, event: dict[str, Any]) -> None:
        name = str(event.get("cat", ""))
        category = self.categories.get(name) or self._category(name)
        if category.kind < 0:
            if category.counted:
                self._omit(name, event)
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
        launch = LAUNCH if lower.endswith(("runtime", "driver")) else -1
        kind = _DEVICE.get(lower, _HOST.get(lower, launch))
        category = _Category(lower in _DEVICE, kind, lower not in _NO_WORK)
        if len(self.categories) < WATCHED_EVENTS:  # a file whose every event has another is no trace
            self.categories[name] = category
        return category

    def _omit(self, name: str, event: dict[str, Any]) -> None:
        """Counts an event that is left out; its time where it is one."""
        try:
            duration = max(0, _span(event)[1])
        except (TypeError, ValueError, ArithmeticError):
            duration = 0
        name = name if name in self.categories else "others"
        events, before = self.omitted.get(name, (0, 0))
        self.omitted[name] = events + 1, before + duration

    def left_out(self) -> tuple[LeftOut, ...]:
        omitted = (LeftOut(name, *counts) for name, counts in self.omitted.items())
        return tuple(sorted(omitted, key=lambda left: (-left.duration_ns, -left.events, left.category)))

    def device_numbers(self) -> tuple[tuple[str, int], ...]:
        return tuple(self.devices)

    def _add_device(self, kind: int, event: dict[str, Any], args: dict[str, Any]) -> None:
        start, duration = _span(event)
        number = _whole(args.get("device", event.get("pid", 0)))
        device = self.devices.setdefault((str(event.get("pid", number))[:WATCHED_EVENTS], number), len(self.devices))
        x, y, z = [*map(_whole, args.get("grid", ())), 0, 0, 0][:3]
        self.device.add(
            start, duration, _whole(args.get("stream", event.get("tid", 0))), _whole(args.get("correlation", -1)),
            self._number(str(event.get("name", ""))), device, x, y, z,
            _whole(args.get("shared memory", 0)), kind,
        )  # fmt: skip

    def _add_host(self, kind: int, event: dict[str, Any], args: dict[str, Any]) -> None:
        name = str(event.get("name", ""))
        if kind == LAUNCH and not ("correlation" in args and self._is_launch(name)):
            return
        start, duration = _span(event)
        thread = self.threads.setdefault((event.get("pid"), event.get("tid")), len(self.threads))
        dims = types = strides = given = None
        if kind == OPERATOR:
            dims, types = args.get("Input Dims") or args.get("Input dims"), args.get("Input type")
            strides, given = args.get("Input Strides"), args.get("Concrete Inputs")
        self.host.add(
            start, duration, _whole(args.get("correlation", -1)), self._number(name), thread,
            *(self._number(str(each) if each else "") for each in (dims, types, strides, given)), kind,
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
