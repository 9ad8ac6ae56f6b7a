"""How many tokens each rank sends to each in an exchange of experts: alike, or as `python -m sim tokens` writes them.

A token goes once to every rank that has one of its experts. `sim tokens SCENARIO --format json` says how many tokens a
rank receives, not from whom: senders are taken as alike, each sending its part (what chance adds to one sender is not
in the file).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.refused import Refused
from sim.scenario.shelves import SCENARIOS

Counts = tuple[tuple[int, ...], ...]
"""[sender][receiver]."""
DRAWN = {
    "v3": ("v3_sampled.yaml", "cluster.nodes=16", "batch.sequences=1024"),
    "qwen3-30b": (
        "qwen3_30b_overlap.yaml", "cluster.nodes=1", "batch.sequences=64", "batch.micro_batch=2",
        "routing.kind=sampled",
    ),
}  # fmt: skip
"""Shape of an exchange -> a scenario of it on few nodes, whose gate draws the tokens."""
SPREAD = 1.0
"""Spread of experts' popularity in uneven traffic: over eight ranks the hottest receives 1.5 times the mean of tokens.
Chosen to be uneven, as no published training is."""


class Traffic(NamedTuple):
    """tokens: of a rank; routing: what the rows call it; home: the way back, where every row is one of its own."""

    routing: str
    tokens: int
    counts: Counts
    home: bool = False

    def held(self, rank: int) -> int:
        """Rows in a rank's memory before it sends: its tokens, or all that it received of others."""
        return sum(self.counts[rank]) if self.home else self.tokens


def split(tokens: int, received: Sequence[int]) -> Counts:
    """Every receiver's tokens over all senders, as evenly as whole tokens go, no sender more than it has."""
    ranks = len(received)
    counts = tuple(
        tuple(whole // ranks + ((sender - receiver) % ranks < whole % ranks) for receiver, whole in enumerate(received))
        for sender in range(ranks)
    )
    if max(map(max, counts)) > tokens:
        raise ValueError(f"a rank receives {max(received)} tokens, more than {ranks} ranks of {tokens} have")
    return counts


def balanced(uneven: Traffic) -> Traffic:
    """As many tokens, every rank receiving the same."""
    ranks, total = len(uneven.counts), sum(map(sum, uneven.counts))
    each = [total // ranks + (rank < total % ranks) for rank in range(ranks)]
    return Traffic("balanced", uneven.tokens, split(uneven.tokens, each))


def command(shape: str, ranks: int) -> list[str]:
    """Words behind `python -m` that write the uneven tokens of a shape."""
    scenario, *words = DRAWN[shape]
    drawn = [f"parallel.expert={ranks}", *words, f"routing.spread={SPREAD}"]
    return ["sim", "tokens", str(SCENARIOS / scenario), *drawn, "--format", "json"]


def read(file: Path, ranks: int) -> Traffic:
    """The most uneven layer of a file, of its first expert group in its first micro-batch. Raises Refused."""
    try:
        return of(json.loads(file.read_text(encoding="utf-8")), ranks)
    except (KeyError, TypeError, json.JSONDecodeError):
        raise Refused("is not what `python -m sim tokens SCENARIO --format json` writes", str(file)) from None
    except ValueError as error:
        raise Refused(str(error), str(file)) from None


def of(table: Mapping[str, Any], ranks: int) -> Traffic:
    """The same of a table."""
    if table["group"] != ranks:
        hint = f"run `sim tokens` with parallel.expert={ranks}"
        raise ValueError(f"has expert groups of {table['group']} ranks, {ranks} are here; {hint}")
    layers = {each["layer"]: each["first_micro_batch"]["received"][:ranks] for each in table["layers"]}
    layer = max(layers, key=lambda each: max(layers[each]) / sum(layers[each]))
    return Traffic(f"{table['routing']}, layer {layer}", table["tokens"], split(table["tokens"], layers[layer]))


def back(traffic: Traffic) -> Traffic:
    """The way home."""
    return traffic._replace(counts=tuple(zip(*traffic.counts, strict=True)), home=not traffic.home)
