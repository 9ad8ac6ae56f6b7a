"""The few figures that answer the question, in words: shared by the page and the terminal."""

from typing import Any, NamedTuple

from hwmodels.units import GIGA, NANO, PERCENT, TERA, format_quantity
from sim.result import Result, title

BILLION = GIGA
TRILLION = TERA


FEW_WAITS, LITTLE = 0.25, 1e-4
"""A rank is named when it makes at least FEW_WAITS of what the critical path is longer by than an even step's (less may
be a tie), and that is LITTLE of the step or more."""


FEW_PRICES = 0.01
"""Of the time: rungs with less are left to the table of prices."""
HELD = {"always": "always", "while_running": "while it runs"}
"""When communication has its SMs."""


class Figure(NamedTuple):
    """One figure of the headline: what it is, its value as text, and a remark that may be empty."""

    name: str
    value: str
    note: str = ""


def figures(result: Result) -> list[Figure]:
    """The headline of a run; figures that the run does not have (chunk times alone) are left out."""
    summary = result.summary
    entries = [Figure("Step time", seconds(summary["step_time_s"]), _interval(summary))]
    entries += _by_prices(summary) + _throughput(summary) + _rates(summary)
    if summary.get("bubble_fraction") is not None:
        entries.append(Figure("Bubble", percent(summary["bubble_fraction"]), "idle, mean of ranks"))
    if summary.get("overlap_fraction") is not None:
        entries.append(_exposed(summary))
    entries += _pair_measured(summary) + _documents(summary)
    return entries + _slowest(summary) + _grade(summary) + _memory(result)


def setting(result: Result) -> str:
    """The scenario in a line: schedule, layout, detail, and the start of its hash."""
    scenario = result.scenario
    schedule: Any = scenario.get("schedule")
    name = schedule.get("name") if isinstance(schedule, dict) else schedule
    words = [f"schedule {name}"] if name else []
    if isinstance(layout := scenario.get("parallel"), dict):
        words += [f"{key} {value}" for key, value in layout.items() if isinstance(value, int) and value > 1]
    if scenario.get("model"):  # chunk times have neither
        words += [f"{key} {scenario[key]}" for key in ("precision", "detail") if key in scenario]
    if isinstance(cluster := scenario.get("cluster"), dict) and isinstance(node := cluster.get("node"), dict):
        count = cluster.get("nodes")
        words.insert(0, f"{count} node{'s' if count != 1 else ''} of {node.get('name')}")
    if (comm := result.summary.get("comm")) and comm["sms"]:
        words.append(f"{comm['sms']} SMs for communication {HELD[comm['hold']]}")
    if faults := scenario.get("faults"):
        words.append(f"{len(faults)} fault{'s' if len(faults) > 1 else ''}")
    if text := result.summary.get("scenario_hash"):
        words.append(f"scenario {str(text)[:12]}")
    return " · ".join(words)


def binds(result: Result) -> str:
    """What binds the run, in a line, or nothing."""
    return str(result.summary.get("binds", {}).get("line", ""))


def changes(result: Result) -> str:
    """What was overridden in the scenario, whose name may still tell of the file as it was; or nothing."""
    words = title.changes(result.summary.get("overrides", ()))
    return f"with {' '.join(words)}" if words else ""


def seconds(value: float) -> str:
    """A time in seconds as text, e.g. "129.0 ms"; less than half a nanosecond is rounding."""
    if abs(value) < NANO / 2:
        return "0 s"
    return format_quantity(value, "time").replace("us", "µs")


def percent(value: float) -> str:
    """A fraction as text, e.g. "12.3 %"."""
    return f"{value / PERCENT:.1f} %"


def _interval(summary: dict[str, Any]) -> str:
    """The 90 % interval of the step, if the run has one."""
    if "intervals_90" not in summary:
        return ""
    low, high = map(seconds, summary["intervals_90"]["step_time_s"])
    return f"{low} to {high} (90 %)"


def _by_prices(summary: dict[str, Any]) -> list[Figure]:
    """How much of that is prices."""
    if not (parts := summary.get("interval_parts")):
        return []
    low, high = parts["prices"]
    half = percent((high - low) / 2 / summary["step_time_s"])
    return [Figure("Prices alone", f"± {half}", f"{seconds(low)} to {seconds(high)}")]


def _throughput(summary: dict[str, Any]) -> list[Figure]:
    entries = []
    if summary.get("tokens_per_day") is not None:
        tokens = summary["tokens_per_day"]
        scale, word = (TRILLION, "trillion") if tokens >= TRILLION else (BILLION, "billion")
        entries.append(Figure("Tokens a day", f"{tokens / scale:.4g}", word))
    if summary.get("gpu_hours_per_trillion_tokens") is not None:
        hours = f"{summary['gpu_hours_per_trillion_tokens']:,.0f}"
        entries.append(Figure("GPU-hours", hours, "per trillion tokens"))
    return entries


