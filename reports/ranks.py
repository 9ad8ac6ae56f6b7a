"""What a row stands for: a position of the pipeline. Its ranks, one of each replica, are alike or differ."""

from typing import Any

from sim.result import Result

HEALTHY = "Ranks differ in this run; shown is one with balanced loads and no fault."
"""Said of figures that are worked out once, before loads are drawn and faults are laid on."""


def differ(result: Result) -> bool:
    """Whether the run followed each rank on its own: loads were drawn, or there were faults or jitter."""
    return "shown_replica" in result.summary


def each(result: Result) -> int | None:
    """Ranks at each position, or None when the scenario has no cluster."""
    nodes, gpus = (number(result.scenario, "cluster", *path) for path in (("nodes",), ("node", "gpus")))
    pipeline = number(result.scenario, "parallel", "pipeline")
    return nodes * gpus // pipeline if nodes and gpus and pipeline else None


def drawn(result: Result, positions: int) -> list[int]:
    """The rank drawn at each position where ranks differ; empty where all are alike."""
    count = each(result)
    if not differ(result) or count is None:
        return []
    return [position * count + int(result.summary["shown_replica"]) for position in range(positions)]


def row(result: Result) -> str:
    """A sentence on what a row of a figure that draws one rank a position stands for."""
    count = each(result)
    if count is None or count == 1:
        return "Each row is a position of the pipeline."
    if not differ(result):
        return f"Each row is a position of the pipeline, whose {count:,} ranks all do the same."
    replica = result.summary["shown_replica"]
    return (
        f"Each row is a position of the pipeline. Its {count:,} ranks differ: drawn is the one of replica {replica}, "
        f"the last to finish (at position 1 that is rank {count + replica:,})."
    )


def waited(result: Result) -> str:
    """Whether the rank that the step waits for most is among those drawn, a sentence; empty where there is none."""
    if not (critical := result.summary.get("critical_ranks")):
        return ""
    first = critical[0]
    where = f"rank {first['rank']:,} (position {first['pipeline_position']}, replica {first['replica']})"
    drawn = first["replica"] == result.summary["shown_replica"]
    return f"The step waits most for {where}, which is {'drawn' if drawn else 'not drawn'}. "


def mean(result: Result) -> str:
    """A sentence on means of the ranks of a position; empty where a position has but one."""
    count = each(result)
    if count is None or count == 1:
        return ""
    said = f"A position is the mean of its {count:,} ranks"
    return f"{said}; a rank's own can lie outside." if differ(result) else f"{said}, which are alike."


def number(scenario: dict[str, Any], *path: str) -> int | None:
    """The whole number at `path`, bare or with its source, or None when the scenario does not spell it out."""
    value: Any = scenario
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, dict):
        value = value.get("value")
    return int(value) if isinstance(value, int | float | str) and str(value).isdigit() else None
