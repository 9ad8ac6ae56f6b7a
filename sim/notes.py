"""What a run leaves out or takes for granted and its answer does not show: a line each, for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sim.scenario import Scenario

BLOCKING = "prices take it that nothing in the fabric blocks"


def notes(scenario: Scenario, summary: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """Lines, each beginning with the key that it is about. summary: of the run; overrides: of the command line."""
    yield from summary.get("faults_without_effect", ())
    if "routing" in summary:
        from sim.tokens.summary import unlike

        if line := unlike(summary["routing"]):
            yield line
    if line := _fabric(scenario, summary, overrides):
        yield line


def _fabric(scenario: Scenario, summary: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """What is not known of a fabric that can only be counted, and what another one than the file's does not change."""
    cluster = scenario.cluster
    if cluster is None or cluster.fabric is None or cluster.routing:
        return ""
    if why := summary.get("links", {}).get("left_out"):
        return f"cluster.fabric: counted, not wired ({why}); no links.csv, and {BLOCKING}"
    if any(word.startswith(("cluster.fabric", "cluster=")) for word in overrides):
        return f"cluster.fabric: {BLOCKING}; set cluster.routing (static, ecmp, adaptive) to price collisions"
    return ""
