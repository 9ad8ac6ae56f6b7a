"""What a level of the memory hierarchy would be in another technology or of another capacity: a device's `hierarchy`.

An array's access time, energy, area and leakage are those that published tools give, run for 22 nm: CACTI 7
(HewlettPackard/cacti @1ffd8df: SRAM, itrs-hp, delay-optimised; SRAM over embedded DRAM, lp-dram, at 32 nm, for it has
no eDRAM at 22) and NVSim (SEAL-UCSB/NVSim @6334d00: SRAM and STT-MRAM with an aggressive cell and repeated wires).
Between capacities a power law goes through neighbours; beyond them the outer one goes on.

An array is a small part of a level: an L2 of 50 MB has one of 6 ns, and answers an H800's SM after 144 ns. So only that
part of a measured latency is another: latency + (its array's time - the time of the SRAM that is there). What comes
from behind an L2 or L3 cache comes so much later too, for it is written into the array and read out of it: an upper
bound, as some of it may pass by. Bytes a second of the level fall as its latency grows, for as many requests are under
way (Little's law), and do not rise where it shrinks: the ports stay. A larger level serves more of what products and
attention read again, so that less comes from HBM (`hwmodels.reuse`). How often a cell of STT-MRAM can be written while
others are read depends on banks that nobody publishes: writes cost time here and no bandwidth.
"""

from collections.abc import Iterator, Mapping
from math import log
from typing import Any, NamedTuple

from hwmodels.document import Document, KeyPath, merge, unknown
from hwmodels.refused import Refused
from hwmodels.units import KIB, MIB, NANO, parse

KEY = "hierarchy"
SRAM, EDRAM, STT = "sram", "edram", "stt_mram"
TECHNOLOGIES = (SRAM, EDRAM, STT)
LEVELS = ("shared_memory", "l2", "l3")
"""Levels that are arrays on the die, nearest first."""
BEHIND = {"l2": ("l3", "hbm"), "l3": ("hbm",)}
"""Level -> those whose bytes come through its array."""
MOST = 2**40
"""Bytes; no level has more."""

Points = tuple[tuple[float, float], ...]
"""Capacity in bytes, and what goes with it, rising."""

SIZES = (32 * KIB, 512 * KIB, MIB, 16 * MIB, 128 * MIB)
SRAM_READ_S: Points = tuple(zip(SIZES, (ns * NANO for ns in (0.219, 0.814, 1.109, 3.465, 8.549)), strict=True))
"""CACTI 7, 22 nm (ME-SRAM22): it grows as capacity^0.44 in all."""
SRAM_READ_J: Points = tuple(zip(SIZES, (nj * NANO for nj in (0.0095, 0.0626, 0.115, 0.5, 1.58)), strict=True))
"""The same run."""
SRAM_AREA_MM2: Points = ((2 * MIB, 1.79), (32 * MIB, 22.7))
SRAM_LEAKAGE_W: Points = ((2 * MIB, 2.99), (32 * MIB, 39.0))
"""NVSim, 22 nm (ME-STT22)."""
SRAM_WRITE_S: Points = ((2 * MIB, 0.419 * NANO), (32 * MIB, 1.072 * NANO))
"""The same."""

EDRAM_READ: Points = ((1 * MIB, 1.348 / 1.403), (32 * MIB, 4.068 / 6.062))
"""eDRAM's access time over SRAM's, CACTI 7, 32 nm (ME-EDRAM32)."""
EDRAM_AREA, EDRAM_LEAKAGE = 26.0 / 101.6, 1.07 / 34.5
"""The same of area and leakage, of 64 MB (ME-EDRAM-LEAK); what refreshing takes is not printed."""
STT_READ: Points = ((2 * MIB, 1.854 / 0.608), (32 * MIB, 2.521 / 1.794), (128 * MIB, 1.0))
"""STT-MRAM's read time over SRAM's, NVSim, 22 nm (ME-STT22); they cross at 128 MB (ME-STT-X; Destiny says above 32)."""
STT_WRITE: Points = ((2 * MIB, 5.27 / 0.419), (32 * MIB, 5.64 / 1.072))
STT_AREA: Points = ((2 * MIB, 0.66 / 1.79), (32 * MIB, 7.66 / 22.7))
STT_LEAKAGE: Points = ((2 * MIB, 0.556 / 2.99), (32 * MIB, 7.5 / 39.0))
"""The same of writes, area and leakage."""


class Array(NamedTuple):
    """An array of a capacity. read_s, write_s: of an access; read_j: of a read; None: not published."""

    read_s: float
    write_s: float | None
    read_j: float | None
    area_mm2: float
    leakage_w: float


