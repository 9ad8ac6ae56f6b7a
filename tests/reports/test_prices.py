"""Price shares in either form, and every source with the time it accounts for."""

from dataclasses import replace

import numpy as np

from reports import prices
from tests.reports import sample


def test_flat_and_grouped_shares() -> None:
    flat = {"roofline": 0.2, "measured": 0.8}
    assert prices.shares({"price_shares": flat}) == {"": {"measured": 0.8, "roofline": 0.2}}
    grouped = {"compute": flat, "communication": {"published": 1.0}}
    assert list(prices.shares({"price_shares": grouped})) == ["compute", "communication"]
    assert prices.shares({}) == {}


def test_sources_are_escaped_and_sorted_by_time() -> None:
    """Each with a time: of the step's spans, and of the pair's kernels by themselves."""
    result = sample.result()
    for spans in (result.spans, result.pair):
        rows = prices.source_rows(spans, result.price_sources)
        times = [int((spans.end - spans.start)[spans.price == p].sum()) for p in range(len(spans.prices))]
        assert {row[0] for row in rows} == {name for name, time in zip(spans.prices, times, strict=True) if time}
        assert rows[0][0] == spans.prices[max(range(len(times)), key=times.__getitem__)]
        assert all(row[1].split()[0] not in ("", "0") for row in rows)
    assert any("&lt;of this op&gt; &amp; kind" in row[2] for row in rows)
    made = prices.section(result)
    assert made is not None and '<td class="n"></td>' not in made.body
    heads = (
        "Sources of the step, times summed over all positions and lanes (",
        "Sources of the pair (forward of stage 7",
    )
    assert all(f"<summary>{head}" in made.body for head in heads) and made.body.count("Sum of times") == 2


def test_prices_of_equal_time_go_by_name() -> None:
    spans = sample.result().spans
    level = replace(spans, start=np.arange(len(spans)), end=np.arange(len(spans)) + 1, price=np.arange(len(spans)) % 4)
    names = [row[0] for row in prices.source_rows(level.where(np.arange(len(spans)) < 400), {})]
    assert len(names) == 4 and names == sorted(names)


def test_a_piece_for_every_kind() -> None:
    made = prices.section(sample.result())
    assert made is not None
    assert made.body.count('<span style="flex') == 4
    assert "measured 61.0 %" in made.body


def test_no_shares_no_section() -> None:
    assert prices.section(sample.chunk_times()) is None
