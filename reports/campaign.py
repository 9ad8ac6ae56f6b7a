"""A campaign's page, which needs no script, and what a terminal shows of it."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import IO, Any

from hwmodels.units import GIGA, KILO, MEGA, PERCENT, SECONDS_PER_DAY, SECONDS_PER_HOUR, TERA, format_quantity
from reports import answer
from reports.headline import Figure
from reports.palette import PARTS
from reports.section import Section, table

Figures = Mapping[str, Any]

CAUSES = {
    "work": ("steps", "Steps of all phases, each once: the ideal."),
    "checkpoints": ("checkpoints", "Training waits while a checkpoint is copied, and is slower while it is written."),
    "evaluation": ("evaluation", "Pauses in which the model is evaluated."),
    "changes": ("new layouts", "The job is stored and started anew where the layout changes."),
    "slow": ("slow nodes", "Steps take longer until a slow node is found."),
    "recomputed": ("done again", "What was done since the last whole checkpoint before a failure."),
    "detection": ("detection", "From a failure until it is seen; hangs take a timeout."),
    "replacement": ("replacement", "Until a spare or a repaired node stands in."),
    "restart": ("restart", "Launch, connections, loading, warm-up."),
}
"""Key of hours_s -> its name and meaning, in the order of the waterfall."""
KINDS = {
    "nodes": "nodes", "switches": "switches", "software": "software", "silent": "silent errors",
    "stragglers": "slow nodes", "all": "all",
}  # fmt: skip
KWH = KILO * SECONDS_PER_HOUR


def render(summary: Figures, scenario: Figures) -> str:
    """The page of a campaign, as HTML text. summary: as in result.json."""
    own = summary["campaign"]
    parts = [_calendar(own), _waterfall(own), _failures(own), _cost(own)]
    return answer.page(summary, setting(summary), headline(summary), parts, answer.file(scenario, "The campaign"))


def show(summary: Figures, stream: IO[str]) -> None:
    """Print the headline and where the hours go."""
    own = summary["campaign"]
    rows = [*headline(summary), *((f"  {name}", value, share) for name, value, share in _hours(own))]
    answer.show(summary, setting(summary), rows, stream)


def headline(summary: Figures) -> list[Figure]:
    """The figures that answer the question."""
    own = summary["campaign"]
    rows = [
        (
            "Days",
            f"{own['days']['p50']:.1f}",
            f"median; seeds {_span(own['days'], 1, '.1f')}, with steps' interval {_ends(own, 'days', 1, '.1f')} (90 %)",
        ),
        ("GPU-hours", f"{own['gpu_hours']['p50'] / KILO:,.0f} K", f"{_span(own['gpu_hours'], KILO, ',.0f')} K"),
        (
            "Goodput",
            f"{own['goodput']['p50']:.1%}",
            f"steps' part of the time; {_span(own['goodput'], PERCENT, '.1f')} %",
        ),
    ]
    if own["dollars"]:
        rows.append(("Cost", f"{own['dollars']['p50'] / MEGA:.3f} M USD",
                     f"spares included; {_span(own['dollars'], MEGA, '.3f')} M,"
                     f" with steps' interval {_ends(own, 'dollars', MEGA, '.1f')} M"))  # fmt: skip
    rows.append(
        ("Energy", f"{own['energy_j']['p50'] / KWH / MEGA:.2f} GWh", f"{_span(own['energy_j'], KWH * MEGA, '.2f')} GWh")
    )
    often = own["interruptions"]
    mean = f"one in {often['mean_s'] / SECONDS_PER_HOUR:.1f} h" if often["mean_s"] else "none planned"
    rows.append(("Interruptions", f"{often['all']['p50']:.0f}", f"{_span(often['all'], 1, '.0f')}; {mean}"))
    return [Figure(*row) for row in rows]


def _ends(own: Figures, key: str, unit: float, form: str) -> str:
    """A figure's 90 % interval of chance and steps; "" where it has none."""
    if not (ends := own["intervals_90"].get(key)):
        return ""
    low, high = (f"{end / unit:{form}}" for end in ends)
    return f"{low} to {high}"


