"""Who sends how many tokens to whom, alike and as `python -m sim tokens` says."""

import json
from pathlib import Path
from typing import Any

import pytest

from hwmodels.refused import Refused
from numerics.card import node_traffic
from sim.__main__ import main


def test_all_tokens_arrive_and_senders_differ_by_one_at_most() -> None:
    received = [10, 3, 0, 7]
    counts = node_traffic.split(4, received)
    assert [sum(column) for column in zip(*counts, strict=True)] == received
    assert all(max(column) - min(column) <= 1 for column in zip(*counts, strict=True))
    with pytest.raises(ValueError, match="more than 4 ranks of 2"):
        node_traffic.split(2, received)


def test_balanced_traffic_has_as_many_tokens() -> None:
    even = node_traffic.balanced(node_traffic.Traffic("skewed", 9, ((1, 2), (3, 5))))
    assert [sum(column) for column in zip(*even.counts, strict=True)] == [6, 5] and even.tokens == 9


def test_the_way_back_is_the_way_out_turned_round() -> None:
    out = node_traffic.Traffic("x", 9, ((1, 2), (3, 4)))
    assert node_traffic.back(out).counts == ((1, 3), (2, 4)) and [
        node_traffic.back(out).held(rank) for rank in (0, 1)
    ] == [4, 6]
    assert node_traffic.back(node_traffic.back(out)) == out


@pytest.mark.parametrize("shape, tokens", [("v3", 4096), ("qwen3-30b", 8192)])
def test_the_most_uneven_layer_of_what_sim_tokens_writes(
    shape: str, tokens: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(node_traffic.command(shape, 8)[1:]) == 0
    file = tmp_path / "tokens.json"
    file.write_text(capsys.readouterr().out)
    found, table = node_traffic.read(file, 8), json.loads(file.read_text())
    layer = next(each for each in table["layers"] if found.routing.endswith(f" {each['layer']}"))
    received = layer["first_micro_batch"]["received"][:8]
    assert [sum(column) for column in zip(*found.counts, strict=True)] == received and found.tokens == tokens
    assert 1.4 < max(received) / sum(received) * 8 < 1.6, "as the docstring of SPREAD says"


@pytest.mark.parametrize("table, words", [
    ({"group": 4}, "expert groups of 4 ranks, 8 are here; run `sim tokens` with parallel.expert=8"),
    ({}, "is not what `python -m sim tokens"), ([], "is not what"),
])  # fmt: skip
def test_other_files_are_refused_in_a_line(table: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(table))
    with pytest.raises(Refused, match=words):
        node_traffic.read(file, 8)
