"""GPUs: streaming multiprocessors, peak rates by number format, and the memory hierarchy, as `devices/*.yaml` say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from hwmodels import hierarchy, tables
from hwmodels.document import Document, KeyPath, merge, unknown
from hwmodels.figure import HERE, LEAST, Figure, Reading
from hwmodels.refused import Refused
from hwmodels.shelf import Shelf, expand, names
from hwmodels.units import parse

SHELF = Shelf("device", HERE / "devices", "hwmodels/devices")

FORMATS = ("fp8", "bf16", "tf32", "fp32", "mxfp8", "nvfp4")
"""Number formats with a peak; a device without tensor cores for one leaves it out."""

LEVELS = ("registers", "shared_memory", "l2", "hbm", "host")
"""The memory hierarchy, nearest first. Registers and shared memory are per SM, the rest per device."""

L3 = "l3"
"""A level between the L2 cache and the memory that some devices have: the cache that all of their dies share."""

FOLLOWS = "follows the SMs and the clock"
"""In the source of a peak that was stated for other ones."""

PACE = {"sms": "", "clock": "frequency"}
"""What a peak is proportional to, and its dimension."""

KEYS = (
    "name",
    "architecture",
    "tables",
    "siblings",
    "dies",
    "sms",
    "clock",
    "power",
    "spread",
    "peak_flops",
    *LEVELS,
    L3,
    hierarchy.KEY,
    "timed_cache",
)


@dataclass(frozen=True)
class MemoryLevel:
    """One level of the hierarchy: bytes held, seconds to the first byte of a load, bytes/s of reads when streaming.

    Of one SM for registers and shared memory (the L1 cache shares its storage); of the device for the others, all dies
    together.
    """

    capacity_bytes: int
    latency_s: float
    bandwidth_bytes_per_s: float


@dataclass(frozen=True)
class Device:
    """One GPU. clock_hz: boost clock of the SMs. peak_flops: format -> dense FLOP/s, only formats it has.

    l3: cache behind the L2 caches of its dies, or None. dies: that compute; descriptive, as prices are of whole
    devices. tables: folder of its calibration tables under hwmodels/tables, or None. siblings: tables that may be
    transferred to it, in order: each answers for the kinds of kernel that those before it lack. power_w: what it may
    draw, 0 where
    that is not told. spread: relative standard deviation of the speed of such cards. timed_cache: bytes of the last
    cache before the memory of the card as it ships, with which its kernels were timed; 0: the same as here.
    figures: dotted key of the document -> the number with its provenance.
    """

    name: str
    architecture: str
    sms: int
    clock_hz: float
    peak_flops: Mapping[str, float] = field(hash=False)
    registers: MemoryLevel
    shared_memory: MemoryLevel
    l2: MemoryLevel
    hbm: MemoryLevel
    host: MemoryLevel
    l3: MemoryLevel | None = None
    dies: int = 1
    tables: str | None = None
    siblings: tuple[str, ...] = ()
    power_w: float = 0.0
    spread: float = 0.0
    timed_cache: int = 0
    figures: Mapping[str, Figure] = field(default_factory=dict, hash=False, repr=False)

    @property
    def cache(self) -> MemoryLevel:
        """The last level before the memory, which a whole kernel shares."""
        return self.l3 or self.l2


def load(name: str) -> Device:
    """The device called `name` in `devices/`. Raises DocumentError."""
    return build(Document(name))


def available() -> tuple[str, ...]:
    """Names of the known devices."""
    return names(SHELF.folder)


def build(document: Document, key: KeyPath = ()) -> Device:
    """The device that a document (a name, or a mapping with or without `base:`) describes. Raises DocumentError.

    key: where the document sits in a larger one, for messages.
    """
    reading = Reading(following(expand(document, SHELF, key)), key)
    device = read(reading)
    reading.check()
    return device


@cache
def load_once(name: str) -> Device:
    """`load`, of documents that do not change while we run."""
    return load(name)


def following(device: Document) -> Document:
    """An expanded document with peaks that follow its SMs and its clock, an SM doing as much in a cycle as before, and
    with the levels that its `hierarchy` makes of it; with the cache of the card that it is of, where that differs.

    A peak belongs to the SMs and the clock of the document that states it. One that is stated beside them stays.
    """
    for path in (("peak_flops", name) for name in FORMATS):
        place, leaf = device.place(path), device.value(*path)
        if not place.cited or not isinstance(leaf, Mapping):
            continue
        owner = _shipped(Path(place.file).stem)
        pairs = {key: tuple(_number(d.value(key), of) for d in (device, owner)) for key, of in PACE.items()}
        changed = {key: (now, then) for key, (now, then) in pairs.items() if now and then and now != then}
        if changed:
            peak = parse(leaf["value"], "FLOP/time") * prod(now / then for now, then in changed.values())
            words = ", ".join(f"{key} {now:g} for {then:g}" for key, (now, then) in changed.items())
            source = f"{FOLLOWS} ({words}): {leaf['source']}"
            figure = {"value": f"{peak!r} FLOP/s", "kind": leaf["kind"], "source": source}
            device = merge(device, Document(figure, {(): device.place((next(iter(changed)),))}).under(*path))
    return _timed(hierarchy.changed(device))


def _timed(device: Document) -> Document:
    """With the last cache of the card that ships which it is made from, where its own is another: a document that is
    written in full then says it."""
    own = next((place for key in ("name", "tables", "siblings") if (place := device.place((key,))).cited), None)
    if own is None or device.value("timed_cache") is not None:
        return device
    shipped = _last_cache(_shipped(Path(own.file).stem))
    if _number(shipped, "data") == _number(_last_cache(device), "data"):
        return device
    return merge(device, Document(shipped, {(): own}).under("timed_cache"))


def _last_cache(device: Document) -> Any:
    return device.value(L3 if device.value(L3) is not None else "l2", "capacity")


@cache
def _shipped(name: str) -> Document:
    """The expanded document of a device that ships; those do not change while we run."""
    return expand(Document(name), SHELF)


def _number(leaf: Any, dimension: str) -> float:
    """The value of a figure, 0 where it is wrong, which is told when it is read."""
    value: Any = leaf.get("value") if isinstance(leaf, Mapping) else leaf
    try:
        number = parse(value, dimension) if dimension else float(value)
    except (Refused, TypeError, ValueError):
        return 0.0
    return number if number >= LEAST.get(dimension, 0) else 0.0


def read(reading: Reading) -> Device:
    """The device in a document that is expanded already; what is wrong is noted in `reading`."""
    reading.keys(KEYS)
    for path, message in hierarchy.mistakes(reading.document):
        reading.problem(path, message)
    return Device(
        name=reading.word("name"),
        architecture=reading.word("architecture"),
        sms=reading.count("sms"),
        clock_hz=reading.quantity("frequency", "clock"),
        peak_flops=_peaks(reading),
        **{level: _level(reading, level) for level in LEVELS},
        l3=_level(reading, L3) if reading.content(L3) is not None else None,
        dies=reading.count("dies") if reading.content("dies") is not None else 1,
        tables=_tables(reading),
        siblings=_siblings(reading),
        power_w=reading.quantity("power", "power") if reading.content("power") is not None else 0.0,
        spread=reading.quantity("ratio", "spread") if reading.content("spread") is not None else 0.0,
        timed_cache=round(reading.quantity("data", "timed_cache")) if reading.content("timed_cache") is not None else 0,
        figures=reading.figures,
    )


def _tables(reading: Reading) -> str | None:
    name = reading.word("tables", optional=True)
    return name if name and _known(reading, ("tables",), name) else None


def _siblings(reading: Reading) -> tuple[str, ...]:
    words = enumerate(reading.words("siblings"))
    return tuple(name for i, name in words if _known(reading, ("siblings", i), name))


def _known(reading: Reading, path: KeyPath, name: str) -> bool:
    """Whether there are tables of that name; notes it when there are not."""
    legal = tables.available()
    if name not in legal:
        reading.problem(path, unknown(name, "tables", legal))
    return name in legal


def _peaks(reading: Reading) -> dict[str, float]:
    if not reading.keys(FORMATS, "peak_flops"):
        return {}
    present = [name for name in FORMATS if reading.content("peak_flops", name) is not None]
    if "bf16" not in present:
        reading.problem(("peak_flops",), "bf16 is missing; every device needs it")
    return {name: reading.quantity("FLOP/time", "peak_flops", name) for name in present}


def _level(reading: Reading, name: str) -> MemoryLevel:
    if not reading.keys(("capacity", "latency", "bandwidth"), name):
        return MemoryLevel(0, 0.0, 0.0)
    return MemoryLevel(
        round(reading.quantity("data", name, "capacity")),
        reading.quantity("time", name, "latency"),
        reading.quantity("data/time", name, "bandwidth"),
    )