def setting(summary: Figures) -> str:
    """The campaign in a line."""
    own = summary["campaign"]
    spares = f" and {own['spares']} spare{'s' * (own['spares'] > 1)}" if own["spares"] else ""
    return (
        f"{summary['gpus']:,} GPUs on {own['nodes']:,} nodes{spares} · {own['tokens'] / TERA:.3f} T tokens in"
        f" {own['steps']:,} steps · {own['seeds']:,} seeds · scenario {str(summary['scenario_hash'])[:12]}"
    )


def _span(figure: Figures, unit: float, form: str) -> str:
    return f"{figure['p5'] / unit:{form}} to {figure['p95'] / unit:{form}}"


def _calendar(own: Figures) -> Section:
    """Phases one after another."""
    phases, total = own["phases"], own["hours_s"]["work"]
    colours = [PARTS[i % len(PARTS)] for i in range(len(phases))]
    strip = "".join(
        f'<i style="width:{phase["work_s"] / total:.3%};background:{colour}" title="{escape(phase["name"])}"></i>'
        for phase, colour in zip(phases, colours, strict=True)
    )
    stretch = own["days"]["p50"] / own["ideal"]["days"]
    rows = [
        [f'<i class="dot" style="background:{colour}"></i>{escape(phase["name"])}',
         f"{phase['begins_days'] * stretch:.1f}", f"{phase['work_s'] / SECONDS_PER_DAY * stretch:.2f}",
         f"{phase['steps']:,}", f"{phase['tokens'] / GIGA:,.1f}", _range(phase["sequences"], ",d"),
         f"{phase['sequence_length']:,}",
         _range(phase["step_s"], ".2f"), f"{phase['gpu_hours'] / KILO:,.1f}",
         f"{phase['peak_bytes'] / GIGA:.0f} of {phase['capacity_bytes'] / GIGA:.0f}",
         escape(phase["layout"]), escape(phase["learning_rate"])]
        for phase, colour in zip(phases, colours, strict=True)
    ]  # fmt: skip
    head = ("Phase", "From day", "Days", "Steps", "Tokens (G)", "Sequences", "Length", "Step (s)", "GPU-hours (K)",
            "Memory (GB)", "Layout", "Learning rate")  # fmt: skip
    few = ", ".join(
        f"{phase['simulated']} of {phase['batches']} batches of {escape(phase['name'])}"
        for phase in phases if phase["simulated"] < phase["batches"]
    )  # fmt: skip
    drawn = f" Simulated: {few}; lines between them." if few else ""
    lead = "Phases as long as in the median seed; hours are of their steps alone. Learning rates are labels." + drawn
    return Section(
        "calendar",
        "Calendar",
        lead,
        f'<div class="strip" aria-hidden="true">{strip}</div>{table(head, rows, (0, 10, 11))}',
    )


def _range(ends: Sequence[float], form: str) -> str:
    first, last = (f"{end:{form}}" for end in ends)
    return first if first == last else f"{first} to {last}"


def _hours(own: Figures) -> list[tuple[str, str, str]]:
    """Cause, mean hours and part, in the order of the waterfall; those that are nothing are left out."""
    total = sum(own["hours_s"].values())
    rows = ((name, own["hours_s"][key]) for key, (name, _) in CAUSES.items())
    return [(name, f"{value / SECONDS_PER_HOUR:,.1f} h", f"{value / total:.2%}") for name, value in rows if value]


def _waterfall(own: Figures) -> Section:
    """From the steps alone to the mean wall clock. What is beyond steps is drawn on a scale of its own."""
    hours, total = own["hours_s"], sum(own["hours_s"].values())
    beyond, at, rows = (total - hours["work"]) or 1.0, 0.0, list[list[str]]()
    for key, (name, meaning) in CAUSES.items():
        value = hours[key]
        if not value:
            continue
        drawn = ""
        if key != "work":
            drawn = f'<span class="fall"><i style="left:{at / beyond:.2%};width:{value / beyond:.2%}"></i></span>'
            at += value
        rows.append([escape(name), f"{value / SECONDS_PER_HOUR:,.1f}", f"{value / total:.2%}", drawn, escape(meaning)])
    rows.append(
        ["<b>wall clock</b>", f"<b>{total / SECONDS_PER_HOUR:,.1f}</b>", "100 %", "", "The sum, mean of all seeds."]
    )
    head = ("Part", "Hours", "Share", "Beyond steps", "Meaning")
    lead = (
        "From the ideal to the wall clock, mean of all seeds. Bars show what comes beyond the steps, each from where"
        " the last ends."
    )
    return Section("hours", "Where the hours go", lead, f'<div class="falls">{table(head, rows, (0, 3, 4))}</div>')


