"""Columns survive the way into the page, bit for bit."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.columns import pack, script_json
from tests.reports.sample import unpack

INTS = st.integers(-(2**31), 2**31 - 1)


@given(st.lists(st.tuples(st.floats(allow_nan=False), INTS, INTS)))
def test_columns_come_back_as_they_were(rows: list[tuple[float, int, int]]) -> None:
    columns = {
        "rank": np.array([r[1] for r in rows], dtype=np.int64),
        "start": np.array([r[0] for r in rows], dtype=np.float64),
        "kind": np.array([r[2] for r in rows], dtype=np.int64),
    }
    found = unpack(json.loads(script_json(pack(columns))))
    assert set(found) == set(columns)
    for name, column in columns.items():
        assert found[name].tolist() == column.tolist()
    assert found["start"].dtype == np.float64


def test_every_column_starts_at_a_multiple_of_its_size() -> None:
    packed = pack({"a": np.arange(3), "b": np.arange(3.0), "c": np.arange(3), "d": np.arange(3.0)})
    assert packed["rows"] == 3
    for _, kind, offset in packed["columns"]:
        assert offset % int(kind[1:]) == 0


def test_unequal_lengths_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="unequal"):
        pack({"a": np.arange(3), "b": np.arange(4)})


def test_json_cannot_close_its_script_element() -> None:
    text = script_json({"name": "</script><b>"})
    assert "<" not in text
    assert json.loads(text) == {"name": "</script><b>"}


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json({"x": float("nan")})
