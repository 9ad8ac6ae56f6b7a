"""The page of a served load: its figures, how long requests waited, and what instances had to do over time.

It needs no script: charts are drawings (SVG) of a few hundred points.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hwmodels.units import MEGA, NS_PER_S, PERCENT, format_quantity
from reports.headline import Figure
from reports.page import heading, whole
from reports.palette import MUTED, PARTS
from reports.section import Section, bar, legend, table

WIDTH, HEIGHT = 640, 200
ROUND = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
"""Steps between ticks, in tens."""
LEFT, RIGHT, TOP, BOTTOM = 68, 14, 12, 28
"""Size of a drawing and of its margins, in points."""
TICKS = 4
"""Parts of an axis."""
POINTS = 240
"""Of a line, at most."""

Line = Sequence[tuple[float, float]]
Load = Sequence[tuple[int, int, int, int, float]]


def rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is told first: names, and values as text."""
    served = summary["serve"]
    tokens, goodput = served["tokens"], served["goodput"]
    return [
        ("requests", f"{served['requests']:,} in {_time(served['span_s'])} ({served['load']})"),
        ("time to first token", _quantiles(served["ttft_s"])),
        ("time per later token", _quantiles(served["tpot_s"])),
        ("between tokens", _quantiles(served["inter_token_s"])),
        ("end to end", _quantiles(served["end_to_end_s"])),
        ("goodput", f"{goodput['requests_per_s']:.3g} requests/s, {goodput['part'] / PERCENT:.1f} % of all"),
        ("answers", f"{tokens['output_per_s_decode_gpu']:,.0f} tokens/s a decoding GPU, "
                    f"{tokens['output_per_s_decode_node']:,.0f} a node"),
        ("prompts", f"{tokens['prompt_per_s_prefill_node']:,.0f} tokens/s a prefill node, computed"),
        ("kept from others", f"{tokens['cached']:,} of {tokens['prompt']:,} tokens of prompts"),
        ("caches given up", f"{served['preemptions']:,} computed again, {served['swapped']:,} swapped"),
        *_costs(served),
    ]  # fmt: skip


