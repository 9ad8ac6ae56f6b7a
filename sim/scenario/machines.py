"""The machine that a scenario names: servers and their fabric, read once for each text.

Documents of machines do not change while we run; a scenario's own changes to them are a part of the text, and so are
the lines on which they stand, for messages name them.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from hwmodels import fabric as fabrics
from hwmodels import node as nodes
from hwmodels.document import Document, KeyPath
from hwmodels.fabric import Fabric
from hwmodels.figure import resolved
from hwmodels.node import Node
from hwmodels.shelf import expand

KEPT = 32
"""Machines that are kept."""


@dataclass(frozen=True)
class Said:
    """A part of a document by what it says, and on which lines."""

    text: str
    key: KeyPath
    part: Document = field(compare=False)


def said(part: Document, key: KeyPath) -> Said:
    """By what it says, to be kept by."""
    return Said(f"{part.content!r} {part.places!r}", key, part)


def node(part: Document, key: KeyPath, path: Path | None) -> tuple[Node, Any]:
    """The server that a part of a scenario describes, and the same as plain values. Raises DocumentError."""
    return _node(said(part, key))


def fabric(part: Document, key: KeyPath, path: Path | None) -> tuple[Fabric, Any]:
    """Likewise the fabric."""
    return _fabric(said(part, key))


@lru_cache(maxsize=KEPT)
def _node(said: Said) -> tuple[Node, Any]:
    whole = nodes.expanded(said.part, said.key)
    built = nodes.build(whole, said.key)
    inner = {f"device.{name}": figure for name, figure in built.device.figures.items()}
    return built, resolved(whole.content, {**built.figures, **inner})


@lru_cache(maxsize=KEPT)
def _fabric(said: Said) -> tuple[Fabric, Any]:
    whole = expand(said.part, fabrics.SHELF, said.key)
    built = fabrics.build(whole, said.key)
    return built, resolved(whole.content, built.figures)
