"""Rows that are left out are really gone, errors are what they say, and docs/PRICES.md is what the program writes."""

import csv
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import tables as calibration
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from hwmodels.units import US_NS
from numerics.accuracy import deepgemm, errors, page
from numerics.accuracy.errors import Miss, Repeat, leave_out, points, pricer, score, taken, transfers, without

PUBLISHED = Path(__file__).parents[4] / "shared" / "facts" / "published.csv"
FOUND = calibration.load("h800")
KNOWN = {p.op: p for p in points(FOUND)}


@cache
def misses():
    """Every row left out, worked out when a test first asks."""
    return leave_out()


@cache
def whole():
    return page.page()


def one(of, **like):
    return next(op for op in KNOWN if isinstance(op, of) and all(getattr(op, k) == v for k, v in like.items()))


# --- taking rows out --------------------------------------------------------------------------------------------------


def test_nothing_taken_out_changes_nothing():
    """Fits made again from all rows are the committed ones (to the four digits that tables hold)."""
    again = without(FOUND, frozenset())
    assert again.exact == FOUND.exact and again.memory_fit == FOUND.memory_fit
    for role in ("fprop", "wgrad"):
        for key in ("a_us", "b_us", "rms", "shapes"):
            assert again.wave_fit[role][key] == pytest.approx(FOUND.wave_fit[role][key], rel=2e-3), (role, key)


@pytest.mark.parametrize("op", [one(Gemm, role="wgrad", precision="fp8"), one(GroupedGemm), one(Memory, kind="cast")])
def test_what_is_taken_out_is_gone(op):
    """A row a thousand times too slow changes its own price and, once it is taken out, nothing at all."""
    wrong = {o: (row | {"us": row["us"] * 1000} if o == op else row) for o, row in FOUND.exact.items()}
    spoilt = replace(FOUND, exact=wrong)
    assert without(spoilt, set()) != without(FOUND, set())
    assert without(spoilt, {op}) == without(FOUND, {op})


def test_the_experts_turns_can_be_left_out():
    turns = [op for op in KNOWN if op not in FOUND.exact]
    assert len(turns) == 2 and all(isinstance(op, Gemm) and op.role == "wgrad" for op in turns)
    assert without(FOUND, {turns[0]}).wave_fit["wgrad"]["shapes"] == FOUND.wave_fit["wgrad"]["shapes"] - 1


def test_gaps_grow():
    for op in FOUND.exact:
        if not isinstance(op, Attention):
            assert {op} == taken(FOUND, op, "row") <= taken(FOUND, op, "size") <= taken(FOUND, op, "class")


def test_a_size_takes_every_row_count_with_it():
    op = one(GroupedGemm, n=4096)
    assert not without(FOUND, taken(FOUND, op, "size")).grouped.get((op.n, op.k))
    op = one(Memory, kind="dequantize", rows=34688)
    assert calibration.near(without(FOUND, taken(FOUND, op, "size")), op) == []


def test_no_price_is_its_own_measurement():
    assert not [m for m in misses() if m.rung in ("measured", "roofline")]
    assert len([m for m in misses() if m.gap == "row"]) == len(KNOWN) - len(FOUND.attention)


def test_rows_in_the_tables_cost_what_they_say():
    """The pricer used here is the ladder itself: with nothing taken out, single rows come back exactly."""
    for op, point in KNOWN.items():
        price = pricer(FOUND).price(op)
        if op in FOUND.exact and not isinstance(op, GroupedGemm):
            assert price.rung == "measured" and price.ns / US_NS == pytest.approx(point.us, abs=0.002)


def test_the_roofline_is_never_slower():
    """Nothing was measured faster than the peaks and the bandwidth of the chip allow."""
    for miss in errors.roofline():
        assert miss.rung == "roofline" and miss.error < 0, miss


# --- figures ----------------------------------------------------------------------------------------------------------


def miss(us, priced, flat=1.0, samples=1):
    return Miss(us, priced, flat, "cast", "stream", "row", "held", samples)


