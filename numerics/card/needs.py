"""What a scenario asks of one GPU: every distinct operation of its layers, by the names its kernels go by.

The loads are the balanced ones: expected rows of an expert, and a token's nodes and ranks as published for DeepSeek-V3.
"""

from collections.abc import Mapping

from hwmodels.formats import TILE
from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory, Op
from numerics.traces.samples import NODES_A_TOKEN, RANKS_A_TOKEN
from sim.models.family import family
from sim.models.layer import Site, Unit
from sim.models.precision import RECIPES
from sim.scenario import Scenario

Timed = Gemm | GroupedGemm | Attention | Memory


def site(scenario: Scenario) -> Site:
    """One micro-batch of a rank with balanced experts. Raises ValueError for a scenario without a model."""
    shape, cluster = scenario.model, scenario.cluster
    if shape is None or cluster is None:
        raise ValueError(f"{scenario.name}: chunk times need no operations; name a scenario with a model and a cluster")
    group, batch = scenario.parallel.expert, scenario.batch
    tokens = batch.micro_batch * batch.sequence_length
    mixture, recipe = family(shape.family).mixture(shape), RECIPES[scenario.precision]
    if mixture is None:
        return Site(shape, recipe, batch.micro_batch, batch.sequence_length, 0, 0, 0.0, 0.0, 0, 1, 1)
    local, group_nodes = mixture.experts // group, max(1, group // cluster.node.gpus)
    nodes, ranks = min(NODES_A_TOKEN, group_nodes), min(RANKS_A_TOKEN, group)
    # Every rank of the group sends its share; padding to whole tiles adds half a tile an expert in expectation.
    rows = -(-(tokens * mixture.chosen + local * TILE // 2) // TILE) * TILE
    return Site(
        shape, recipe, batch.micro_batch, batch.sequence_length, round(tokens * ranks), rows, nodes, ranks, local,
        group, group_nodes,
    )  # fmt: skip


def operations(scenario: Scenario) -> Mapping[Timed, tuple[str, ...]]:
    """Operation -> names of the kernels that do it, in the order of the model; exchanges need more than one GPU."""
    where = site(scenario)
    by_op: dict[Timed, list[str]] = {}
    for unit in _distinct(where):
        for direction in "FBW":
            for part in family(where.shape.family).parts(where, unit, direction):
                for kernel in part.kernels:
                    if isinstance(kernel.op, Timed):
                        by_op.setdefault(kernel.op, []).append(kernel.name)
                    else:
                        assert isinstance(kernel.op, AllToAll), kernel
    return {op: tuple(dict.fromkeys(names)) for op, names in by_op.items()}


def _distinct(where: Site) -> list[Unit]:
    """One unit of each kind: layers of a kind are alike."""
    units = family(where.shape.family).units(where.shape)
    return list({unit.kind: unit for unit in reversed(units)}.values())[::-1]


def resized(op: Timed, factor: float) -> Timed:
    """The same operation on `factor` times the rows (tokens), whole tiles where it works in tiles."""
    if isinstance(op, Gemm):
        side = "k" if op.role == "wgrad" else "m"
        return op._replace(**{side: _tiled(getattr(op, side) * factor, TILE)})
    if isinstance(op, GroupedGemm):
        return op._replace(rows=_tiled(op.rows * factor, TILE * op.groups))
    if isinstance(op, Attention):
        return op._replace(sequence=_tiled(op.sequence * factor, TILE))
    return op._replace(rows=max(1, round(op.rows * factor)))


def _tiled(size: float, tile: int) -> int:
    return max(1, round(size / tile)) * tile


def confinable(op: Op) -> bool:
    """Whether our kernel for it can be held to a number of SMs: the FP8 products."""
    return isinstance(op, Gemm | GroupedGemm) and op.precision == "fp8"


def kind_of(op: Op) -> str:
    """The class an operation is planned and reported in."""
    if isinstance(op, Memory):
        return op.kind
    if isinstance(op, Attention):
        return f"attention {op.direction}"
    if isinstance(op, GroupedGemm):
        return "grouped product"
    assert isinstance(op, Gemm)
    return "BF16 product" if op.precision != "fp8" else "weight gradient" if op.role == "wgrad" else "product"
