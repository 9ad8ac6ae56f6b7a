"""Instances that tests step: a model on cards, its tensor and expert groups, and how experts are liked."""

from hwmodels import fabric, node
from hwmodels.collectives import wires
from hwmodels.document import Document
from sim.models.family import family
from sim.models.shape import ModelShape
from sim.scenario import model as models
from sim.scenario.values import Routing
from sim.serving.experts import Gating
from sim.serving.prices import Prices
from sim.serving.rank import Rank
from sim.serving.step import Stepper

BALANCED = Routing("balanced")


def model(name: str) -> ModelShape:
    """A model that ships."""
    key = ("model",)
    return models.shape(models.document(Document(name), key, None), key)[0]


def stepper(
    cards: str, tensor: int, expert: int, halves: bool = False, routing: Routing = BALANCED, name: str = "deepseek_v3",
    prompts: bool = False, precision: str = "fp8",
) -> Stepper:  # fmt: skip
    """What prices steps of an instance on nodes of such cards, over 400 Gb/s InfiniBand."""
    machine, shape = node.load(cards), model(name)
    links, own = wires(machine, fabric.load("ndr")), family(shape.family)
    part = shape.part(tensor, tensor if expert == 1 else 1)
    routed, mixture = sum(unit.routed and not unit.beside for unit in own.units(shape)), own.mixture(shape)
    gating = Gating(mixture, expert, machine.gpus, routing, 0, routed) if mixture else None
    rank = Rank(part, tensor, expert, machine.gpus, precision)
    return Stepper(rank, Prices(machine.device, links, beside=halves and prompts), gating, halves)
