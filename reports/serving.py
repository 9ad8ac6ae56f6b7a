"""The page of a served load: its figures, how long requests waited, and what instances had to do over time.

One file without scripts: charts are drawings (SVG) of a few hundred points.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hwmodels.units import NS_PER_S, PERCENT, format_quantity

WIDTH, HEIGHT, EDGE = 640, 220, 42
"""Of a drawing and of its margins, in points."""
COLOURS = ("#3366aa", "#cc6633", "#338855", "#884499")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left }
td + td { text-align: right; font-variant-numeric: tabular-nums } svg { width: 100%; height: auto }
footer { color: #666 }
"""
POINTS = 240
"""Of a line, at most."""

Line = Sequence[tuple[float, float]]


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
        ("caches given up", f"{served['preemptions']:,}"),
    ]  # fmt: skip


def headline(summary: Mapping[str, Any]) -> str:
    """The same for a terminal."""
    lines = rows(summary)
    width = max(len(name) for name, _ in lines)
    return "\n".join([str(summary["scenario"]), *(f"  {name:{width}}  {value}" for name, value in lines)])


def page(summary: Mapping[str, Any], load: Sequence[tuple[int, int, int, int]], waits: Mapping[str, Line]) -> str:
    """The page. load: moments in ns, each with an instance, its sequences and its other jobs. waits: name -> seconds
    with the part of requests that took no longer."""
    name = escape(str(summary["scenario"]))
    table = "".join(f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in rows(summary))
    parts = [
        f"<h1>{name}</h1><table>{table}</table>",
        "<h2>How long requests took</h2>",
        *(drawing({key: line}, "s", "part of requests") for key, line in waits.items()),
        "<h2>Load over time</h2>", drawing(_load(load), "s", "sequences and prompts"),
    ]  # fmt: skip
    pools = "".join(
        f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in _pool(pool))}</tr>"
        for pool in summary["serve"]["pools"]
    )
    parts.append(_step(summary["serve"].get("decode_step")))
    head = "".join(f"<th>{word}</th>" for word in ("pool", "instances", "GPUs of each", "weights", "cache, tokens"))
    return "\n".join((
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{name} · Trainyard</title>\n<style>{STYLE}</style>\n</head>\n<body>", *parts,
        f"<h2>Instances</h2><table><tr>{head}</tr>{pools}</table>",
        "<footer><p>Trainyard. Everything on this page is simulated, not measured.</p></footer>\n</body>\n</html>\n",
    ))  # fmt: skip


def _step(step: Mapping[str, Any] | None) -> str:
    """A decode step, kernel by kernel."""
    if step is None:
        return ""
    total = sum(each["seconds"] for each in step["kernels"])
    lines = "".join(
        f"<tr><td>{escape(each['part'])}</td><td>{escape(each['name'])}</td><td>{each['launches']}</td>"
        f"<td>{_time(each['seconds'])}</td><td>{each['seconds'] / total / PERCENT:.1f} %</td></tr>"
        for each in step["kernels"]
    )
    head = "".join(f"<th>{word}</th>" for word in ("part", "kernel", "launches", "time", "of all"))
    words = (
        f"{step['sequences']} sequences of {step['keys']:,.0f} keys in each attention group: {_time(step['seconds'])}"
    )
    return f"<h2>One decode step</h2><p>{words}.</p><table><tr>{head}</tr>{lines}</table>"


def drawing(lines: Mapping[str, Line], across: str, up: str) -> str:
    """Lines over a common axis, each named below."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    right, top = (max(each[i] for each in points) or 1.0 for i in (0, 1))
    inner = WIDTH - 2 * EDGE, HEIGHT - 2 * EDGE
    drawn = []
    for i, (name, line) in enumerate(lines.items()):
        path = " ".join(f"{EDGE + x / right * inner[0]:.1f},{HEIGHT - EDGE - y / top * inner[1]:.1f}" for x, y in line)
        colour = COLOURS[i % len(COLOURS)]
        drawn.append(f'<polyline fill="none" stroke="{colour}" points="{path}"/>')
        drawn.append(f'<text x="{EDGE + 150 * i}" y="14" fill="{colour}" font-size="12">{escape(name)}</text>')
    axes = f"M{EDGE},{EDGE}V{HEIGHT - EDGE}H{WIDTH - EDGE}"
    words = [
        (EDGE, HEIGHT - 8, "0"), (WIDTH - EDGE - 60, HEIGHT - 8, f"{right:.3g} {across}"),
        (2, EDGE - 6, f"{top:.3g} {up}"),
    ]  # fmt: skip
    served = "".join(f'<text x="{x}" y="{y}" font-size="11">{escape(text)}</text>' for x, y, text in words)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><path d="{axes}" fill="none" stroke="#999"/>'
        f"{''.join(drawn)}{served}</svg>"
    )


def _load(load: Sequence[tuple[int, int, int, int]]) -> dict[str, Line]:
    """Sequences that decode and other jobs, over all instances, at some moments."""
    last: dict[int, tuple[int, int]] = {}
    decode, others = [], []
    for time, number, running, waiting in load:
        last[number] = running, waiting
        decode.append((time / NS_PER_S, float(sum(each for each, _ in last.values()))))
        others.append((time / NS_PER_S, float(sum(each for _, each in last.values()))))
    return {"decoding": thinned(decode), "prompts and waiting": thinned(others)}


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
    return "" if seconds is None else format_quantity(seconds, "time")
