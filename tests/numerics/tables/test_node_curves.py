"""Curves of collectives and exchanges, and what leaving one out says."""

from math import log
from pathlib import Path

import pytest

from hwmodels.refused import Refused
from numerics.tables import node_curves
from numerics.tables.node_curves import Point

TIMED = Path(__file__).parents[3] / "numerics" / "card" / "timed"


def curve(*pairs: tuple[float, float]) -> list[Point]:
    return [Point("collective", "x", load, us) for load, us in pairs]


def test_a_power_of_bytes_comes_back_exactly_also_beyond_the_ends() -> None:
    assert node_curves.offs(curve(*((x, 3 * x**0.5) for x in (1.0, 4.0, 16.0, 256.0)))) == pytest.approx([0] * 4)


def test_what_is_left_out_says_nothing_of_itself() -> None:
    """By hand: 10 and 40 us around a load of 4 that took 100: 20 us as the others have it. A twin does not tell."""
    rows = curve((1, 10), (4, 100), (16, 40), (4, 100))
    assert node_curves.offs(rows)[1] == node_curves.offs(rows)[3] == pytest.approx(log(20 / 100))
    assert node_curves.offs(curve((1, 10), (4, 10))) == []


def test_the_hottest_port_is_the_load_of_an_exchange() -> None:
    """By hand: 1.5 x 100 tokens x 2 experts x 8 bytes, of which 3 of 4 come from others."""
    row = {"skew": 1.5, "tokens": 100, "top_k": 2, "row_bytes": 8, "channels": 0, "us": 7.0}
    (point,) = node_curves._exchanges({"about": {"world": 4}, "alone": [row]})
    assert point == Point("exchange", "all_to_all, 4 ranks, all channels, skew 1.5", 1800.0, 7.0)
    drawn = {"routing": "sampled, layer 4", "most_received_rows": 40, "row_bytes": 8, "sms": 20, "us": 7.0}
    (point,) = node_curves._routed({"about": {"world": 4}, "way": "symmetric memory", "alone": [drawn]})
    assert point == Point("exchange", "symmetric memory, 4 ranks, 20 SMs, sampled", 240.0, 7.0)


def test_two_and_four_h200s_are_within_a_tenth_in_the_median() -> None:
    """Of the rows that ship: 100 collectives over two and four GPUs, 48 exchanges over four."""
    made = node_curves.tables(TIMED)
    assert {name: table["left_out"]["rows"] for name, table in made.items()} == {"collectives": 100, "exchanges": 48}
    assert all(table["left_out"]["median"] < 0.10 for table in made.values())
    assert set(made["exchanges"]["provenance"]["inputs"]) == {"node.json", "node_exchange.json"}


def test_a_folder_without_such_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="has none of node"):
        node_curves.points(tmp_path)
