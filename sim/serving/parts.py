"""Parts of published steps beside ours: ms of a layer, kernel by kernel (published.yaml, `parts`)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hwmodels.document import read
from hwmodels.op import Gemm, GroupedGemm
from hwmodels.units import MS_NS
from sim.models.blocks.made import EMBEDDING, HEAD
from sim.models.layer import COMMUNICATION
from sim.serving.attention import CORE
from sim.serving.cached import Block, PerHead
from sim.serving.prices import Kernel
from sim.serving.rows import FILE, Row, batch, instance, rows

STEP, OTHERS = "step", "others"
OF_OPS = {GroupedGemm: "experts", Block: "experts", Gemm: "products", PerHead: "products"}
"""Kind of an operation -> the part that its time is of; all but attention and exchanges is else of OTHERS."""


class Part(NamedTuple):
    """Of a row: ms a layer. ours None: steps here have nothing of the kind."""

    row: str
    name: str
    published: float
    ours: float | None


def parts() -> Iterator[Part]:
    """Of every row whose parts are published."""
    published: Mapping[str, Mapping[str, float]] = read(FILE).content["parts"]
    own = {row["id"]: row for row in rows()}
    for name, each in published.items():
        ours = of_row(own[name])
        yield from (Part(name, part, ms, ours.get(part)) for part, ms in each.items())


def of_row(row: Row) -> dict[str, float]:
    """ms a layer, the mean of all: kernels of the whole batch one after another, and the step."""
    whole, own = batch(row), instance(row)
    stepper = (own.grid.prefilling if whole.prefill else own.grid.decoding).at(whole)
    ns: Counter[str] = Counter()
    for half in (stepper.halves and whole.halves) or (whole,):
        for part, kernel in stepper.kernels(half):
            ns[_of(kernel)] += 0 if part in (EMBEDDING, HEAD) else stepper.prices.ns(kernel.op)
    ns[STEP] = stepper.ns_here(whole)
    return {name: each / len(stepper.order) / MS_NS for name, each in ns.items()}


def _of(kernel: Kernel) -> str:
    if kernel.name == CORE or kernel.lane == COMMUNICATION:
        return kernel.name
    return OF_OPS.get(type(kernel.op), OTHERS)
