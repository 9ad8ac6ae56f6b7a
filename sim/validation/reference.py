"""The scenario that published figures are compared with, laid out and run when first asked for."""

from dataclasses import dataclass
from functools import cached_property

from sim import assembly
from sim.engine.kit import Kit, kit_of
from sim.layout.machine import Machine
from sim.layout.plan import lay_out
from sim.result import Result
from sim.scenario.files import load
from sim.scenario.shelves import SCENARIOS
from sim.scenario.values import Scenario
from sim.step.overlap import compose
from sim.step.template import price

PAIR_LAYERS = 4
"""MoE layers forward and backward in the published profile (deepseek-ai/profile-data, train.json)."""


def scenario(name: str, *overrides: str) -> Scenario:
    """`scenarios/<name>.yaml`, with only the numbers asked for."""
    return load(str(SCENARIOS / f"{name}.yaml"), ["outputs=[result]", *overrides])


@dataclass(frozen=True)
class Reference:
    """A scenario with overrides, and what is needed of it, each made once."""

    name: str
    overrides: tuple[str, ...] = ()

    @cached_property
    def scenario(self) -> Scenario:
        return scenario(self.name, *self.overrides)

    @cached_property
    def result(self) -> Result:
        """One simulated step."""
        import sim

        return sim.run(self.scenario)

    @cached_property
    def machine(self) -> Machine:
        """With NICs for exchanges alone: the published profile and benchmarks have no other traffic."""
        return assembly.unshared(lay_out(self.scenario))

    @cached_property
    def pair(self) -> Kit:
        """Four MoE layers forward overlapped with four backward: the published profile's subject."""
        return pair(self.machine)


def pair(machine: Machine) -> Kit:
    """The overlapped pair of the published profile at the prices of `machine`, in isolation."""
    layers = tuple(machine.routed[0]._replace(layer=layer) for layer in range(PAIR_LAYERS))
    composition = compose("F+BW", layers, layers, machine.parts)
    fine = price("F+BW", (0, 1), composition, machine.pricer)
    return kit_of(composition, fine, machine.pricer.wires.network)
