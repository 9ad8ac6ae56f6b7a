"""The figures of `timing` by generation of GPUs, and how far off collectives with them are: figures.json."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.nccl.timing import Figures
from hwmodels.nccl.way import Way

FILE = Path(__file__).parent / "figures.json"
FAR_SPREAD = 0.35
"""Relative spread of a collective across NVLink domains: 122 of 130 published all-reduces of a few clusters came back
within that (docs/COLLECTIVES.md); nothing was published of other collectives."""


class Fitted(NamedTuple):
    """Figures of a generation. spreads: way in words -> root mean square of the logarithm of predicted over measured
    times of collectives that were left out of the fit."""

    figures: Figures
    spreads: Figures


@cache
def load(architecture: str) -> Fitted:
    """The figures of an architecture. Raises KeyError where none were measured."""
    return Fitted(**stored()["generations"][architecture])


def stored() -> dict[str, Any]:
    """What the file holds: `source`, and figures and spreads by architecture."""
    held: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return held


def spread(fitted: Fitted, way: Way, domains: int) -> float:
    """Of a collective on a way; that of its worst way where nobody measured it."""
    if domains > 1:
        return FAR_SPREAD
    return fitted.spreads.get(str(way), max(fitted.spreads.values()))
