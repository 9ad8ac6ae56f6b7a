"""Parts of published steps beside ours: what they add up to."""

import pytest

from hwmodels.document import read
from hwmodels.units import MS_NS
from sim.serving.parts import STEP, of_row
from sim.serving.rows import FILE, batch, instance, rows


def test_parts_of_one_micro_batch_add_up_to_the_step() -> None:
    """Kernels one after another are the step without its embedding and head; in two halves they are more than it."""
    row = next(row for row in rows() if row["id"] == "SG-DC-2K-off")
    parts, own = of_row(row), instance(row).grid.decoding
    layers = sum(ms for name, ms in parts.items() if name != STEP) * len(own.order)
    assert layers == pytest.approx((own.ns(batch(row)) - own.ends_ns(batch(row))) / MS_NS, rel=1e-6)
    halves = of_row({**row, "overlap": True})
    assert sum(ms for name, ms in halves.items() if name != STEP) > halves[STEP]
    assert halves["experts"] > parts["experts"]


def test_every_published_part_is_of_a_row_that_is_compared() -> None:
    compared = {row["id"] for row in rows()}
    assert set(read(FILE).content["parts"]) <= compared
