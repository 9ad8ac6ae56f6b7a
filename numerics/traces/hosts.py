"""What the host of a trace takes for an operation, and how long a device waited for it.

An operation is one elementwise kernel by its own operator (an addition, a product), as `hwmodels.node.Launch` counts:
from its launch to that of the next such one on the same thread, forward and in nodes of autograd. The profiler's own
work is in it.
"""

from typing import NamedTuple

import numpy as np

from hwmodels.units import US_NS
from numerics.traces.intervals import Ints
from numerics.traces.joins import NODE, around, launches
from numerics.traces.trace import OPERATOR, Trace

SIMPLE = frozenset(f"aten::{name}{tail}" for name in ("add", "sub", "mul", "div", "neg") for tail in ("", "_"))
"""Operators that launch one elementwise kernel."""
LEAST = 3
"""Pairs of launches that make a figure."""
PATIENT_NS = 5 * US_NS
"""A kernel that starts within so long of its launch was waited for: the queue before it was empty."""


class Host(NamedTuple):
    """forward_us, backward_us: for an operation, 0 where too few follow each other. waited: part of the time between
    the first kernel and the last in which the device had nothing to do and the next kernel was not launched yet."""

    forward_us: float
    backward_us: float
    waited: float


def host(trace: Trace) -> Host:
    """Of the first device's launches."""
    launch = launches(trace)
    joined = np.flatnonzero(launch >= 0)
    if not len(joined):
        return Host(0.0, 0.0, 0.0)
    start, thread = (trace.host[column][launch[joined]] for column in ("start_ns", "thread"))
    nodes = np.array([bool(NODE.search(text)) for text in trace.texts], np.bool_)
    operators = np.flatnonzero(trace.host["kind"] == OPERATOR)
    own = around(trace, operators, start, thread, elsewhere=False)
    within = around(trace, operators[nodes[trace.host["name"][operators]]], start, thread, elsewhere=False) >= 0
    simple = np.array([index >= 0 and trace.texts[trace.host["name"][index]] in SIMPLE for index in own], np.bool_)
    begun = np.where(own >= 0, trace.host["start_ns"][own], start)
    steps = [_step_us(begun[chosen], thread[chosen], simple[chosen]) for chosen in (~within, within)]
    return Host(*steps, _waited(trace, joined, launch))


def _step_us(start: Ints, thread: Ints, simple: Ints) -> float:
    """Median time from the start of one simple operation to that of the next, nothing being launched between."""
    order = np.lexsort((start, thread))
    start, thread, simple = start[order], thread[order], simple[order]
    both = simple[:-1] & simple[1:] & (thread[:-1] == thread[1:]) & (start[1:] > start[:-1])
    steps = np.diff(start)[both]
    return float(np.median(steps)) / US_NS if len(steps) >= LEAST else 0.0


def _waited(trace: Trace, joined: Ints, launch: Ints) -> float:
    """See `Host`."""
    device, first = trace.device, trace.device["device"][joined] == 0
    chosen = joined[first]
    if not len(chosen):
        return 0.0
    begin = device["start_ns"][chosen]
    order = np.argsort(begin, kind="stable")
    begin, ends = begin[order], np.maximum.accumulate((begin + device["duration_ns"][chosen])[order])
    launched = trace.host["start_ns"][launch[chosen]][order]
    idle = np.clip(begin[1:] - ends[:-1], 0, None)
    late = launched[1:] + PATIENT_NS > ends[:-1]  # not yet there, or just, when the device fell idle
    whole = int(ends[-1] - begin[0])
    return float(idle[late].sum()) / whole if whole else 0.0