def test_a_score_by_hand():
    found = score([miss(10, 11, 20), miss(10, 8, 5), miss(20, 20, 20, samples=2)])
    assert (found.prices, found.median, found.flat_median) == (3, pytest.approx(0.1), pytest.approx(0.5))
    assert found.p95 == pytest.approx(0.1 + 0.9 * 0.1)  # linear between the 2nd and 3rd of 0, 0.1, 0.2
    assert found.total == pytest.approx((11 + 8 + 40) / 60 - 1)
    # truth around the price: |10/11 - 1|, |10/8 - 1|, 0; 90th percentile is 0.8 of the way from the 2nd to the 3rd
    assert found.spread == pytest.approx((1 / 11 + 0.8 * (0.25 - 1 / 11)) / errors.NINETY)
    with pytest.raises(ValueError, match="no prices"):
        score([])


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e4)), min_size=1), st.floats(0.1, 100))
def test_a_score_has_no_unit(pairs, unit):
    one, other = (score(miss(a * u, b * u, a * u) for a, b in pairs) for u in (1.0, unit))
    assert one == pytest.approx(other)
    assert 0 <= one.median <= one.p95 and one.flat_p95 == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("samples", "expected"), [(2, 2 / math.sqrt(math.pi)), (3, 3 / math.sqrt(math.pi)), (4, 2.05875)]
)
def test_expected_range(samples, expected):
    """Closed forms for two and three draws; Tippett's table for four."""
    assert errors.expected_range(samples) == pytest.approx(expected, abs=1e-4)


def test_deviation_by_hand():
    rows = [Repeat("cast", "stream", 30.0, 4, 0.1), Repeat("cast", "stream", 10.0, 4, 0.3)]
    assert errors.deviation(rows) == pytest.approx(math.sqrt((3 * 0.01 + 0.09) / 4))
    assert errors.deviation(rows, of_median=True) == pytest.approx(errors.deviation(rows) * math.sqrt(math.pi / 8))


def test_one_efficiency_a_class():
    op = one(Gemm, n=1536, k=7168)
    same = [errors.Point(op, errors.bound_us(FOUND, op) * f, 1, 0, 0) for f in (1.5, 2.0, 9.0)]
    assert errors.efficiency(FOUND, op, same) == pytest.approx(2.0)
    assert errors.bound_us(FOUND, op) == pytest.approx(2 * 4096 * 1536 * 7168 / (1979e12 * 112 / 132) * 1e6)


# --- what they show ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "gap", "ceiling"),
    [
        ("product, forward and input gradient", "row", 0.03), ("product, grouped", "row", 0.02),
        ("product, grouped", "size", 0.05), ("product, weight gradient", "row", 0.05), ("cast_transpose", "row", 0.06),
    ],
)  # fmt: skip
def test_shapes_left_out_are_found_and_better_than_one_efficiency(label, gap, ceiling):
    found = score(m for m in misses() if (m.label, m.gap) == (label, gap))
    assert found.median < ceiling and found.median < found.flat_median and found.p95 < found.flat_p95


def test_published_rates_are_the_published_ones():
    """numerics.accuracy.deepgemm against the list of published figures, where it is at hand."""
    if not PUBLISHED.exists():
        pytest.skip("the list of published figures is not here")
    with PUBLISHED.open() as file:
        listed = {row["id"]: row["value"] for row in csv.DictReader(file)}
    for p in deepgemm.published():
        op, later = p.op, p.date == deepgemm.UPDATED
        if isinstance(op, Gemm):
            text = listed[f"DG{'2' if later else ''}-{op.m}-{op.n}-{op.k}"].split("/")[0]
        elif "masked" in p.regime:
            text = listed[f"DGM-{op.groups}-{op.rows // op.groups}"].split("/")[op.k == 2048]
        else:
            text = listed[f"DGG-{op.groups}-{op.rows // op.groups}-{op.n}-{op.k}"].split("/")[later]
        assert float(text) == p.tflops, p
    assert len(list(deepgemm.published())) == 24 + 8 + 6


def test_transfer_to_published_rates():
    """On 132 SMs shapes of the tables come within a fifth of every version; a time is FLOPs over the published rate."""
    found = transfers()
    for t in found:
        assert t.us == pytest.approx(t.what.op.flop() / t.what.tflops / 1e6)
        assert t.rung != "measured"
        if t.known and "masked" not in t.what.regime:
            assert abs(t.error) < 0.2, t
    assert sum(t.known for t in found) == 10 + 8 + 6


def test_the_page_is_what_the_program_writes():
    """Fails when a price moves: python -m numerics accuracy --write, and look at the difference."""
    assert page.PAGE.read_text(encoding="utf-8") == whole()


def test_the_page_has_every_class_and_rung():
    text = whole()
    for label in {m.label for m in misses()}:
        assert f"| {label} | row |" in text
    assert all(f"| {rung} |" in text for rung in ("interpolated", "held", "transferred", "roofline"))
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 120
