"""How a library does on a card that it was not measured on: which tables stand for the card, and how far they are off.

`tables/likeness.json` compares prices carried over from another card (by peaks and bandwidth) with published times of
single kernels on the card itself. `python -m numerics calibrate --likeness DIR` writes it.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from hwmodels import attention, power
from hwmodels import tables as calibration
from hwmodels.device import Device
from hwmodels.library import family
from hwmodels.op import Attention, Memory, Op
from hwmodels.tables import FOLDER, Tables

FILE = FOLDER / "likeness.json"
PRODUCTS = {"grouped": "gemm"}
"""Families that were not compared, and the one whose ratio they take."""


class Likeness(NamedTuple):
    """A card, by the name of its device, and a library on it. of: folder of the tables that stand for it. ratios:
    family -> how many times as long as these say, with its spread and the published rows that said so."""

    device: str
    library: str
    of: str
    ratios: Mapping[str, Mapping[str, Any]]

    def ratio(self, op: Op) -> Mapping[str, Any] | None:
        """What was published of an operation's family."""
        name = family(op)
        return self.ratios.get(PRODUCTS.get(name, name))


@cache
def likenesses() -> tuple[Likeness, ...]:
    """All that are known."""
    rows = json.loads(FILE.read_text(encoding="utf-8"))["rows"] if FILE.is_file() else []
    return tuple(Likeness(**row) for row in rows)


def likeness(device: Device, library: str) -> Likeness | None:
    """Of a library on a device, where kernels of it were published."""
    return next((each for each in likenesses() if (each.library, each.device) == (library, device.name)), None)


def shelf(device: Device, library: str) -> tuple[Tables, ...]:
    """Tables in the order they are asked: a library's on the device, its siblings or the card that is like it, before
    the project's own on the device and its siblings."""
    names = list(dict.fromkeys(([device.tables] if device.tables else []) + list(device.siblings)))
    theirs = [f"{name}/{library}" for name in names if library in calibration.libraries(name)]
    like = likeness(device, library)
    return tuple(calibration.load(name) for name in dict.fromkeys([*theirs, *([like.of] if like else []), *names]))


def off(device: Device, tables: Tables | None, op: Op) -> tuple[float, float] | None:
    """How many times as long as a library's tables say an operation takes on a device, and the spread of that, where it
    was published."""
    folder = tables.library.folder if tables and tables.library else ""
    like = likeness(device, folder.partition("/")[2]) if folder else None
    ratio = like.ratio(op) if like and like.of == folder else None
    return (float(ratio["ratio"]), float(ratio["spread"])) if ratio else None


def otherwise(device: Device, tables: Tables | None, op: Op, kernel: str) -> tuple[float, float]:
    """How many times as long as a library's tables say, and the spread of that, where another kernel of attention runs,
    or the power limit is another than their card's; a job's own tables have both as they were."""
    if tables is None or not tables.library or tables.sparse or isinstance(op, Memory):
        return 1.0, 0.0
    other = attention.off(device, kernel, op) if isinstance(op, Attention) else attention.SAME
    limit = power.off(device, tables.device)
    return other.ratio * limit.ratio, math.hypot(other.spread, limit.spread)


def slower(device: Device, tables: Tables | None, op: Op, kernel: str) -> float:
    """How many times as long as a library's tables say, in all."""
    ratio = off(device, tables, op)
    return (ratio[0] if ratio else 1.0) * otherwise(device, tables, op, kernel)[0]
