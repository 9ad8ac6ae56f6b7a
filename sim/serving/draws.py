"""A served load under other chance and other prices: the same draws for every load, so that two of them are paired.

Each draw has a seed of its own, for arrivals, lengths, routing, drafts and failures, and has prices wrong by class of
kernel: by as much as rows of a class were missed by the others of their kind (`sim.serving.measured.spread`), or as the
ladder of hwmodels says of what it prices. What a load would take on a card whose rows are another's is not in it.
"""

from dataclasses import replace
from typing import Any

from sim.serving.answers import figures
from sim.serving.system import run
from sim.serving.values import Serve

DRAWS = 8
"""Of a load; each is a run."""


def drawn(serve: Serve) -> list[dict[str, Any]]:
    """Figures of each draw, as in result.json under `serve`. Raises Refused."""
    loads = (replace(serve, seed=draw, draw=draw) for draw in range(1, DRAWS + 1))
    return [figures(load, *run(load)) for load in loads]
