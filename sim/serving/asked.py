"""Requests as columns: when they come, how long they are, and which blocks of their prompts others share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S
from sim.routing.keyed import generator
from sim.serving import traces
from sim.serving.values import CLOSED, GAMMA, TRACE, Lengths, Requests

Column = npt.NDArray[np.int64]


class Asked(NamedTuple):
    """Requests in the order they come [requests]. arrival: ns (of a closed loop: when its client first may ask; later
    ones when it is answered). prompt, output: tokens. blocks: names of the prompt's blocks, in order, where a trace has
    them, each of `block` tokens."""

    arrival: Column
    prompt: Column
    output: Column
    blocks: Sequence[tuple[int, ...]] = ()
    block: int = 0


def asked(requests: Requests, seed: int) -> Asked:
    """All requests of a scenario. Raises Refused for a trace that cannot be read, and for times beyond all clocks."""
    if requests.arrivals == TRACE:
        return _of_trace(requests)
    random = generator(seed, "lengths")
    prompt, output = (_drawn(each, requests.number, random) for each in (requests.prompt, requests.output))
    return Asked(_arrivals(requests, seed), prompt, output)


def _arrivals(requests: Requests, seed: int) -> Column:
    if requests.arrivals == CLOSED:
        return np.zeros(requests.number, np.int64)
    random, mean = generator(seed, "arrivals"), NS_PER_S / requests.rate
    if requests.arrivals == GAMMA:
        shape = 1 / requests.variation**2
        gaps = random.gamma(shape, mean / shape, requests.number)
    else:
        gaps = random.exponential(mean, requests.number)
    return _whole(np.cumsum(np.rint(gaps)), "rate")


def _whole(times: npt.NDArray[np.float64], key: str) -> Column:
    """Whole ns. Raises Refused where the last is later than a clock of 64 bits tells with ease. key: what says it."""
    if not (last := float(times.max()) / NS_PER_S) <= traces.LATEST_S:
        what = f"the last request would come after {last:.3g} s; legal: up to {traces.LATEST_S:g} s"
        raise Refused(what, key=f"serve.requests.{key}")
    return np.rint(times).astype(np.int64)


def _drawn(lengths: Lengths, count: int, random: np.random.Generator) -> Column:
    """Uniform, the ends included."""
    least = max(1, round(lengths.most * lengths.least_part))
    return random.integers(least, lengths.most, count, endpoint=True)


def _of_trace(requests: Requests) -> Asked:
    rows = traces.read(requests.file, requests.form)
    if requests.number > len(rows):
        what = f"found {requests.number:,}; the trace has {len(rows):,}; legal: up to that, 0 for all of it"
        raise Refused(what, key="serve.requests.count")
    rows = rows[: requests.number] if requests.number else rows
    times = np.array([row.arrival_s for row in rows]) / requests.speed * NS_PER_S
    arrival = _whole(times - times.min(), "speed")
    order = np.argsort(arrival, kind="stable")
    prompt, output = (np.array([row[i] for row in rows], np.int64) for i in (1, 2))
    blocks = tuple(rows[i].blocks for i in order) if any(row.blocks for row in rows) else ()
    return Asked(arrival[order], prompt[order], output[order], blocks, traces.MOONCAKE_BLOCK if blocks else 0)
