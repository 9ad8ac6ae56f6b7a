"""Columns of numbers inside a page: deflated, in base64, and read back by the browser's own decompressor."""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FAST = 1
TYPES: dict[str, np.dtype[Any]] = {"f8": np.dtype("<f8"), "i4": np.dtype("<i4")}
"""What the browser reads as Float64Array and Int32Array."""


def pack(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """`columns` of equal length as {"rows", "columns": [[name, type, first byte]], "data"}.

    Floats become float64 and integers int32; float64 columns go first, so that every column starts aligned.
    """
    rows = {len(column) for column in columns.values()}
    assert len(rows) <= 1, f"columns of unequal length: {sorted(rows)}"
    kinds = {name: "f8" if column.dtype.kind == "f" else "i4" for name, column in columns.items()}
    heads, pieces, offset = [], [], 0
    for name in sorted(columns, key=kinds.__getitem__):
        piece = columns[name].astype(TYPES[kinds[name]]).tobytes()
        heads.append([name, kinds[name], offset])
        pieces.append(piece)
        offset += len(piece)
    data = base64.b64encode(zlib.compress(b"".join(pieces), FAST)).decode()
    return {"rows": rows.pop() if rows else 0, "columns": heads, "data": data}


def script_json(data: Any) -> str:
    """`data` as JSON that can stand inside a script element."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
