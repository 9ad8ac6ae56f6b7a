"""What the host takes for an operation, and how long a device waits for it."""

import json
from pathlib import Path

import pytest

from numerics.traces.hosts import Host, host
from numerics.traces.trace import read_trace

TRACES = Path(__file__).parents[2] / "fixtures" / "traces"


def test_a_step_that_its_host_binds_waits_for_it():
    small, dense = (host(read_trace(TRACES / f"{name}.json.gz")) for name in ("small", "dense"))
    assert small.waited > 0.7 and dense.waited < 0.02
    assert 25 < small.forward_us < 45 and 25 < small.backward_us < 45  # profiled; 15 and 21 us without the profiler


def test_compiled_steps_have_too_few_operations_to_tell():
    found = host(read_trace(TRACES / "compiled.json.gz"))
    assert (found.forward_us, found.backward_us) == (0.0, 0.0)


def test_a_trace_without_launches_says_nothing():
    assert host(read_trace(Path(__file__).parent / "two_streams.json"))._fields == Host._fields


def test_a_gap_counts_where_the_next_kernel_was_not_there(tmp_path):
    def event(cat, name, ts, dur, **args):
        return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "pid": 1, "tid": 1, "args": args}

    rows = [event("cuda_runtime", "cudaLaunchKernel", at, 1, correlation=i) for i, at in enumerate((0, 1, 100))]
    rows += [event("kernel", "k", at, 20, correlation=i, device=0, stream=7) for i, at in enumerate((2, 32, 104))]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": rows}))
    assert host(read_trace(path)).waited == pytest.approx((104 - 52) / (124 - 2))  # not the 10 us that were queued
