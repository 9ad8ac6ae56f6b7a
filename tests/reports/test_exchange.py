"""Exchanges from inside, as text and as a page."""

import json
import re
from io import StringIO

import pytest

from reports import exchange
from sim.result import ChannelLanes

CHANNEL = ChannelLanes(
    "dispatch(F)", 1_000, (("alone", 1e-6), ("busiest", "network")), ("send", "receive"),
    (("send", 0, 600, ""), ("send", 600, 700, "room at forwarders"), ("receive", 100, 500, "rows"),
     ("receive", 500, 1_000, "")),
    {"network": ((0, 4), (500, 8), (900, 0))}, {"network": 8},
)  # fmt: skip


def test_lanes_are_printed_to_scale() -> None:
    text = StringIO()
    exchange.show([CHANNEL], text, 10)
    lines = text.getvalue().splitlines()
    assert lines[:3] == ["dispatch(F): 1.000 µs", "  alone: 1.000 µs", "  busiest: network"]
    assert lines[3:6] == ["  send     ######f   ", "  receive   ....#####", "  network  5555599990"]
    assert next(line for line in lines if "waits for rows" in line).split()[-4:] == ["400.0", "ns", "40.0", "%"]


def test_the_page_holds_all_that_is_known() -> None:
    page = exchange.render("a <step>", [CHANNEL])
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["channel0"]  # type: ignore[index]
    assert "a &lt;step&gt;" in page and "http://" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert [bar[:4] for bar in data["bars"] if bar[0] == 0] == [
        [0, 0.0, pytest.approx(6e-7), "works"],
        [0, pytest.approx(6e-7), pytest.approx(1e-7), "waits for room at forwarders"],
    ]
    assert data["flying"] == [{"name": "network", "colour": "#009e73", "x": [0.0, 5e-07, 9e-07], "y": [4, 8, 0]}]


def test_what_roles_spend_adds_up() -> None:
    total: dict[str, int] = {}
    for role, _, ns in CHANNEL.spent():
        total[role] = total.get(role, 0) + ns
    assert total == {"send": 700, "receive": 900}
