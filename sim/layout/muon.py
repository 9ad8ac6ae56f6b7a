"""Muon: momentum of a matrix, made orthogonal by Newton-Schulz iterations in BF16, in place of AdamW for it.

Of [a, b] with a <= b an iteration makes three products: A = X X' [a, a], A A, and (bA + cAA) X, 4 a a b + 2 a a a
FLOPs; five of them are taken (Jordan et al., 2024; Muon is Scalable for LLM Training, arXiv:2502.16982, sec 2.1). It
has one moment. All else (embedding, head, norms, gate) stays with AdamW (sec 2.2).

Under ZeRO-1 a rank gathers the whole matrices that its shard lies in, makes them orthogonal, and keeps its part (sec
2.3, distributed Muon). A shard of L parameters out of a ring's lies in a matrix of s with chance (s / L + 1) / ranks,
so a rank does that part of each on average; the gather is priced as one of all matrices in BF16, the most it can be.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from hwmodels.formats import BF16
from hwmodels.op import Gemm, GroupedGemm
from hwmodels.refused import Refused
from sim.layout.machine import Machine
from sim.models.family import weights
from sim.models.layer import Unit

NAME = "muon"
ITERATIONS = 5


class Matrix(NamedTuple):
    """A weight of rows x columns. expert: of a routed expert."""

    rows: int
    columns: int
    expert: bool

    @property
    def size(self) -> int:
        """Parameters of it."""
        return self.rows * self.columns


def matrices(machine: Machine, unit: Unit) -> Mapping[Matrix, int]:
    """Matrices of a unit on a rank that Muon updates, and how many alike: those of its weight-gradient products, which
    for a head and a gate are AdamW's. Raises Refused where these are not the unit's parameters."""
    own, site = weights(machine.site.shape, [unit]), machine.site
    held: Counter[Matrix] = Counter()
    if not own.linear + own.experts:
        return held
    gate = (machine.mixture.experts, site.shape.hidden) if machine.mixture and unit.routed else None
    for op in (kernel.op for part in machine.parts(unit, "W") for kernel in part.kernels):
        if isinstance(op, GroupedGemm):
            held[Matrix(op.n, op.k, True)] += op.groups
        elif isinstance(op, Gemm) and op.role == "wgrad" and (op.m, op.n) != gate:
            held[Matrix(op.m, op.n, unit.routed and op.k not in (site.tokens, site.own))] += 1
    dense = sum(matrix.size * count for matrix, count in held.items() if not matrix.expert)
    if dense != own.linear:
        raise Refused(f"{NAME} does not know the matrices of a {unit.label} layer; legal: adamw", key="optimizer.name")
    return held


def orthogonal_ns(machine: Machine, matrix: Matrix) -> int:
    """Nanoseconds in which a rank makes a matrix orthogonal."""
    a, b = sorted((matrix.rows, matrix.columns))
    products = [Gemm(m, n, k, precision=BF16.name) for m, n, k in ((a, a, b), (a, a, a), (a, b, a))]
    return ITERATIONS * sum(machine.pricer.price(product).ns for product in products)


def update_ns(machine: Machine, stage: int, dense_ranks: int, expert_ranks: int) -> int:
    """Nanoseconds for a rank's part of a stage's matrices, a mean over the ranks that share them."""
    held: Counter[Matrix] = Counter()
    for unit in machine.stages[stage]:
        held.update(matrices(machine, unit))
    total = 0.0
    for expert, ranks in ((False, dense_ranks), (True, expert_ranks)):
        own = {matrix: count for matrix, count in held.items() if matrix.expert == expert}
        shard = sum(matrix.size * count for matrix, count in own.items()) / ranks
        for matrix, count in own.items():
            part = min(1.0, (matrix.size / shard + 1) / ranks) if ranks > 1 else 1.0
            total += count * part * orthogonal_ns(machine, matrix)
    return round(total)
