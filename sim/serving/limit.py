"""The largest load within objectives: the rate of requests at which a part of all of them keeps both."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hwmodels.refused import Refused
from hwmodels.units import MILLI, format_quantity
from sim.serving import system
from sim.serving.answers import answers
from sim.serving.values import CLOSED, TRACE, Serve

KEPT = 0.99
"""Part of all requests that must keep both objectives."""
NEAR = 0.01
"""Relative width of the interval in which the rate is left."""
DOUBLINGS = 40
ALONE = MILLI
"""Requests in the system on average below which each is as good as alone."""
MOST = 8_000
"""Requests of a run that is tried, at most."""


class Point(NamedTuple):
    """A load and what it comes to. rate: requests a second (a trace: how many times as fast as it came). part: of
    requests that keep both objectives. ttft_s, tpot_s: 99th and 50th part. output: tokens/s a decoding GPU. alone:
    whether requests do not meet, so that a smaller load changes nothing more."""

    rate: float
    part: float
    ttft_s: float
    tpot_s: float
    output: float
    alone: bool


def point(serve: Serve, rate: float) -> Point:
    """A scenario at another rate."""
    asked, log = system.run(at_rate(serve, rate))
    content = answers(serve, asked, log)
    apart = bool((log.arrival[1:] >= np.maximum.accumulate(log.last)[:-1]).all())
    return Point(
        rate, content["goodput"]["part"], content["ttft_s"]["p99"], content["tpot_s"]["p50"] or 0.0,
        content["tokens"]["output_per_s_decode_gpu"], apart or content["in_system"] < ALONE,
    )  # fmt: skip


def at_rate(serve: Serve, rate: float) -> Serve:
    """A scenario whose requests come at another rate, for as long (but for `MOST`): more of them, or a trace's nearer
    together. Raises Refused for a closed loop, which has none."""
    asked = serve.requests
    if asked.arrivals == CLOSED:
        raise Refused(
            "a closed loop has no rate to search; legal: poisson, gamma, trace", key="serve.requests.arrivals"
        )
    if asked.arrivals == TRACE:
        return replace(serve, requests=asked._replace(speed=rate))
    number = max(1, min(round(asked.number * rate / asked.rate), MOST))
    return replace(serve, requests=asked._replace(rate=rate, number=number))


def search(serve: Serve) -> Iterator[Point]:
    """Loads that were tried, the largest within objectives last. Raises Refused where requests that are each alone do
    not keep them, or all at once do."""
    rate = serve.requests.speed if serve.requests.arrivals == TRACE else serve.requests.rate
    tried = point(serve, rate)
    yield tried
    step = 2.0 if tried.part >= KEPT else 0.5
    for _ in range(DOUBLINGS):
        if step < 1 and tried.alone:
            takes = f"TTFT p99 {_time(tried.ttft_s)}, TPOT p50 {_time(tried.tpot_s)}"
            what = f"{tried.part:.1%} of requests keep both where each is alone ({takes}); {KEPT:.0%} must"
            raise Refused(what, key="serve.objectives")
        after = point(serve, tried.rate * step)
        yield after
        if (after.part >= KEPT) != (tried.part >= KEPT):
            break
        tried = after
    else:
        what = f"{tried.part:.1%} of requests keep both even at a load of {tried.rate:.3g}; look for more requests"
        raise Refused(f"{what} (serve.requests.count), or for shorter times", key="serve.objectives")
    low, high = sorted((tried, after), key=lambda each: each.rate)
    while high.rate / low.rate > 1 + NEAR:
        middle = point(serve, (low.rate * high.rate) ** 0.5)
        yield middle
        low, high = (middle, high) if middle.part >= KEPT else (low, middle)
    yield low


def _time(seconds: float) -> str:
    return format_quantity(seconds, "time")
