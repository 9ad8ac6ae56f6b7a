"""Price shares in either form, and every source with the time it accounts for."""

from reports import prices
from tests.reports import sample


def test_flat_and_grouped_shares() -> None:
    flat = {"roofline": 0.2, "measured": 0.8}
    assert prices.shares({"price_shares": flat}) == {"": {"measured": 0.8, "roofline": 0.2}}
    grouped = {"compute": flat, "communication": {"published": 1.0}}
    assert list(prices.shares({"price_shares": grouped})) == ["compute", "communication"]
    assert prices.shares({}) == {}


def test_sources_are_escaped_and_sorted_by_time() -> None:
    result = sample.result()
    rows = prices.source_rows(result)
    assert {row[0] for row in rows} == set(sample.SOURCES)
    assert any("&lt;of this op&gt; &amp; kind" in row[2] for row in rows)
    spans = result.spans
    most = max(range(len(spans.prices)), key=lambda p: int((spans.end - spans.start)[spans.price == p].sum()))
    assert rows[0][0] == spans.prices[most]


def test_a_piece_for_every_kind() -> None:
    made = prices.section(sample.result())
    assert made is not None
    assert made.body.count('<span style="flex') == 4
    assert "measured 61.0 %" in made.body


def test_no_shares_no_section() -> None:
    assert prices.section(sample.chunk_times()) is None
