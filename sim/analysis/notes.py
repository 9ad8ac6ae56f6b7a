"""What a run leaves out or takes for granted and its answer does not show: a line each, for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sim.models.family import family
from sim.scenario.values import PROFILE_SPREAD, Comm, Scenario

SLACK = (
    "comm.waits: none; the communication stream of V3's pair is 64 % busy here and 89 % in its profile, with waits for "
    "peers: what rests on its slack (NICs, comm.sms, unevenness) comes out too cheap; comm.waits=measured puts them in"
)
RESTS = ("cluster.node.nic", "cluster.node.nvlink", "comm.sms", "comm.warps", "routing", "jitter", "faults")
"""Keys whose what-ifs rest on how much of the communication stream is idle."""
SPREAD = (
    "routing: spread 0.15 is of DeepSeek's profile, whose README calls its routing absolutely balanced while its rows "
    "vary by 14 %; it says nothing certain of training"
)
BLOCKING = "prices take it that nothing in the fabric blocks"


def notes(scenario: Scenario, summary: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """Lines, each beginning with the key that it is about. summary: of the run; overrides: of the command line."""
    yield from summary.get("faults_without_effect", ())
    if "routing" in summary:
        from sim.analysis.loads import unlike

        if line := unlike(summary["routing"]):
            yield line
    if line := _fabric(scenario, summary, overrides):
        yield line
    if line := _comm(scenario, overrides):
        yield line
    if scenario.model is None and scenario.optimizer.reduce == "after":
        yield "optimizer.reduce: chunk_times have no gradients to reduce, so it changes nothing"
    if scenario.routing.kind == "sampled" and scenario.routing.spread == PROFILE_SPREAD:
        yield SPREAD
    if scenario.comm.waits == "none" and _rests(scenario, summary, overrides):
        yield SLACK


def _rests(scenario: Scenario, summary: Mapping[str, Any], overrides: Sequence[str]) -> bool:
    """Whether the question is of something that hidden exchanges have room for."""
    asked = any(word.startswith(RESTS) for word in overrides) or scenario.uneven
    return asked and bool(summary.get("overlap_fraction"))


def _comm(scenario: Scenario, overrides: Sequence[str]) -> str:
    """What is said of communication kernels that a model without experts does not run."""
    model, kernels = scenario.model, replace(scenario.comm, messages=Comm.messages)
    said = any(word.startswith("comm") and not word.startswith("comm.messages") for word in overrides)
    if model is None or (kernels == Comm() and not said):
        return ""
    if family(model.family).mixture(model):
        return ""
    return f"comm: {model.name} has no experts, so no kernel of exchanges runs or holds SMs"


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
