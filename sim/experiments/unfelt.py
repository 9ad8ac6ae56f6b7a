"""Figures of a machine that a scenario states and its run does not feel: a line each, so that none is silent.

Those that no price reads are known by name. Of each of the others the run is made once more without it: what tells
nothing else then changes nothing. Ranks that differ are taken alike for that, and only figures are compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from hwmodels.refused import Refused
from sim.scenario.files import without
from sim.scenario.values import Routing, Scenario
from sim.simulation import run

DESCRIPTIVE = {
    "cluster.node.device.registers": "no price reads it: kernels are as fast as they were measured",
    "cluster.node.device.shared_memory": "no price reads it: kernels are as fast as they were measured",
    "cluster.node.device.l2.latency": "no price reads it: kernels are as fast as they were measured",
    "cluster.node.device.peak_flops.tf32": "no product of the model is in TF32",
    "cluster.node.device.peak_flops.fp32": "no product of the model is in FP32",
    "cluster.node.device.host.capacity": "what the host keeps is not counted",
    "cluster.fabric.cost": "no figure of a run is in money",
}
"""Keys that describe a machine and nothing reads, and why."""
UNTOLD = ("scenario_hash", "overrides", "events", "wall_seconds")
"""What a run tells of itself, not of the machine."""


def unfelt(scenario: Scenario, path: str, overrides: Sequence[str]) -> Iterator[str]:
    """Lines, each beginning with its key. path, overrides: what the scenario was read from."""
    for key in scenario.cluster.stated if scenario.cluster else ():
        why = next((why for name, why in DESCRIPTIVE.items() if key == name or key.startswith(f"{name}.")), "")
        if why:
            yield f"{key} changes nothing: descriptive, {why}"
        elif _same(scenario, path, overrides, key):
            yield f"{key} changes nothing in this run: what it limits is not reached, or not there"


def _same(scenario: Scenario, path: str, overrides: Sequence[str], key: str) -> bool:
    """Whether the run tells the same without a key."""
    try:
        other = without(path, overrides, key)
    except Refused:  # nothing else says it, so that it cannot be left out
        return False
    kinds = {"result"}, {"result", "links"} & set(scenario.outputs)
    return all(_figures(scenario, outputs) == _figures(other, outputs) for outputs in kinds)


def _figures(scenario: Scenario, outputs: set[str]) -> dict[str, Any] | str:
    """Figures of the even run, or why there is none."""
    batch = replace(scenario.batch, lengths=None)
    even = replace(
        scenario, routing=Routing("balanced"), faults=(), jitter=0.0, fold=True, outputs=tuple(outputs), batch=batch
    )  # fmt: skip
    try:
        summary = run(even, interval=False).summary
    except Refused as refused:
        return str(refused)
    return {name: value for name, value in summary.items() if name not in UNTOLD}
