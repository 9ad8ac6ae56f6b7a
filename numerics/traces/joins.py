"""What belongs together in a trace: a kernel and its launch (by correlation id), a launch and the annotations and host
operators around it (by thread and time), and which repeat of an annotation that is.

Kernels of the backward pass are launched by autograd's own thread, on which nobody annotates: where the launching
thread has no annotation around the launch, the one open on another thread of its process counts (the main thread waits
in it).
"""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from numerics.traces.intervals import Ints, innermost
from numerics.traces.rules import Rules
from numerics.traces.trace import ANNOTATION, LAUNCH, OPERATOR, Trace

NOISE = re.compile(
    r"ProfilerStep#|^PyTorch Profiler|^(1F1B|forward_backward|nn\.Module|Optimizer\.)"
    r"|^## Call |^Torch-Compiled Region|^(TorchDynamo|Pregraph|Inductor|AOTDispatcher|CompiledFunction)"
    r"|^CachingAutotuner|inductor_wrapper_call$|\(dynamo_timed\)$"
    r"|^(nccl|rccl|gloo|ucc|mpi|xccl|c10d):|^(FSDP::|FullyShardedDataParallel\.|(Distributed)?DataParallel\.)"
)
"""Annotations that are not phases when the rules name none: whole steps, the profiler's own, and those that torch
writes around compiled graphs, collectives and the hooks of its wrappers (record_function in torch 2.13)."""


NODE = re.compile(r"^\w+Backward\d*$")
"""Host operators that are nodes of autograd: what a backward calls for each operator of the forward."""
SAID = ("name", "dims", "types", "strides", "given")
"""What host events say of an operator: columns of the trace."""


@dataclass(frozen=True)
class Work:
    """Pieces of work in launch order, as columns of one length.

    start_ns, end_ns; name: index into texts; device: index of the trace's devices (0 for the host); stream: a stream
    of a device, or a host thread; phase: index into `phases` or -1; repeat: which occurrence of that phase, from 0;
    operator: text, the innermost host operator around the launch, or -1; dims, types, strides, given: texts of its
    operands' dimensions, types and strides and of its other arguments, or -1; node: text, the node of autograd around
    it, or -1; grid [n, 3] (0: no kernel); shared_bytes; joined:
    its launch was found, so that its phase is known. host: operators of the host, not kernels.
    """

    host: bool

    texts: tuple[str, ...]
    phases: tuple[str, ...]
    start_ns: Ints
    end_ns: Ints
    name: Ints
    device: Ints
    stream: Ints
    phase: Ints
    repeat: Ints
    operator: Ints
    dims: Ints
    types: Ints
    strides: Ints
    given: Ints
    node: Ints
    grid: Ints
    shared_bytes: Ints
    joined: Ints

    def phase_name(self, index: int) -> str:
        return self.phases[self.phase[index]] if self.phase[index] >= 0 else ""


def join(trace: Trace, rules: Rules) -> Work:
    """Kernels of the trace joined to what launched them; without kernels, the host operators themselves."""
    return _kernels(trace, rules) if trace.kernels else _operators(trace, rules)


def _kernels(trace: Trace, rules: Rules) -> Work:
    device, host = trace.device, trace.host
    start = device["start_ns"]
    launch = launches(trace)
    joined = launch >= 0
    time = np.where(joined, host["start_ns"][launch], start) if len(host["start_ns"]) else start
    thread = np.where(joined, host["thread"][launch], -1) if joined.any() else np.full(len(start), -1)
    order = np.lexsort((start, device["correlation"], time))
    phase, repeat, phases = _phases(trace, rules, time, thread)
    phase, repeat = np.where(joined, phase, -1), np.where(joined, repeat, -1)  # while it ran, the host was elsewhere
    operator = around(trace, np.flatnonzero(host["kind"] == OPERATOR), time, thread, elsewhere=False)
    known = operator >= 0
    said = (np.where(known, host[c][operator], -1) if known.any() else operator for c in SAID)
    grid = np.stack([device[f"grid_{axis}"] for axis in "xyz"], 1).astype(np.int64)
    streams, stream = np.unique(np.stack([device["device"], device["stream"]], 1), axis=0, return_inverse=True)
    labels = streams[:, 1] if len(set(streams[:, 0])) == 1 else np.arange(len(streams))
    columns = (
        start, start + device["duration_ns"], device["name"], device["device"], labels[stream.ravel()], phase, repeat,
        *said, _nodes(trace, time, thread), grid, device["shared_bytes"], joined,
    )  # fmt: skip
    return Work(False, trace.texts, phases, *(np.asarray(c, np.int64)[order] for c in columns))


def _nodes(trace: Trace, time: Ints, thread: Ints) -> Ints:
    """For each launch the text of the innermost node of autograd that makes it, or -1."""
    wanted = np.array([bool(NODE.search(text)) for text in trace.texts], np.bool_)
    spans = np.flatnonzero((trace.host["kind"] == OPERATOR) & wanted[trace.host["name"]])
    node = around(trace, spans, time, thread, elsewhere=False)
    return np.where(node >= 0, trace.host["name"][node], -1) if len(spans) else node


