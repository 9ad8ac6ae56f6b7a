"""Expert exchanges over the GPUs of one node through symmetric memory, tokens to ranks as `python -m sim tokens` says.

A token's row goes once to every rank that has one of its experts: so many SMs write it into that rank's memory
(`numerics.kernels.route`), then all ranks meet; the way back (combine) returns each row to its sender. Sums of what
came back and the order of experts' rows are kernels of their own and not in the time. Without symmetric memory the same
rows go by all-to-all, and a line says so. `python -m numerics.card.node_routed --tokens v3=FILE --out DIR` under
torchrun. Not run on GPUs yet.
"""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from numerics.card import node, node_traffic
from numerics.card.node_exchange import EXCHANGES, Exchange
from numerics.card.node_traffic import Traffic
from numerics.card.node_window import Window, opened

SMS = (4, 8, 16, 20, 24, 32, 64)
"""SMs that move rows; V3's exchange has 20, DeepEP's default is 20 to 24."""
BESIDE_SMS = (8, 20)
WORD = 8
"""Bytes of what a row is made of."""


def routes(traffic: Traffic, rank: int, seed: int = 0) -> tuple[list[int], ...]:
    """What a rank sends: row here, whose memory, row there; in an order that turns to all ranks alike."""
    counts, rows = traffic.counts, traffic.held(rank)
    triples = [
        ((sum(counts[rank][:receiver]) + number) % rows, receiver,
         sum(counts[sender][receiver] for sender in range(rank)) + number)
        for receiver, count in enumerate(counts[rank]) for number in range(count)
    ]  # fmt: skip
    random.Random(seed + rank).shuffle(triples)
    return tuple(map(list, zip(*triples, strict=True))) if triples else ([], [], [])


def pushed(traffic: Traffic, words: int, window: Window, sms: int) -> node.Call:
    """An exchange by so many SMs."""
    from numerics.kernels.route import route

    rank, device = dist.get_rank(), window.mine.device
    source = torch.zeros(traffic.held(rank), words, dtype=torch.int64, device=device)
    way = [torch.tensor(each, dtype=torch.int32, device=device) for each in routes(traffic, rank)]

    def once() -> None:
        route(source, window.pointers, *way, sms)
        window.meet()

    return once


def by_all_to_all(traffic: Traffic, words: int, device: str) -> node.Call:
    """The same rows by the library's all-to-all."""
    rank = dist.get_rank()
    going, coming = list(traffic.counts[rank]), [sent[rank] for sent in traffic.counts]
    source, target = (torch.zeros(sum(n), words, dtype=torch.int64, device=device) for n in (going, coming))
    return lambda: dist.all_to_all_single(target, source, coming, going)


def ways(exchange: Exchange, uneven: Traffic) -> Iterator[Traffic]:
    """Balanced and as drawn, out or home."""
    for traffic in (node_traffic.balanced(uneven), uneven):
        yield node_traffic.back(traffic) if "combine" in exchange.name else traffic


def shape_of(exchange: Exchange) -> str:
    return exchange.name.partition(" ")[0]


def room(drawn: Mapping[str, Traffic]) -> int:
    """Words of a window that holds what any rank receives of any exchange."""
    each = [
        sum(column) * exchange.row_bytes // WORD
        for exchange in EXCHANGES if shape_of(exchange) in drawn
        for traffic in ways(exchange, drawn[shape_of(exchange)]) for column in zip(*traffic.counts, strict=True)
    ]  # fmt: skip
    return max(each)


def calls(
    drawn: Mapping[str, Traffic], device: str, window: Window | None, sms: Sequence[int]
) -> Iterator[tuple[dict[str, Any], node.Call]]:
    """Each exchange by each number of SMs (all-to-all: once, sms 0), with what a row says of it."""
    rank = dist.get_rank()
    for exchange in (each for each in EXCHANGES if shape_of(each) in drawn):
        words = exchange.row_bytes // WORD
        for traffic in ways(exchange, drawn[shape_of(exchange)]):
            most = max(sum(column) for column in zip(*traffic.counts, strict=True))
            about = {
                "name": exchange.name, "routing": traffic.routing, "tokens": traffic.tokens,
                "row_bytes": exchange.row_bytes, "sent_rows": sum(traffic.counts[rank]), "most_received_rows": most,
            }  # fmt: skip
            for count in sms if window else (0,):
                call = pushed(traffic, words, window, count) if window else by_all_to_all(traffic, words, device)
                yield {**about, "sms": count}, call


def alone(drawn: Mapping[str, Traffic], device: str, window: Window | None) -> Iterator[dict[str, Any]]:
    for about, call in calls(drawn, device, window, SMS):
        yield {**about, "us": node.Loop(call, 6, device).alone()}


def beside(
    drawn: Mapping[str, Traffic], device: str, window: Window | None, most: int | None
) -> Iterator[dict[str, Any]]:
    """Each kernel beside each exchange: what each takes alone, and beside the other."""
    stream = None if device == "cpu" else torch.cuda.Stream()
    with torch.cuda.stream(stream):
        works = list(node.kernels(device))[:most]
    for kernel, work in works:
        loop = node.Loop(work, 10, device, stream=stream)
        held = loop.alone()
        for about, call in calls(drawn, device, window, BESIDE_SMS):
            sent = node.Loop(call, 6, device)
            yield {**about, "kernel": kernel, **node.slowed(loop, held, sent)}


def main(words: Sequence[str] | None = None) -> int:
    """One rank of it."""
    parser = node.parser("node_routed")
    parser.add_argument("--tokens", action="append", required=True, metavar="SHAPE=FILE", help="v3=FILE")
    asked = parser.parse_args(words)
    node.begin(asked.device)
    pairs = [each.partition("=") for each in asked.tokens]
    drawn = {shape: node_traffic.read(Path(file), dist.get_world_size()) for shape, _, file in pairs}
    window = opened(room(drawn), asked.device)
    if not window and dist.get_rank() == 0:
        print("exchanges go by all-to-all instead", file=sys.stderr)
    rows: dict[str, Any] = {"way": "symmetric memory" if window else "all-to-all"}
    rows["alone"] = node.listed(alone(drawn, asked.device, window))
    rows["beside"] = node.listed(beside(drawn, asked.device, window, 1 if asked.device == "cpu" else None))
    node.leave(asked.out / "node_routed.json", asked.device, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
