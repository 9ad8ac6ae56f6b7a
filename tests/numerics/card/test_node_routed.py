"""Exchanges of drawn tokens: every row has a place of its own, and eight CPU processes send them by all-to-all."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from numerics.card import node_routed, node_traffic
from numerics.card.node_exchange import EXCHANGES
from tests.numerics.card import ranks

COUNTS = ((3, 1, 0), (2, 0, 4), (1, 1, 1))


def test_rows_of_all_senders_fill_every_receiver_without_a_gap() -> None:
    places: dict[int, list[int]] = {0: [], 1: [], 2: []}
    out = node_traffic.Traffic("sampled", 5, COUNTS)
    for rank, sent in enumerate(COUNTS):
        rows, peers, there = node_routed.routes(out, rank)
        assert set(rows) <= set(range(5)) and [peers.count(peer) for peer in range(3)] == list(sent)
        for peer, place in zip(peers, there, strict=True):
            places[peer].append(place)
    assert [sorted(each) for each in places.values()] == [list(range(6)), list(range(2)), list(range(5))]


def test_on_the_way_home_every_row_that_came_goes_once() -> None:
    home = node_traffic.back(node_traffic.Traffic("sampled", 5, COUNTS))
    for rank, received in enumerate((6, 2, 5)):
        assert sorted(node_routed.routes(home, rank)[0]) == list(range(received))


def test_a_window_holds_the_most_that_any_rank_receives_on_either_way() -> None:
    """By hand: 6 rows of 14,336 bytes on the way out; rank 1 gets its 6 back on the way home."""
    drawn = {"v3": node_traffic.Traffic("sampled", 5, COUNTS)}
    assert node_routed.room(drawn) == 6 * 14336 // 8
    assert all(exchange.row_bytes % node_routed.WORD == 0 for exchange in EXCHANGES)


def test_eight_processes_exchange_drawn_tokens_both_ways_and_say_that_it_is_by_all_to_all(tmp_path: Path) -> None:
    received = [8, 12, 9, 30, 10, 11, 8, 8]
    layers = [{"layer": 4, "first_micro_batch": {"received": received}}]
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"group": 8, "tokens": 16, "routing": "sampled", "layers": layers}))
    words = ["--device", "cpu", "--tokens", f"v3={file}", "--out", str(tmp_path)]
    said = ranks.run(8, "numerics.card.node_routed", *words, said=tmp_path / "said")
    assert said.count("no symmetric memory: symmetric memory is of GPUs") == 1
    assert said.count("exchanges go by all-to-all instead") == 1
    told = json.loads((tmp_path / "node_routed.json").read_text())
    assert told["way"] == "all-to-all" and told["about"]["world"] == 8
    found = {(row["name"], row["routing"]): row["most_received_rows"] for row in told["alone"]}
    names = ["v3 dispatch fp8", "v3 dispatch bf16", "v3 combine bf16"]
    assert set(found) == {(name, way) for name in names for way in ("balanced", "sampled, layer 4")}
    assert found["v3 dispatch fp8", "balanced"] == 12 and found["v3 dispatch fp8", "sampled, layer 4"] == 30
    assert all(row["kernel_beside_us"] > 0 and row["sms"] == 0 for row in told["beside"])
