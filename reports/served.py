"""A served load as a Chrome trace, which Perfetto opens: steps of every instance, what it holds, and each request.

A process for each instance: its steps, one after another (decode steps that nothing came between are one slice), and
counters of its sequences, other jobs and cache. Requests are asynchronous slices by what they wait for. `ts` and `dur`
are microseconds, with three decimals: every nanosecond is there.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from hwmodels.units import US_NS
from reports.chrome import squeezed

Span = tuple[int, int, int, str, int]
Moment = tuple[int, int, int, int, float]
REQUESTS = 0
"""Process of the requests; instances follow."""
WAITS = "instance", "prompt", "transfer", "answer"
"""Slices of a request, between its marks."""
LINES = 4096
"""Events that are compressed at once."""


def write(
    path: Path, names: Sequence[str], spans: Iterable[Span], load: Iterable[Moment], marks: Iterable[Sequence[int]]
) -> None:
    """names: of instances. spans: start and end in ns, the instance, the kind of step, and tokens of prompts or
    sequences. load: moments with an instance, its sequences, its other jobs and the part of its cache in use. marks:
    of each request, when it came, was begun, had its first token, its cache where it decodes, and its last token."""
    squeezed(path, _pieces(_events(names, spans, load, marks)), 6)


def _pieces(events: Iterator[str]) -> Iterator[str]:
    yield '{"displayTimeUnit": "ms", "traceEvents": [\n'
    between = ""
    while some := ",\n".join(islice(events, LINES)):
        yield between + some
        between = ",\n"
    yield "\n]}\n"


def _events(
    names: Sequence[str], spans: Iterable[Span], load: Iterable[Moment], marks: Iterable[Sequence[int]]
) -> Iterator[str]:
    for process, name in enumerate(("requests", *names)):
        yield json.dumps({"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}})
    for start, end, number, kind, count in spans:
        what = "prompt_tokens" if kind == "prefill" else "sequences"
        yield (
            f'{{"ph":"X","name":"{kind}","pid":{number + 1},"tid":1,"ts":{_us(start)},"dur":{_us(end - start)},'
            f'"args":{{"{what}":{count}}}}}'
        )
    for time, number, running, others, used in load:
        head = f'{{"ph":"C","pid":{number + 1},"ts":{_us(time)},'
        yield f'{head}"name":"jobs","args":{{"sequences":{running},"prompts and waiting":{others}}}}}'
        yield f'{head}"name":"cache in use, %","args":{{"used":{100 * used:.2f}}}}}'
    for request, moments in enumerate(marks):
        for name, begin, end in zip(WAITS, moments, moments[1:], strict=False):
            if end > begin:
                head = f'"cat":"request","name":"{name}","id":{request},"pid":{REQUESTS},"tid":1'
                yield f'{{"ph":"b",{head},"ts":{_us(begin)},"args":{{"request":{request}}}}}'
                yield f'{{"ph":"e",{head},"ts":{_us(end)}}}'


def _us(ns: int) -> str:
    return f"{ns // US_NS}.{ns % US_NS:03d}"