def _rates(summary: dict[str, Any]) -> list[Figure]:
    entries = []
    if rates := summary.get("tflops_per_gpu"):
        entries.append(_pair("TFLOP/s, causal", rates, "{:.0f}".format))
    if rates := summary.get("mfu"):
        share, peak = _pair("MFU, causal", rates, percent), summary["mfu_peak"]
        of = f"of {peak['tflops']:.0f} TFLOP/s (dense {peak['precision'].upper()})"
        entries.append(share._replace(note=f"{share.note}, {of}"))
    return entries


def _pair(name: str, rates: dict[str, float], text: Any) -> Figure:
    """A rate that counts causal attention, with the one that counts all of it as a remark."""
    return Figure(name, text(rates["causal"]), f"{text(rates['non_causal'])} non-causal")


def _grade(summary: dict[str, Any]) -> list[Figure]:
    """How much of the time rests on prices of each rung, the most first."""
    shares = sorted(summary.get("price_shares", {}).items(), key=lambda item: -item[1])
    if not summary.get("price_grade") or not shares:
        return []
    (first, part), *others = shares
    note = ", ".join([first, *(f"{percent(share)} {rung}" for rung, share in others if share >= FEW_PRICES)])
    return [Figure("Prices", percent(part), note)]


def warning(result: Result) -> str:
    """A line on what the figures rest on, where that is mostly bounds."""
    return str(result.summary.get("price_warning") or "")


def unfelt(result: Result) -> list[str]:
    """Lines on keys that somebody asks about and that change nothing."""
    return list(map(str, result.summary.get("unfelt", ())))


def advice(result: Result) -> list[str]:
    """A line for each change that fits, where the run does not."""
    changes = result.summary.get("advice")
    lines = []
    for each in changes or ():
        longer, peak = each["longer_s"], format_quantity(each["peak_bytes"], "data")
        cost = f"{seconds(abs(longer))} {'longer' if longer > 0 else 'shorter'}"
        lines.append(f"{' '.join(each['change'])} fits: {peak}, a step of {seconds(each['step_time_s'])}, {cost}")
    return ["nothing that was tried fits"] if changes == [] else lines


def _exposed(summary: dict[str, Any]) -> Figure:
    note = f"{percent(summary['overlap_fraction'])} is hidden"
    return Figure("Exposed comm.", seconds(summary["exposed_communication_s"]), note)


def _pair_measured(summary: dict[str, Any]) -> list[Figure]:
    """Where ranks differ: the pair as it was in the run (or, where a schedule never overlaps, the chunk)."""
    pair = summary.get("pair_s", {})
    if "balanced_seconds" not in pair:
        return []
    note = f"{by_rank(pair)}, balanced {seconds(pair['balanced_seconds'])}"
    return [Figure(noun(pair["name"]).capitalize(), seconds(pair["seconds"]), note)]


def noun(pair_name: str) -> str:
    """What to call it: a schedule that never overlaps shows one chunk of a stage."""
    return "pair" if " with " in pair_name else "chunk"


def by_rank(pair: dict[str, Any]) -> str:
    """Smallest and largest of a measured `pair_s`, e.g. "129.1 ms to 132.9 ms by rank"."""
    return f"{seconds(pair['min'])} to {seconds(pair['max'])} by rank"


def _documents(summary: dict[str, Any]) -> list[Figure]:
    """Where lengths of documents are given: how long they are, and what their differences cost."""
    own = summary.get("documents")
    if not own:
        return []
    words = [f"tokens, mean; attention is {percent(own['attention_share'])} of compute"]
    if own["padding"]:
        words.append(f"{percent(own['padding'])} of sequences is padding")
    if "imbalance_s" in own:
        slow, cost = percent(own["ranks_p95"] - 1), own["imbalance_s"]
        words.append(f"a slow rank (95th of 100) has {slow} more than the mean")
        words.append(f"unequal ones cost {seconds(cost)} ({percent(cost / summary['step_time_s'])})")
    return [Figure("Documents", f"{own['mean_length']:,.0f}", ", ".join(words))]


def _slowest(summary: dict[str, Any]) -> list[Figure]:
    """Where ranks differ: the one that the step waits for."""
    ranks = summary.get("critical_ranks")
    if not ranks:
        return []
    first = ranks[0]
    if first["part"] < FEW_WAITS or first["beyond_s"] < LITTLE * summary["step_time_s"]:
        return []
    where = f"position {first['pipeline_position']}, node {first['node']}, {seconds(first['seconds'])} of the chain"
    return [Figure("Waits for rank", str(first["rank"]), where)]


def _memory(result: Result) -> list[Figure]:
    if not result.memory:
        return []
    worst = max(result.memory, key=lambda curve: curve.peak_bytes)
    whose = f"position {worst.position}"
    if worst.rank is not None:
        whose = f"rank {worst.rank}, {whose}"
    room = format_quantity(worst.capacity_bytes, "data")
    return [Figure("Peak memory", format_quantity(worst.peak_bytes, "data"), f"of {room}, {whose}")]