def launches(trace: Trace) -> Ints:
    """Index of each kernel's launch among the host events, or -1: none, or several with its correlation id."""
    host = trace.host
    calls = np.flatnonzero(host["kind"] == LAUNCH)
    wanted = trace.device["correlation"]
    if not len(calls):
        return np.full(len(wanted), -1, np.int64)
    keys, first, times = np.unique(host["correlation"][calls], return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    sure = (keys[place] == wanted) & (times[place] == 1) & (wanted >= 0)
    return np.where(sure, calls[first[place]], -1)


def _phases(trace: Trace, rules: Rules, time: Ints, thread: Ints) -> tuple[Ints, Ints, tuple[str, ...]]:
    """For each piece of work its phase and which repeat of it; and the phases' names in order of first appearance."""
    host = trace.host
    wanted = [bool(_is_phase(text, rules)) for text in trace.texts]
    spans = np.array([i for i in np.flatnonzero(host["kind"] == ANNOTATION) if wanted[host["name"][i]]], np.int64)
    spans = spans[np.argsort(host["start_ns"][spans], kind="stable")]
    names: dict[str, int] = {}
    counts: dict[int, int] = {}
    phase = np.full(len(host["start_ns"]) + 1, -1, np.int64)  # the last entry serves index -1
    repeat = phase.copy()
    for span in spans:
        number = names.setdefault(trace.texts[host["name"][span]], len(names))
        phase[span], repeat[span] = number, counts.get(number, 0)
        counts[number] = counts.get(number, 0) + 1
    inside = around(trace, spans, time, thread, elsewhere=True)
    return phase[inside], repeat[inside], tuple(names)


def _is_phase(text: str, rules: Rules) -> bool:
    return bool(rules.phases.search(text)) if rules.phases else not NOISE.search(text)


def around(trace: Trace, spans: Ints, time: Ints, thread: Ints, elsewhere: bool) -> Ints:
    """Innermost of the host events `spans` around each (time, thread), as index of the host event, or -1.

    elsewhere: where the thread has none, one of another thread of its process counts.
    """
    host = trace.host
    out = np.full(len(time), -1, np.int64)
    if not len(spans):
        return out
    starts, ends = host["start_ns"][spans], host["start_ns"][spans] + host["duration_ns"][spans]
    processes = {process: i for i, (process, _) in enumerate(trace.threads)}
    of_process = np.array([processes[process] for process, _ in trace.threads])
    threads = host["thread"][spans]
    for places, queried in ((threads, thread), *([(of_process[threads], of_process[thread])] if elsewhere else [])):
        for place in np.unique(places):
            mine, queries = places == place, np.flatnonzero((queried == place) & (out < 0))
            inner = innermost(starts[mine], ends[mine], time[queries])
            out[queries] = np.where(inner >= 0, spans[mine][inner], -1)
    return out


def _operators(trace: Trace, rules: Rules) -> Work:
    """Host operators as work: on each thread the outermost that is not a wrapper; what it calls is inside it."""
    host = trace.host
    kept = np.array(_outermost(trace, rules), np.int64)
    time, thread = host["start_ns"][kept], host["thread"][kept]
    phase, repeat, phases = _phases(trace, rules, time, thread)
    none = np.zeros(len(kept), np.int64)
    columns = (
        time, time + host["duration_ns"][kept], host["name"][kept], none, thread, phase, repeat,
        *(host[c][kept] for c in SAID), none - 1, np.zeros((len(kept), 3), np.int64), none, none + 1,
    )  # fmt: skip
    return Work(True, trace.texts, phases, *(np.asarray(c, np.int64) for c in columns))


def _outermost(trace: Trace, rules: Rules) -> list[int]:
    """Operators that count, in order of their start. A wrapper (or an operator no rule knows) that calls others is
    opened; one that calls nothing counts itself."""
    host = trace.host
    end = host["start_ns"] + host["duration_ns"]
    opened = [_opens(text, rules) for text in trace.texts]
    out: list[int] = []
    inside: dict[int, int] = {}  # thread -> end of the operator that counts
    for index, calls in _nested(trace):
        thread = int(host["thread"][index])
        if host["start_ns"][index] < inside.get(thread, -1) or (calls and opened[host["name"][index]]):
            continue
        inside[thread] = int(end[index])
        out.append(index)
    return out


def _opens(text: str, rules: Rules) -> bool:
    named = rules.classify(text, host=True)
    return named.kind == "wrapper" or not named.known


def _nested(trace: Trace) -> list[tuple[int, bool]]:
    """Operators by start, outer before inner, and whether each calls another on its thread."""
    host = trace.host
    operators = np.flatnonzero(host["kind"] == OPERATOR)
    start, end = host["start_ns"], host["start_ns"] + host["duration_ns"]
    operators = operators[np.lexsort((-end[operators], start[operators], host["thread"][operators]))]
    thread = host["thread"]
    calls = [bool(thread[a] == thread[b] and start[b] < end[a]) for a, b in pairwise(operators)]
    pairs = zip(operators, [*calls, False], strict=False)
    return sorted(((int(i), c) for i, c in pairs), key=lambda p: (start[p[0]], -end[p[0]]))
