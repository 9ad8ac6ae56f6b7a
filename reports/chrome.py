"""Chrome traces, one file a rank: they open in Perfetto, and HolisticTraceAnalysis (HTA) 0.5 and TraceLens read them.

What HTA asks for, and what shapes this file: `"rank": N` with a space after the colon (it is found by a regular
expression); integer microseconds (whole ones of `ts` and `dur`; the exact nanoseconds are `start_ns` and `duration_ns`
in `args`); kernels with `cat` "kernel" and `args.stream`; names of collectives that match `^nccl.*Kernel` and of copies
that match `^Memcpy`; a `ProfilerStep#0` with a launch event per kernel that shares its correlation id, and an empty
last step because HTA drops the last one. TraceLens finds kernels by the `ac2g` arrow from a launch to its kernel, a
start and an end with the correlation id. Spans of a lane follow one another, so a thread per lane nests.
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from hwmodels.units import US_NS
from sim.result.trace import LANES, Column, Trace

FIRST_CORRELATION = 1 << 24
"""Smaller ids are downcast by HTA 0.5 to a type that pandas 3 then refuses to fill with -1."""

COLLECTIVE_LANES = (LANES.index("communication"), LANES.index("network"))
COPY_LANE = LANES.index("host")
HOST_PID_OFFSET = 100_000
"""Process ids of host sides start here, out of the way of those of the ranks."""

HOST_THREAD = 1
CHUNK_ROWS = 8_192
GZIP = 16 + zlib.MAX_WBITS
"""Window bits that make zlib write a gzip header, with no time stamp in it: same trace, same bytes."""


def write(spans: Trace, folder: Path) -> list[Path]:
    """Write `rank<NNNN>.json.gz` into `folder` for every rank in `spans`, and say which files."""
    ranks = sorted(set(spans.position.tolist()))
    written = []
    for rank in ranks:
        path = folder / f"rank{rank:04d}.json.gz"
        squeezed(path, events(spans.of_position(rank), rank, len(ranks)), 1)
        written.append(path)
    return written


def squeezed(path: Path, pieces: Iterable[str], level: int) -> None:
    """Write pieces of text into a gzip file."""
    squeeze = zlib.compressobj(level, zlib.DEFLATED, GZIP)
    with path.open("wb") as file:
        file.writelines(squeeze.compress(text.encode()) for text in pieces)
        file.write(squeeze.flush())


def events(spans: Trace, rank: int, ranks: int) -> Iterator[str]:
    """The text of one rank's file, in pieces. `spans` holds that rank's rows; `ranks` is the world's size."""
    starts, ends = spans.start // US_NS, spans.end // US_NS
    keep = ends > starts
    spans, starts, durations = spans.where(keep), starts[keep], (ends - starts)[keep]
    host = HOST_PID_OFFSET + rank
    yield f'{{"schemaVersion": 1, "distributedInfo": {{"rank": {rank}, "world_size": {ranks}}},\n"traceEvents": [\n'
    yield _names(rank, host, sorted(set(spans.lane.tolist())))
    which, middles, streams = _middles(spans, rank)
    launch = f'{{"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":{host},"tid":{HOST_THREAD},"dur":1,"ts":'
    leaves = f'{{"ph":"s","cat":"ac2g","name":"ac2g","pid":{host},"tid":{HOST_THREAD},"id":'
    arrives = [f'{{"ph":"f","bp":"e","cat":"ac2g","name":"ac2g","pid":{rank},"tid":{own},"id":' for own in streams]
    batches = spans.micro_batch.tolist()
    numbers = range(FIRST_CORRELATION, FIRST_CORRELATION + len(spans))
    columns = zip(
        map(str, numbers), map(str, starts.tolist()), durations.tolist(), spans.start.tolist(),
        (spans.end - spans.start).tolist(), which.tolist(), batches, strict=True,
    )  # fmt: skip
    rows = (
        f'{middles[m]}{batch},"start_ns":{begin},"duration_ns":{length},"correlation":{c}}},"ts":{ts},"dur":{dur}}},\n'
        f'{launch}{ts},"args":{{"correlation":{c}}}}},\n'
        f'{leaves}{c},"ts":{ts}}},\n{arrives[m]}{c},"ts":{ts}}},\n'
        for c, ts, dur, begin, length, m, batch in columns  # those that are told often as text
    )
    yield from _chunks(rows)
    yield _profiler_steps(host, int((starts + durations).max()) + 1 if len(starts) else 1)


def span_name(label: str, lane: int) -> str:
    """The name of a span of `lane` in the trace: HTA tells collectives and copies from kernels by their names."""
    if lane in COLLECTIVE_LANES:
        return f"ncclDevKernel_{label}"
    return f"Memcpy {label}" if lane == COPY_LANE else label


def stream(lane: int) -> int:
    """The CUDA stream (and thread id) that stands for a lane; 0 would be the default stream."""
    return lane + 1


def _chunks(rows: Iterator[str]) -> Iterator[str]:
    """Rows glued together CHUNK_ROWS at a time: bounded memory, few calls into zlib."""
    while chunk := "".join(islice(rows, CHUNK_ROWS)):
        yield chunk


def _middles(spans: Trace, rank: int) -> tuple[Column, list[str], list[int]]:
    """For every row which part of an event it has that many rows share; these parts, once each, and their streams."""
    columns = (spans.label, spans.lane, spans.layer, spans.price, spans.stage)
    key = np.zeros(len(spans), dtype=np.int64)
    for column in columns:
        key = key * (int(column.max(initial=0)) + 2) + column + 1
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    rows = np.stack(columns, 1)[first].tolist()
    return which, [_middle(spans, rank, *row) for row in rows], [stream(lane) for _, lane, *_ in rows]


def _middle(spans: Trace, rank: int, label: int, lane: int, layer: int, price: int, stage: int) -> str:
    """An event up to its micro-batch."""
    name = json.dumps(span_name(spans.labels[label], lane))
    source = json.dumps(spans.prices[price] if price >= 0 else "")
    return (
        f'{{"ph":"X","cat":"kernel","name":{name},"pid":{rank},"tid":{stream(lane)},"args":{{'
        f'"stream":{stream(lane)},"stage":{stage},"layer":{layer},"price":{source},"micro_batch":'
    )


def _names(rank: int, host: int, lanes: list[int]) -> str:
    """Metadata: what the processes and threads are called, and their order."""
    rows = [
        _meta("process_name", rank, 0, "name", f"rank {rank}"),
        _meta("process_name", host, 0, "name", f"rank {rank} host"),
        _meta("process_sort_index", rank, 0, "sort_index", rank),
        _meta("process_sort_index", host, 0, "sort_index", host),
        _meta("thread_name", host, HOST_THREAD, "name", "launches"),
        *(_meta("thread_name", rank, stream(lane), "name", LANES[lane]) for lane in lanes),
        *(_meta("thread_sort_index", rank, stream(lane), "sort_index", lane) for lane in lanes),
    ]
    return "".join(row + ",\n" for row in rows)


def _meta(kind: str, pid: int, tid: int, key: str, value: str | int) -> str:
    return json.dumps({"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {key: value}})


def _profiler_steps(host: int, end_us: int) -> str:
    """The step as a profiler would mark it, and the empty one after it."""
    head = f'{{"ph":"X","cat":"user_annotation","pid":{host},"tid":{HOST_THREAD}'
    return (
        f'{head},"name":"ProfilerStep#0","ts":0,"dur":{end_us}}},\n'
        f'{head},"name":"ProfilerStep#1","ts":{end_us},"dur":1}}\n]}}\n'
    )