def _failures(own: Figures) -> Section:
    """Interruptions by cause, how seeds spread, and what checkpoints take."""
    rows = [
        [escape(name), f"{figure['mean']:.2f}", f"{figure['p5']:.0f} to {figure['p95']:.0f}"]
        for key, name in KINDS.items() if (figure := own["interruptions"][key])["mean"]
    ]  # fmt: skip
    causes = table(("Interrupted by", "Mean", "90 % of seeds"), rows or [["nothing", "0", ""]])
    left = f"<h3>Interruptions</h3>{causes}<h3>Days over seeds</h3>{_histogram(own['seeds_by_days'])}"
    right = f"<h3>Checkpoints</h3>{_checkpoints(own['checkpoint'])}"
    body = f'<div class="two"><div>{left}</div><div>{right}</div></div>'
    return Section("failures", "Failures and checkpoints", "", body)


def _histogram(own: Figures) -> str:
    """Bars in a row, with their ends below."""
    most = max(own["seeds"])
    bars = "".join(f'<i style="height:{count / most:.1%}" title="{count} seeds"></i>' for count in own["seeds"])
    ends = f"<span>{own['first']:.1f} days</span><span>{own['last']:.1f} days</span>"
    return f'<div class="seeds" role="img" aria-label="seeds by days">{bars}</div><div class="ends">{ends}</div>'


def _checkpoints(own: Figures) -> str:
    times = {
        "between two, of work": own["every_s"], "training waits": own["stall_s"], "copy to the host": own["snapshot_s"],
        "write to storage": own["write_s"], "send to other nodes": own["send_s"] or None,
        "until it can be loaded": own["lag_s"], "load": own["load_s"], "Daly's best interval": own["optimum_s"],
        "Young's": own["young_s"],
    }  # fmt: skip
    sizes = {"in all": own["total_bytes"], "of a node": own["node_bytes"]}
    rows = [[escape(name), escape(format_quantity(value, "data"))] for name, value in sizes.items()]
    rows += [
        [escape(name), escape(format_quantity(value, "time"))] for name, value in times.items() if value is not None
    ]
    what = f"{own['kind']}, of phase {own['phase']}; {own['count']:,} without failures"
    return f"<p class='lead'>{escape(what)}</p>{table(('', ''), rows)}"


def _cost(own: Figures) -> Section:
    """Cost with intervals, and published hours beside the same steps."""
    units = {
        "days": ("Days", 1.0, ".2f"), "gpu_hours": ("GPU-hours (K)", KILO, ",.1f"),
        "goodput": ("Goodput (%)", PERCENT, ".2f"), "dollars": ("M USD", MEGA, ".3f"),
        "energy_j": ("GWh", KWH * MEGA, ".3f"),
    }  # fmt: skip
    rows = [
        [
            name, *(f"{own[key][level] / unit:{form}}" for level in ("mean", "p5", "p25", "p50", "p75", "p95")),
            _ends(own, key, unit, form),
        ]
        for key, (name, unit, form) in units.items() if own[key]
    ]  # fmt: skip
    spread = table(("Over seeds", "Mean", "5 %", "25 %", "Median", "75 %", "95 %", "And over steps, 90 %"), rows)
    watts = own["power_w"]
    lead = (
        f"A GPU's part of its building takes {watts['busy']:,.0f} W while it trains and {watts['idle']:,.0f} W while it"
        " waits (InferenceX's power model of a node of eight). Percentiles are of chance alone; the last column has"
        " also what steps are uncertain by, which all phases share."
    )
    beside = ""
    if own["published"]:
        lines = [
            [escape(row["what"]), f"{row['published'] / KILO:,.0f}", f"{row['simulated'] / KILO:,.1f}",
             f"{row['error']:+.1%}", escape(row["source"])]
            for row in own["published"]
        ]  # fmt: skip
        head = ("Steps of", "Published (K)", "Simulated (K)", "Off", "What the published figure is")
        beside = "<h3>Published GPU-hours beside those of the same steps, without failures</h3>"
        beside += table(head, lines, (0, 4))
    return Section("cost", "Cost, with intervals", lead, spread + beside)
