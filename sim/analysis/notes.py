"""What a run leaves out or takes for granted and its answer does not show: a line each, for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sim.models.family import family, main_units, weights
from sim.scenario.values import Comm, Scenario

BLOCKING = "prices take it that nothing in the fabric blocks"


def notes(scenario: Scenario, summary: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """Lines, each beginning with the key that it is about. summary: of the run; overrides: of the command line."""
    yield from summary.get("faults_without_effect", ())
    if "routing" in summary:
        from sim.analysis.loads import unlike

        if line := unlike(summary["routing"]):
            yield line
    if line := _unmodelled(scenario):
        yield line
    if line := _capacity(scenario):
        yield line
    if line := _fabric(scenario, summary, overrides):
        yield line
    if line := _comm(scenario, overrides):
        yield line


def _unmodelled(scenario: Scenario) -> str:
    """What the real model has and no family has, with its share of all parameters."""
    model = scenario.model
    if model is None or not model.unmodelled:
        return ""
    own = family(model.family)
    rest = model.unmodelled_parameters
    share = rest / (rest + weights(model, main_units(own.units(model))).total)
    return f"model: {model.name} has {model.unmodelled} that is not modelled ({rest:,} parameters, {share:.2%} of all)"


def _capacity(scenario: Scenario) -> str:
    """What is said of a capacity that no expert reaches."""
    mixture = family(scenario.model.family).mixture(scenario.model) if scenario.model else None
    if mixture is None or not mixture.capacity or scenario.routing.kind != "balanced":
        return ""
    return "model.capacity: balanced routing gives each expert its mean, so nothing is dropped; try routing=sampled"


def _comm(scenario: Scenario, overrides: Sequence[str]) -> str:
    """What is said of communication kernels that a model without experts does not run."""
    model, said = scenario.model, any(word.startswith("comm") for word in overrides)
    if model is None or (scenario.comm == Comm() and not said):
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
