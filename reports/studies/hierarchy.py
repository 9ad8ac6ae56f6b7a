"""The L2 cache in other technologies and sizes: what the step makes of it."""

from hwmodels.units import MILLI
from reports.studies import svg
from reports.studies.points import Points
from sim.result.markdown import table


def tell(points: Points) -> tuple[str, dict[str, str]]:
    """Markdown, and a chart."""
    steps = {labels["point"]: float(record["summary"]["step_time_s"]) for labels, record in points}
    base = next(iter(steps.values()))
    longer = {what: (step - base) / MILLI for what, step in steps.items()}
    rows = [[what, f"{steps[what]:.4f}", f"{more:+.2f}"] for what, more in longer.items()]
    bars = svg.Series("longer than with the SRAM that is there", list(longer.values()))
    chart = svg.stacked("How much longer a step takes, by the L2 cache", "milliseconds", list(longer), [bars])
    block = f"{table(['L2 cache', 'step, s', 'longer, ms'], rows)}\n\n![Longer by L2 cache](hierarchy.svg)"
    return block, {"hierarchy.svg": chart}