def _costs(served: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Failures, dollars and joules, where there are some."""
    lines, joules = [], served["energy"]["joules_per_million"]
    if served["failures"]:
        lines.append(("instances failed", f"{served['failures']:,} times, {_time(served['down_s'])} in all"))
    if served["tokens"]["usd_per_million"]:
        lines.append(("a million tokens", f"{served['tokens']['usd_per_million']:,.3g} USD, prompts and answers"))
    if joules:
        lines.append(("energy", f"{joules / MEGA:,.3g} MJ a million tokens, prompts and answers"))
    return lines


def headline(summary: Mapping[str, Any]) -> str:
    """The same for a terminal."""
    lines = rows(summary)
    width = max(len(name) for name, _ in lines)
    return "\n".join([str(summary["scenario"]), *(f"  {name:{width}}  {value}" for name, value in lines)])


def tiles(served: Mapping[str, Any]) -> list[Figure]:
    """The figures that answer the question."""
    tokens, goodput = served["tokens"], served["goodput"]
    names = {"ttft_s": "Time to first token", "tpot_s": "Time per later token", "end_to_end_s": "End to end"}
    waits = []
    for key, name in names.items():
        middle, *others = (_time(served[key][part]) for part in ("p50", "p90", "p99"))
        lead = "median; p90 {}, p99 {}".format(*others) if middle else "no request has one"
        waits.append(Figure(name, middle or "none", lead))
    return [
        *waits,
        Figure("Goodput", f"{goodput['requests_per_s']:.3g} /s", f"requests; {goodput['part'] / PERCENT:.1f} % of all"),
        Figure("Answers", f"{tokens['output_per_s_decode_node']:,.0f} /s",
               f"tokens of a decoding node; {tokens['output_per_s_decode_gpu']:,.0f} of a GPU"),
        Figure("Prompts", f"{tokens['prompt_per_s_prefill_node']:,.0f} /s", "tokens of a prefill node, computed"),
    ]  # fmt: skip


def page(summary: Mapping[str, Any], load: Load, waits: Mapping[str, Line]) -> str:
    """The page. load: moments in ns, each with an instance, its sequences, its other jobs
    and the part of its cache in use. waits: name -> seconds
    with the part of requests that took no longer."""
    name, served = str(summary["scenario"]), summary["serve"]
    parts = [
        _waits(waits), _causes(served["waiting_s"]), _loads(load, served["cache_used"]),
        _points(served["operating_points"]), *_steps(served.get("decode_step")), _pools(served["pools"]),
    ]  # fmt: skip
    line = (
        f"{_requests(served)} · "
        f"{served['tokens']['cached']:,} of {served['tokens']['prompt']:,} tokens of prompts kept from others · "
        f"{served['preemptions']:,} caches given up"
    )
    costs = "".join(f" · {label}: {value}" for label, value in _costs(served))
    return whole(name, heading(escape(name), line + costs, tiles(served)), parts)


def _requests(served: Mapping[str, Any]) -> str:
    """How many, in what time."""
    many = "request" if served["requests"] == 1 else "requests"
    return f"{served['requests']:,} {many} in {_time(served['span_s'])} ({served['load']})"


def _waits(waits: Mapping[str, Line]) -> Section:
    """How long requests took."""
    drawn = "".join(
        f"<div><h3>{escape(name[:1].upper() + name[1:])}</h3>{drawing({name: line}, 'time', percent=True)}</div>"
        for name, line in waits.items()
    )
    return Section("waits", "How long requests took", "Part of all requests that took no longer.", _beside(drawn))


def _causes(waiting: Mapping[str, float]) -> Section:
    """What requests waited for."""
    names = {
        "instance": "a place and blocks of the cache", "prompt": "the steps of its prompt",
        "transfer": "its cache on the way to where it decodes", "answer": "the steps of its answer",
    }  # fmt: skip
    total = sum(waiting.values()) or 1.0
    rows = [
        [names[key], _time(seconds), f"{seconds / total / PERCENT:.1f} %", bar(seconds / total, PARTS[0])]
        for key, seconds in waiting.items()
    ]
    lead = "Mean of all requests, from the moment they came to their last token."
    return Section("causes", "What requests waited for", lead, table(("For", "Time", "Of all", ""), rows, (0, 3)))


def _points(points: Sequence[Mapping[str, float]]) -> Section:
    """Throughput against the time for a token."""
    line = [(each["tpot_s"], each["output_per_s_gpu"]) for each in points]
    head = ("Sequences of a group", "Time per token", "Tokens a second and GPU")
    rows = [[f"{each['sequences']:,.0f}", _time(each["tpot_s"]), f"{each['output_per_s_gpu']:,.0f}"] for each in points]
    lead = (
        "Decode steps alone, every place taken, half through the answers: more sequences make more tokens, and each "
        "waits longer for its own."
    )
    drawn = "<h3>Tokens a second and GPU, by the time per token</h3>"
    drawn += f"{drawing({'tokens a second and GPU, by the time per token': line}, 'time')}{table(head, rows, ())}"
    return Section("points", "Throughput against time per token", lead, drawn)


def _loads(load: Load, cache: Mapping[str, float]) -> Section:
    """What instances had to do. cache: the part of it in use, mean and most."""
    lines = _load(load)
    named = legend(zip(lines, PARTS, strict=False))
    mean, most = (f"{cache[key] / PERCENT:.3g} %" for key in ("mean", "most"))
    lead = "Over all instances, from the first request to the last answer. Of an instance's cache "
    lead += f"{mean} is in use on average, {most} at most."
    named = f"<div><h3>Sequences and other jobs</h3>{named}{drawing(lines, 'time')}</div>"
    used = drawing({"cache in use": _used(load)}, "time", percent=True)
    used = f"<div><h3>Cache in use, mean of instances</h3>{used}</div>"
    return Section("load", "Load over time", lead, _beside(named + used))


def _pools(pools: Sequence[Mapping[str, Any]]) -> Section:
    """What serves."""
    head = ("Pool", "Instances", "GPUs of each", "Weights of a GPU", "Tokens of cache")
    return Section("pools", "Instances", "", table(head, [[escape(each) for each in _pool(pool)] for pool in pools]))


def _steps(step: Mapping[str, Any] | None) -> list[Section]:
    """A decode step, kernel by kernel."""
    if step is None:
        return []
    total = sum(each["seconds"] for each in step["kernels"])
    rows = [
        [escape(each["part"]), escape(each["name"]), f"{each['launches']:,}", _time(each["seconds"]),
         f"{each['seconds'] / total / PERCENT:.1f} %", bar(each["seconds"] / total, PARTS[0])]
        for each in step["kernels"]
    ]  # fmt: skip
    many = "sequence" if step["sequences"] == 1 else "sequences"
    lead = f"{step['sequences']} {many} of {step['keys']:,.0f} keys in each attention group: {_time(step['seconds'])}."
    lead += f" Its kernels one after another, in one micro-batch: {_time(total)}."
    if step["busiest_over_mean"]:
        lead += (
            f" The busiest rank gets {step['busiest_over_mean']:.2f} times the mean rank's rows, on average of layers."
        )
    head = ("Part", "Kernel", "Launches", "Time", "Of all", "")
    return [Section("step", "One decode step", lead, table(head, rows, (0, 1, 5)))]


def _beside(drawn: str) -> str:
    """Drawings side by side where the page is wide."""
    columns = "repeat(auto-fit, minmax(min(30rem, 100%), 1fr))"
    return f'<div style="display:grid;gap:0 2rem;grid-template-columns:{columns}">{drawn}</div>'


def drawing(lines: Mapping[str, Line], across: str, percent: bool = False) -> str:
    """Lines over common axes from nought. across: what is counted along the first, as `format_quantity` has it.
    percent: the second goes to 100 %."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    right, top = (_rounded(max(each[i] for each in points) or 1.0) for i in (0, 1))
    top = 1.0 if percent else top
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    drawn = []
    for i in range(TICKS + 1):
        x, y = LEFT + wide * i / TICKS, TOP + high * (1 - i / TICKS)
        up = f"{i / TICKS / PERCENT:.0f} %" if percent else f"{top * i / TICKS:,.10g}"
        drawn.append(f'<path d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}" stroke="#e3e8ee" fill="none"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{up}</text>')
        end = "end" if i == TICKS else "middle" if i else "start"
        value = _at(right * i / TICKS, across)
        drawn.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{end}">{value}</text>')
    for line, colour in zip(lines.values(), PARTS, strict=False):
        path = " ".join(f"{LEFT + x / right * wide:.1f},{TOP + (1 - y / top) * high:.1f}" for x, y in line)
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{path}"/>')
    named = escape(", ".join(lines))
    return (
        f'<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{named}" fill="{MUTED}">'
        f"{''.join(drawn)}</svg>"
    )


def _rounded(most: float) -> float:
    """The end of an axis that holds `most`, whose ticks are round numbers."""
    size = 10.0 ** math.floor(math.log10(most / TICKS))
    return TICKS * size * next(each for each in ROUND if each * size * TICKS >= most or each == ROUND[-1])


def _at(value: float, across: str) -> str:
    """A tick of the axis across: no noughts behind a round number."""
    number, _, unit = format_quantity(value, across).partition(" ")
    return f"{float(number):g} {unit.replace('us', 'µs')}".strip() if value else "0"


def _load(load: Load) -> dict[str, Line]:
    """Sequences that decode and other jobs, over all instances, at some moments."""
    last: dict[int, tuple[int, int]] = {}
    decode, others = [], []
    for time, number, running, waiting, _ in load:
        last[number] = running, waiting
        decode.append((time / NS_PER_S, float(sum(each for each, _ in last.values()))))
        others.append((time / NS_PER_S, float(sum(each for _, each in last.values()))))
    return {"decoding": thinned(decode), "prompts and waiting": thinned(others)}


def _used(load: Load) -> Line:
    """Part of the cache in use, on average over instances that have worked."""
    last: dict[int, float] = {}
    line = []
    for time, number, _, _, used in load:
        last[number] = used
        line.append((time / NS_PER_S, sum(last.values()) / len(last)))
    return thinned(line)


def thinned(line: Line) -> Line:
    """Every so manieth point, the last one too."""
    step = max(1, -(-len(line) // POINTS))
    return [*line[::step], *line[-1:]]


def _pool(pool: Mapping[str, Any]) -> tuple[str, ...]:
    weights = format_quantity(pool["weight_bytes"], "data")
    return pool["does"], str(pool["instances"]), str(pool["gpus"]), weights, f"{pool['cache_tokens']:,} a group"


def _quantiles(served: Mapping[str, float | None]) -> str:
    if served["p50"] is None:
        return "none"
    return ", ".join(f"{key} {_time(served[key])}" for key in ("p50", "p90", "p99"))


def _time(seconds: float | None) -> str:
    return "" if seconds is None else format_quantity(seconds, "time").replace("us", "µs")
