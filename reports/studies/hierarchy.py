"""The L2 cache in other technologies and sizes: what the step makes of it."""

from hwmodels.units import MILLI
from reports.studies import svg, text
from reports.studies.points import Points

SIZES = (50, 200)
"""MiB of which there is a step in every technology."""


def tell(points: Points) -> tuple[str, dict[str, str]]:
    """Markdown, and a chart."""
    steps = {labels["point"]: float(record["summary"]["step_time_s"]) for labels, record in points}
    base = next(iter(steps.values()))
    longer = {what: (step - base) / MILLI for what, step in steps.items()}
    rows = [[what, f"{steps[what]:.4f}", f"{more:+.2f}"] for what, more in longer.items()]
    technologies = dict.fromkeys(what.split(" of ")[0] for what in steps)
    series = [
        svg.Series(name, [next(more for what, more in longer.items() if what.startswith(f"{name} of {size} MiB"))
                          for size in SIZES])
        for name in technologies
    ]  # fmt: skip
    chart = svg.lines(
        "How much longer a step takes, by the L2 cache", "milliseconds; MiB", [float(s) for s in SIZES], series
    )
    block = f"{text.table(['L2 cache', 'step, s', 'longer, ms'], rows)}\n\n![Longer against size](hierarchy.svg)"
    return block, {"hierarchy.svg": chart}
