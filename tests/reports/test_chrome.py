"""Chrome traces: valid, nested, complete, and the same bytes each time."""

import gzip
import json
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.units import US_NS
from reports import chrome
from sim.result.trace import LANES, Trace
from tests.reports import sample


def parse(spans: Trace, rank: int = 0, ranks: int = 1) -> dict[str, Any]:
    return json.loads("".join(chrome.events(spans, rank, ranks)))


def kernels(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [e for e in trace["traceEvents"] if e.get("cat") == "kernel"]


def spans_of(rows: list[tuple[int, int, int]]) -> Trace:
    """A trace of one rank from (lane, gap before, length) rows; each lane is first in, first out."""
    now: dict[int, int] = defaultdict(int)
    table = np.full((len(rows), len(Trace.COLUMNS)), -1, dtype=np.int64)
    for i, (lane, gap, length) in enumerate(rows):
        start = now[lane] + gap
        now[lane] = start + length
        table[i, :6] = 0, lane, 0, start, start + length, 0
    return Trace(*table.T, labels=('odd "name"',), prices=())


@given(st.lists(st.tuples(st.integers(0, len(LANES) - 1), st.integers(0, 2500), st.integers(0, 9000)), max_size=40))
def test_events_of_a_thread_follow_one_another(rows: list[tuple[int, int, int]]) -> None:
    trace = parse(spans_of(rows))
    threads = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X" and event["cat"] == "kernel":
            assert event["dur"] > 0
            threads[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for events in threads.values():
        events.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(events))


def test_a_file_a_rank_and_every_span_in_it(tmp_path: Path) -> None:
    spans = sample.traces()[1]
    written = chrome.write(spans, tmp_path)
    assert [path.name for path in written] == [f"rank{rank:04d}.json.gz" for rank in range(sample.RANKS)]
    for rank in (0, 11):
        text = gzip.decompress(written[rank].read_bytes()).decode()
        trace, mine = json.loads(text), spans.of_position(rank)
        assert re.findall(r'"rank":\s+(\d+)', text) == [str(rank)]  # how HTA finds it
        assert trace["distributedInfo"] == {"rank": rank, "world_size": sample.RANKS}
        found = [(e["ts"], e["ts"] + e["dur"], e["args"]["micro_batch"], e["args"]["stage"], e["args"]["layer"],
                  e["args"]["price"], e["name"]) for e in kernels(trace)]  # fmt: skip
        names = [chrome.span_name(spans.labels[label], lane)
                 for label, lane in zip(mine.label.tolist(), mine.lane.tolist(), strict=True)]  # fmt: skip
        want = zip((mine.start // US_NS).tolist(), (mine.end // US_NS).tolist(), mine.micro_batch.tolist(),
                   mine.stage.tolist(), mine.layer.tolist(), [spans.prices[p] for p in mine.price.tolist()], names,
                   strict=True)  # fmt: skip
        assert found == list(want)


def test_times_are_whole_microseconds() -> None:
    text = "".join(chrome.events(sample.traces()[1].of_position(3), 3, sample.RANKS))
    assert not re.search(r'"(ts|dur)":\d*\.', text)


def test_nanoseconds_are_exact_in_the_arguments() -> None:
    """A kernel of 7.574 us is 7 or 8 long by its whole microseconds, and 7574 ns by its arguments."""
    trace = parse(spans_of([(0, 1_999, 7_574), (0, 3_001, 1_250), (2, 0, 2_000_000_001)]))
    exact = [(e["args"]["start_ns"], e["args"]["duration_ns"]) for e in kernels(trace)]
    assert exact == [(1_999, 7_574), (12_574, 1_250), (0, 2_000_000_001)]
    for event, (start, duration) in zip(kernels(trace), exact, strict=True):
        assert (event["ts"], event["ts"] + event["dur"]) == (start // US_NS, (start + duration) // US_NS)


def test_an_arrow_goes_from_every_launch_to_its_kernel() -> None:
    trace = parse(sample.traces()[1].of_position(2), 2, sample.RANKS)
    arrows = [e for e in trace["traceEvents"] if e.get("cat") == "ac2g"]
    leaves, arrives = ({e["id"]: e for e in arrows if e["ph"] == phase} for phase in "sf")
    launches = {e["args"]["correlation"]: e for e in trace["traceEvents"] if e.get("cat") == "cuda_runtime"}
    assert len(arrows) == 2 * len(kernels(trace)) and leaves.keys() == arrives.keys() == launches.keys()
    for kernel in kernels(trace):
        number = kernel["args"]["correlation"]
        for arrow, end in ((leaves[number], launches[number]), (arrives[number], kernel)):
            assert (arrow["pid"], arrow["tid"]) == (end["pid"], end["tid"])
            assert end["ts"] <= arrow["ts"] <= end["ts"] + end["dur"], "inside what it is tied to"
        assert arrives[number]["bp"] == "e", "to the event around it, not to the next"


def test_every_kernel_has_its_launch_inside_the_profiler_step() -> None:
    trace = parse(sample.traces()[1].of_position(2), 2, sample.RANKS)
    launches = {e["args"]["correlation"]: e for e in trace["traceEvents"] if e.get("cat") == "cuda_runtime"}
    step, after = (e for e in trace["traceEvents"] if e.get("cat") == "user_annotation")
    assert (step["name"], after["name"]) == ("ProfilerStep#0", "ProfilerStep#1")
    assert step["ts"] + step["dur"] == after["ts"]
    assert len(launches) == len(kernels(trace))
    for kernel in kernels(trace):
        launch = launches[kernel["args"]["correlation"]]
        assert launch["ts"] <= kernel["ts"]
        assert step["ts"] <= launch["ts"] < launch["ts"] + launch["dur"] <= step["ts"] + step["dur"]
        assert launch["pid"] == step["pid"] != kernel["pid"]
    assert min(launches) == 1 << 24


@pytest.mark.parametrize(("lane", "pattern"), [
    ("compute", r"attn\(F\)"), ("weight", r"attn\(F\)"), ("communication", "nccl.*Kernel.*"),
    ("network", "nccl.*Kernel.*"), ("host", "Memcpy .*"),
])  # fmt: skip
def test_names_tell_kernels_collectives_and_copies_apart(lane: str, pattern: str) -> None:
    assert re.fullmatch(pattern, chrome.span_name("attn(F)", LANES.index(lane)))


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    spans = sample.traces()[1].of_position(4)
    first, second = ([path.read_bytes() for path in chrome.write(spans, tmp_path)] for _ in range(2))
    assert first == second


def test_a_rank_without_spans_and_spans_below_a_microsecond() -> None:
    assert kernels(parse(spans_of([]))) == []
    assert kernels(parse(spans_of([(0, 10, 20)]))) == []