def law(points: Points, at: float) -> float:
    """A power law through neighbouring points, and on beyond the last of them."""
    after = next((i for i, (size, _) in enumerate(points) if size >= at), len(points) - 1)
    (low, first), (high, last) = points[max(after, 1) - 1], points[max(after, 1)]
    exponent = log(last / first) / log(high / low)
    return float(first * (at / low) ** exponent)


def array(technology: str, capacity: float) -> Array:
    """What an array of so many bytes is."""
    read, area = law(SRAM_READ_S, capacity), law(SRAM_AREA_MM2, capacity)
    leakage, write = law(SRAM_LEAKAGE_W, capacity), law(SRAM_WRITE_S, capacity)
    if technology == EDRAM:
        times = law(EDRAM_READ, capacity)
        return Array(read * times, None, None, area * EDRAM_AREA, leakage * EDRAM_LEAKAGE)
    if technology == STT:
        return Array(read * law(STT_READ, capacity), write * law(STT_WRITE, capacity), None,
                     area * law(STT_AREA, capacity), leakage * law(STT_LEAKAGE, capacity))  # fmt: skip
    return Array(read, write, law(SRAM_READ_J, capacity), area, leakage)


def mistakes(device: Document) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong with `hierarchy` in a device's document, each with its key."""
    given = device.value(KEY)
    if given is None:
        return
    if not isinstance(given, Mapping):
        yield (KEY,), f"expected levels, e.g. {{l2: {{technology: {EDRAM}}}}}; found {given!r}"
        return
    for level, changes in given.items():
        there = isinstance(device.value(str(level)), Mapping)
        if level not in LEVELS:
            yield (KEY, level), unknown(level, "level", LEVELS)
        elif not there:
            yield (KEY, level), f"the device has no {level}"
        elif not isinstance(changes, Mapping):
            yield (KEY, level), f"expected technology and capacity; found {changes!r}"
        else:
            yield from _of_level(level, changes)


def _of_level(level: str, changes: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    for key, value in changes.items():
        if key == "technology" and value not in TECHNOLOGIES:
            yield (KEY, level, key), unknown(value, "technology", TECHNOLOGIES)
        elif key == "capacity":
            try:
                size = parse(value, "data")
            except Refused as error:
                yield (KEY, level, key), str(error)
                continue
            if not 1 <= size <= MOST:
                yield (KEY, level, key), f"found {value!r}; legal: above 0, up to 1 TiB"
        elif key != "technology":
            yield (KEY, level, key), unknown(key, "key", ("technology", "capacity"))


def changed(device: Document) -> Document:
    """An expanded device with the levels that its `hierarchy` makes of it, and without that; as it is where something
    is wrong with it, which is told when it is read."""
    given = device.value(KEY)
    if given is None or any(mistakes(device)):
        return device
    rest = device.without(KEY)
    for level in LEVELS:
        if given.get(level):
            rest = _level(rest, level, given[level], device.at(KEY, level))
    return rest


def _level(device: Document, level: str, changes: Mapping[str, Any], place: Document) -> Document:
    """A device with one level in another technology or of another capacity."""
    try:
        old = parse(_value(device, level, "capacity"), "data")
        latency, rate = (
            parse(_value(device, level, key), unit) for key, unit in (("latency", "time"), ("bandwidth", "data/time"))
        )
    except (Refused, TypeError, ValueError):
        return device  # what is wrong with the level itself is told when it is read
    technology, given = changes.get("technology", SRAM), changes.get("capacity")
    new = old if given is None else parse(given, "data")
    more = array(technology, new).read_s - array(SRAM, old).read_s
    if technology == SRAM and new == old:
        return device
    said = f"as {technology} of {new / MIB:g} MiB by hwmodels/hierarchy.py"
    device = _with(device, level, "capacity", f"{round(new)} B", said, place)
    device = _with(device, level, "latency", f"{latency + more!r} s", said, place)
    device = _with(device, level, "bandwidth", f"{rate * min(1.0, latency / (latency + more))!r} B/s", said, place)
    for behind in BEHIND.get(level, ()):
        if isinstance(device.value(behind), Mapping):
            waits = parse(_value(device, behind, "latency"), "time") + more
            device = _with(device, behind, "latency", f"{waits!r} s", f"behind {level}, {said}", place)
    return device


def _value(device: Document, *path: str) -> Any:
    leaf = device.value(*path)
    return leaf["value"] if isinstance(leaf, Mapping) else leaf


def _with(device: Document, level: str, key: str, value: str, said: str, place: Document) -> Document:
    """A device with a figure of a level changed, and in its source how."""
    leaf = device.value(level, key)
    source = leaf.get("source", "") if isinstance(leaf, Mapping) else ""
    figure = {"value": value, "kind": "assumed", "source": f"{said}; was {_value(device, level, key)}: {source}"}
    return merge(device, Document(figure, {(): place.place(())}).under(level, key))
