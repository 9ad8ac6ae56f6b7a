"""What a run leaves out or takes for granted and its answer does not show: a line each, for the terminal."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from hwmodels import device as devices
from hwmodels import fabric as fabrics
from hwmodels import node as nodes
from hwmodels.device import FOLLOWS
from hwmodels.figure import Figure
from hwmodels.units import format_quantity
from sim import assembly
from sim.layout.plan import lay_out, mesh_of
from sim.models.family import family, main_units, weights
from sim.models.lowering import modules
from sim.scenario.values import PROFILE_SPREAD, Cluster, Scenario

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
    if line := _unmodelled(scenario):
        yield line
    if "model.capacity" not in scenario.asked and (line := _capacity(scenario)):
        yield line
    if scenario.batch.packed and summary.get("documents", {}).get("attention_share") == 0 and scenario.model:
        yield f"batch.lengths: {scenario.model.name} has no attention, so documents change nothing"
    if line := _fabric(scenario, summary, overrides):
        yield line
    if scenario.overlap.expert and (line := _pairs(scenario)):
        yield line
    yield from _kept(scenario)
    yield from _layers(scenario)
    if "outputs" in scenario.asked:
        yield from _unwritten(scenario, summary)
    if scenario.routing.kind == "sampled" and scenario.routing.spread == PROFILE_SPREAD:
        yield SPREAD
    if scenario.comm.waits == "none" and _rests(scenario, summary, overrides):
        yield SLACK
    if scenario.comm.waits == "measured":
        yield from _waits(scenario)
    if scenario.cluster and scenario.cluster.stated:
        yield from _stated(scenario.cluster)


def _kept(scenario: Scenario) -> Iterator[str]:
    """What is said of modules that are not there, and of what the host's time is."""
    if scenario.model is None:
        return
    if scenario.recompute.modules:
        site = assembly.prices(scenario, assembly.held_always(lay_out(scenario))).site
        own = modules(site, scenario.recompute.modules)
        if idle := [module for module in scenario.recompute.modules if module not in own]:
            what = f"{', '.join(idle)} to compute again on the {scenario.stack.name} stack"
            yield f"recompute.modules: {scenario.model.name} has no {what}, so that changes nothing"
    if scenario.optimizer.offloaded:
        yield "optimizer.offload: the host updates as fast as its memory moves bytes, which CPUs come short of"


def _layers(scenario: Scenario) -> Iterator[str]:
    """What is not counted of what ranks of a layer send each other between nodes."""
    if scenario.model is None or scenario.cluster is None or not scenario.cluster.fabric:
        return
    given, mesh = scenario.parallel, mesh_of(scenario, scenario.parallel.pipeline)
    far = [key for key in ("tensor", "context", "expert_tensor") if getattr(given, key) > 1 and mesh.nodes_of(key) > 1]
    if far and (scenario.cluster.routing or "links" in scenario.outputs):
        yield f"parallel.{far[0]}: its groups span nodes; what they send is priced, but in no link of the fabric"


def _unwritten(scenario: Scenario, summary: Mapping[str, Any]) -> Iterator[str]:
    """Tables that a scenario asks for and that nothing is in."""
    if "links" in scenario.outputs and "links" not in summary:
        yield "outputs: no links.csv, for chunk_times have no links"
    if "loads" in scenario.outputs and "routing" not in summary:
        yield "outputs: no loads.csv, for loads are drawn where routing is not balanced"


def _waits(scenario: Scenario) -> Iterator[str]:
    """What measured waits are of, where they are not of this run."""
    model, cluster = scenario.model, scenario.cluster
    if model is None or cluster is None or not family(model.family).mixture(model):
        return
    if "H800" not in cluster.node.device.name:
        yield f"comm.waits: measured on a rank of H800s, not on {cluster.node.device.name}, and taken over as they are"
    if scenario.uneven:
        yield "comm.waits: the profile's waits contain what uneven ranks make each other wait, which this run has too"


def _rests(scenario: Scenario, summary: Mapping[str, Any], overrides: Sequence[str]) -> bool:
    """Whether the question is of something that hidden exchanges have room for."""
    asked = any(word.startswith(RESTS) for word in overrides) or scenario.uneven
    return asked and bool(summary.get("overlap_fraction"))


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


def _pairs(scenario: Scenario) -> str:
    """What is said of pairs that were asked for and hide nothing."""
    mixture = family(scenario.model.family).mixture(scenario.model) if scenario.model else None
    if scenario.model and (not mixture or scenario.parallel.expert == 1):
        return "overlap.expert: nothing is exchanged, so pairs hide nothing, and more activations are kept"
    return ""


def _fabric(scenario: Scenario, summary: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """What is not known of a fabric that can only be counted, and what another one than the file's does not change."""
    cluster = scenario.cluster
    if cluster is None or cluster.fabric is None:
        return ""
    if cluster.nodes == 1:
        return "cluster.fabric changes nothing: nothing leaves one node"
    if cluster.routing:
        return ""
    if why := summary.get("links", {}).get("left_out"):
        return f"cluster.fabric: counted, not wired ({why}); no links.csv, and {BLOCKING}"
    if any(word.startswith(("cluster.fabric", "cluster=")) for word in overrides):
        return f"cluster.fabric: {BLOCKING}; set cluster.routing (static, ecmp, adaptive) to price collisions"
    return ""


COUNTED = ("cluster.node.gpus",)
"""Counts of what a scenario uses of a machine: one GPU of a node is no mistyped node."""
FAR = 4.0
"""Times beyond all figures of that key that ship; 8 is what a byte has more than a bit."""


def _stated(cluster: Cluster) -> Iterator[str]:
    """What goes with figures that a scenario states: peaks that follow them, and whether they look mistyped."""
    device = cluster.node.device
    if any(device.figures[f"peak_flops.{name}"].source.startswith(FOLLOWS) for name in device.peak_flops):
        peak = format_quantity(device.peak_flops["bf16"], "FLOP/time")
        yield f"cluster.node.device: its peaks follow its SMs and clock (bf16: {peak}); state peak_flops to set them"
    shipped = _shipped()
    for key, figure in cluster.stated.items():
        values = {} if key in COUNTED else shipped.get(re.sub(r"^cluster\.(node\.device|node|fabric)\.", "", key), {})
        if figure.value and values and (line := _far(figure, values)):
            yield f"{key}: {line}"


def _far(figure: Figure, shipped: Mapping[float, str]) -> str:
    """Where a figure is far beyond all that ship (value -> text): by how much, and a hint at bits where it is bytes."""
    most, least, what = max(shipped), min(shipped), "of any machine that ships"
    hint = "; Gb is gigabits, GB gigabytes" if re.search(r"[kMGTP]b(it)?(/s)?$|[kMGTP]B(/s)?$", figure.text) else ""
    if figure.value >= FAR * most > 0:
        return f"{figure.text} is {figure.value / most:.3g} times the most {what} ({shipped[most]}){hint}"
    if figure.value <= least / FAR:
        return f"{figure.text} is 1/{least / figure.value:.3g} of the least {what} ({shipped[least]}){hint}"
    return ""


@cache
def _shipped() -> dict[str, dict[float, str]]:
    """Of every key, the figures of all machines that ship."""
    known: dict[str, dict[float, str]] = {}
    for kind in (devices, nodes, fabrics):
        for name in kind.available():
            for key, figure in kind.load(name).figures.items():
                known.setdefault(key, {})[figure.value] = figure.text
    return known
