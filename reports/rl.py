"""The page of reinforcement learning, which needs no script, and what a terminal shows of it."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import IO, Any

from hwmodels.units import GIGA, format_quantity
from reports import answer
from reports.headline import Figure
from reports.palette import IDLE, PARTS, STEPS
from reports.section import Section, bar, legend, table

Figures = Mapping[str, Any]

COLOURS = {
    "rollout": PARTS[1], "waiting for the last answer": "#bfe0f5", "reward": PARTS[7], "controller": PARTS[6],
    "batches to workers": "#9c8ab0",
    "old log-probabilities": PARTS[3], "reference log-probabilities": "#e6b800",
    "change to the reference and back": "#f0d9a0", "update": PARTS[0], "optimizer states to the host": "#b9bede",
    "optimizer states back": "#8a92c4", "trainer's weights come, rollouts' go": "#d9d2c5",
    "rollouts' weights come, trainer's go": "#c4bba9", "weights to rollouts": PARTS[5], "waiting": STEPS[IDLE].colour,
}  # fmt: skip
"""What GPUs do or wait for -> its colour, in the order of the legend."""
LANES = {"all": "All GPUs", "rollouts": "GPUs that answer", "training": "GPUs that train"}
"""What lanes are called."""
IDLES = ("waiting for the last answer", "waiting")
"""Of these, what is no work."""


def render(summary: Figures, scenario: Figures) -> str:
    """The page, as HTML text. summary: as in result.json."""
    own = summary["rl"]
    parts = [_timeline(own), _time(own), _answers(own)]
    return answer.page(summary, setting(summary), headline(summary), parts, answer.file(scenario, "The scenario"))


def show(summary: Figures, stream: IO[str]) -> None:
    """Print the headline and where the time goes."""
    own = summary["rl"]
    rows: list[tuple[str, str, str]] = [*headline(summary)]
    for lane, seconds in own["lanes_s"].items():
        rows.append((LANES[lane], "", ""))
        rows += [(f"  {what}", f"{each:.1f} s", f"{each / own['step_s']:.1%}") for what, each in seconds.items()]
    answer.show(summary, setting(summary), rows, stream)


def headline(summary: Figures) -> list[Figure]:
    """The figures that answer the question."""
    own, parts = summary["rl"], summary["rl"]["parts_s"]
    said = own["published"]
    beside = f"published {said['step_s']:g} s, {said['error']:+.0%}" if said else f"mean of {own['steps']} steps"
    idle = [sum(each.get(what, 0.0) for what in IDLES) / own["step_s"] for each in own["lanes_s"].values()]
    weight = [own["gpus"].get(lane, 1) for lane in own["lanes_s"]]
    waits = sum(part * gpus for part, gpus in zip(idle, weight, strict=True)) / sum(weight)
    return [
        Figure("Step", f"{own['step_s']:.1f} s", beside),
        Figure("Rollout", f"{parts['rollout']:.1f} s", f"{parts['rollout'] / own['step_s']:.0%} of a step"),
        Figure("Longest answer", f"{own['lengths']['longest']:,.0f}", f"tokens; mean {own['lengths']['mean']:,.0f}"),
        Figure("Update", f"{parts['update']:.1f} s", f"bubble {own['update']['bubble']:.0%}"),
        Figure("Weights", f"{parts['sync']:.1f} s", "until rollouts have new ones"),
        Figure("Waiting", f"{waits:.0%}", "of GPU time, no work to do"),
        Figure("Tokens", f"{own['tokens']['per_s_gpu']:,.1f} /s", "a GPU, prompts and answers"),
    ]


def setting(summary: Figures) -> str:
    """The scenario in a line."""
    own = summary["rl"]
    gpus = own["gpus"]
    apart = f"{gpus['training']:,} train, {gpus['rollouts']:,} answer"
    where = apart if own["apart"] else "all train and answer in turn"
    stale = f"{own['stale']} steps off" if own["stale"] > 1 else "one step off" if own["stale"] else "on-policy"
    return (
        f"{summary['gpus']:,} GPUs: {where} · {stale} · {own['answers']:,} answers a step ·"
        f" scenario {str(summary['scenario_hash'])[:12]}"
    )


def _timeline(own: Figures) -> Section:
    """Lanes of GPUs over the reported steps, bar after bar."""
    end = max(each["end_s"] for each in own["timeline"])
    lanes = list(own["lanes_s"])
    rows = "".join(
        f'<h3>{LANES[lane]}</h3><div class="strip" role="img" aria-label="{escape(lane)}">'
        f"{''.join(_bars(own['timeline'], lane, end))}</div>"
        for lane in lanes
    )
    used = [what for what in COLOURS if any(each["what"] == what for each in own["timeline"])] + ["waiting"]
    ends = f'<div class="ends"><span>0 s</span><span>{end:,.0f} s</span></div>'
    lead = f"{own['steps']} steps, one after another; a bar says which step when pointed at."
    return Section("timeline", "Timeline", lead, rows + ends + legend((what, COLOURS[what]) for what in used))


def _bars(periods: Sequence[Figures], lane: str, end: float) -> Iterator[str]:
    """Periods of a lane as parts of its width, gaps between them."""
    now = 0.0
    for each in sorted((p for p in periods if p["lane"] == lane), key=lambda p: float(p["start_s"])):
        start, stop = max(0.0, each["start_s"]), each["end_s"]
        if start > now:
            yield f'<i style="width:{(start - now) / end:.4%};background:{COLOURS["waiting"]}" title="waiting"></i>'
        said = f"{each['what']}, step {each['step']}: {stop - each['start_s']:.1f} s"
        width = (stop - max(now, start)) / end
        yield f'<i style="width:{width:.4%};background:{COLOURS[each["what"]]}" title="{escape(said)}"></i>'
        now = stop


def _time(own: Figures) -> Section:
    """What GPUs do in a step, and what they wait for."""
    body = ""
    for lane, seconds in own["lanes_s"].items():
        rows = [
            [f'<i class="dot" style="background:{COLOURS[what]}"></i>{escape(what)}', f"{each:.2f}",
             f"{each / own['step_s']:.1%}", bar(each / own["step_s"], COLOURS[what])]
            for what, each in seconds.items()
        ]  # fmt: skip
        body += f"<h3>{LANES[lane]}</h3>{table(('', 'Seconds', 'Of a step', ''), rows, (0, 3))}"
    lead = (
        "Of a step on average. An instance that has answered all it was asked waits for the last answer of the step;"
        " GPUs wait for weights or for rollouts where they have nothing else to do."
    )
    return Section("time", "Where the time goes", lead, body)


def _answers(own: Figures) -> Section:
    """Lengths of answers, what becomes of them, and memory."""
    each, done, room = own["lengths"], own["update"], own["memory"]
    answers = [
        ["mean", f"{each['mean']:,.0f}"], ["median", f"{each['p50']:,.0f}"], ["90 %", f"{each['p90']:,.0f}"],
        ["99 %", f"{each['p99']:,.0f}"], ["longest of a step", f"{each['longest']:,.0f}"],
        ["longest, as expected", f"{each['longest_expected']:,.0f}"], ["cut off", f"{each['cut_off']:.1%}"],
    ]  # fmt: skip
    update = [
        ["sequences", f"{done['sequences']:,.0f} of {done['sequence_length']:,.0f}"],
        ["micro-batches of a pipeline", f"{done['micro_batches']:,.1f}"], ["padding", f"{done['padding']:.1%}"],
        ["bubble", f"{done['bubble']:.1%}"], ["seconds of one", f"{done['step_s']:.2f}"],
    ]  # fmt: skip
    memory = [
        ["peak of an update", f"{room['update_peak'] / GIGA:.1f} of {room['capacity'] / GIGA:.0f} GB"],
        ["reference beside it", f"{room['reference'] / GIGA:.1f} GB"], ["critic", "none (GRPO)"],
        ["weights of rollouts", f"{room['rollout_weights'] / GIGA:.1f} GB"],
        ["their cache", f"{room['rollout_cache'] / GIGA:.1f} GB"],
        ["new weights, in all", format_quantity(own["weights"]["bytes"], "data")],
    ]  # fmt: skip
    left = f"<h3>Tokens of answers</h3>{table(('', ''), answers)}"
    right = f"<h3>Update</h3>{table(('', ''), update)}<h3>Memory of a GPU</h3>{table(('', ''), memory)}"
    said = own["published"]
    beside = ""
    if said:
        beside = f"Published: {said['step_s']:g} s a step ({escape(said['source'])}); ours is {said['error']:+.0%}."
    body = f'<div class="two"><div>{left}</div><div>{right}</div></div>'
    return Section("answers", "Answers, update, memory", beside, body)
