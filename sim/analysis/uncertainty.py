"""How sure a prediction is: the spread of prices carried to the step, as a 90 % interval and a tornado.

Prices that rest on the same thing (a family of kernels on one rung of the ladder, the links, the optimizer) are wrong
together; different families are wrong independently. Each family's spread moves the templates it occurs in: one
op-level run of each template a family. Then all steps and messages are gone through once for all draws of all
families (`sim.analysis.graph`), so that whichever path is the longest in a draw counts there. The draws are the same
for every headline and every scenario (paired), keyed by the seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.price import Price
from hwmodels.units import NS_PER_S
from sim.analysis import metrics
from sim.analysis.graph import Graph, Moved, ends
from sim.engine.alone import alone
from sim.engine.kit import Kit
from sim.engine.lowering import Lowered
from sim.step.template import Template

Floats = npt.NDArray[np.float64]
DRAWS = 4096
"""Samples of the interval; its ends are good to about 2 % of its width."""
LOW, HIGH = 5, 95
"""Percentiles of a 90 % interval."""
NAMES = {
    "gemm": "FP8 products", "wgrad": "weight-gradient products", "gemm_bf16": "BF16 products", "attention": "attention",
    "memory": "memory-bound kernels", "norm": "norms", "small": "small kernels", "routing": "routing",
    "exchange": "expert exchanges beside compute", "network": "gathers and reductions beside compute",
}  # fmt: skip
LINKS = ("exchange", "network")
"""Families that links set."""
WIRE_SPREAD = 0.10
"""Relative spread of pipeline messages and gradient traffic: closed forms over published effective bandwidths."""


@dataclass(frozen=True)
class Cause:
    """Something prices rest on. spread: relative. step_s, cheaper_s: seconds the step moves when it is one spread
    dearer, and one spread cheaper (where another path takes over, more or less than the opposite). bound: whether it is
    a bound that no kernel beats, and so is never cheaper."""

    name: str
    spread: float
    step_s: float = 0.0
    cheaper_s: float = 0.0
    bound: bool = False


@dataclass(frozen=True)
class Sensitivity:
    """causes, largest first. phases_s: seconds one spread of each adds to the phases, mean over ranks. z: draws of them
    [cause, draw], in spreads. longer_s: by how many seconds the step gets longer, [draw]."""

    causes: tuple[Cause, ...]
    phases_s: tuple[dict[str, float], ...]
    z: Floats
    longer_s: Floats


def sensitivity(
    lowered: Lowered,
    graph: Graph,
    books: Sequence[metrics.Ledger],
    wires: float = WIRE_SPREAD,
    by: float | None = None,
    draw: Callable[[Sequence[Cause]], Floats] = lambda causes: np.empty((len(causes), 0)),
) -> Sensitivity:
    """One cause a family and rung, one for the wires, and one for what follows the last step. wires: relative spread of
    those two. by: one spread for all of them, above or below zero, instead of their own. draw: draws of causes
    [cause, draw], gone through together with each cause alone."""
    kits = {kit.number: kit for kit in lowered.known}
    wires, families = wires if by is None else by, sorted(_families(kits).items())
    moves = [move for rests, prices in families if (move := _move(kits, rests, prices, by)).spread]
    slopes = [track.slopes([move.kits for move in moves]) for track in graph.tracks]
    update = books[0].phases["optimizer"] * wires
    causes = [Cause(move.name, move.spread, bound=move.bound) for move in moves]
    causes += [Cause("pipeline messages", wires), Cause("optimizer and its traffic", wires)]
    number, one, z = len(causes), np.eye(len(causes)), draw(causes)
    sets = [
        np.hstack([np.zeros((number, 1)), each]) for each in (np.hstack([one, -one]), z)
    ]  # prices as they are first
    all_sets = np.hstack(sets)
    last = ends(graph, slopes, [each[: len(moves)] for each in sets], 1 + wires * all_sets[-2])
    later_s = (last - last[0]) / NS_PER_S + update * all_sets[-1]
    _, moved, _, longer_s = np.split(later_s, np.cumsum([1, 2 * number, 1]))
    causes = [
        replace(cause, step_s=up, cheaper_s=0.0 if cause.bound else down)
        for cause, up, down in zip(causes, *moved.reshape(2, -1).tolist(), strict=True)
    ]
    grown = _phases(graph, slopes[0][:, 0], lowered)
    phases = [*({name: ns[i] for name, ns in grown.items()} for i in range(len(moves))), {}, {"optimizer": update}]
    places = np.argsort([-max(abs(cause.step_s), abs(cause.cheaper_s)) for cause in causes], kind="stable")
    return Sensitivity(tuple(causes[i] for i in places), tuple(phases[i] for i in places), z[places], longer_s)


class Move(NamedTuple):
    """Prices of one family and rung, dearer by their spread: what they are called, every kit at such prices, and
    whether they are bounds (what goes over links does so at the rates that they reach)."""

    name: str
    spread: float
    kits: Moved
    bound: bool


def _families(kits: Moved) -> dict[tuple[str, str], list[Price]]:
    """(family, rung) -> the prices that rest on them, of every kernel of every kit."""
    families: dict[tuple[str, str], list[Price]] = {}
    for kit in kits.values():
        for rests, lanes in kit.fine.rests.items():
            own = families.setdefault(rests, [])
            for tasks, numbers in zip(kit.fine.tasks, lanes, strict=True):
                own += (price for number in numbers if (price := tasks[number].price))
    return families


def _move(kits: Moved, rests: tuple[str, str], prices: Sequence[Price], by: float | None = None) -> Move:
    """Every price of a family and rung raised by the spread of all of them, weighted by time; or by `by`."""
    family, rung = rests
    total = sum(p.ns for p in prices)
    spread = sum(p.ns * p.spread for p in prices) / total if total else 0.0
    spread = spread if by is None else by
    name = f"{NAMES.get(family, family)} ({rung})"
    moved = {key: dearer(kit, family, rung, spread) for key, kit in kits.items()} if spread else {}
    return Move(name, spread, moved, rung == "roofline" and family not in LINKS)


def dearer(kit: Kit, family: str, rung: str, spread: float) -> Kit:
    """The kit with the prices of one family raised by its spread; itself when it has none. What is executed stays."""
    key = (family, rung, spread)
    if key not in kit.dearer:
        fine = _dearer(kit.fine, family, rung, spread)
        kit.dearer[key] = kit if fine is kit.fine else replace(kit, fine=fine, timing=alone(fine), dearer={}, sums={})
    return kit.dearer[key]


def _dearer(fine: Template, family: str, rung: str, spread: float) -> Template:
    """The template with the prices of one family raised by its spread; itself when it has none."""
    mine = fine.rests.get((family, rung))
    if mine is None:
        return fine

    def raised(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        durations = [list(row) for row in rows]
        for row, gaps, numbers in zip(durations, fine.gap_ns, mine, strict=True):
            for i in numbers:
                row[i] = round(gaps[i] + (row[i] - gaps[i]) * (1 + spread))
        return tuple(map(tuple, durations))

    return replace(fine, alone=raised(fine.alone), beside=raised(fine.beside))


def _phases(graph: Graph, slopes: Floats, lowered: Lowered) -> dict[str, list[float]]:
    """Mean seconds over ranks that each phase gets longer, for each set of prices. slopes [row, set]: by row of the
    first track, of the ends of steps."""
    names = {kit.number: metrics.phase_name(kit.fine.kind) for kit in lowered.known}
    spent = {name: [0.0] * len(slopes) for name in names.values()}
    for kits, rows, lengths in zip(lowered.kits, graph.tracks[0].rows, graph.lengths, strict=True):
        for kit, row, length in zip(kits, rows, lengths, strict=True):
            spent[names[kit.number]][row] += length
    return {name: (np.array(ns) @ slopes / NS_PER_S / len(lowered.kits)).tolist() for name, ns in spent.items()}


SIGNED = (1 << 63) - 1
"""Bits of a seed that draws of prices heed."""


# --- intervals --------------------------------------------------------------------------------------------------------


def draws(causes: Sequence[Cause], seed: int) -> npt.NDArray[np.float64]:
    """Standard normal draws [cause, draw], of bounds their sizes; each cause has its own stream, so what-ifs share
    them."""
    low = seed & SIGNED  # numpy takes the two words of a key for one kind of number, which holds no more of both
    rows = [np.random.Generator(np.random.Philox(key=[low, _key(c.name)])).standard_normal(DRAWS) for c in causes]
    return np.array([np.abs(row) if c.bound else row for c, row in zip(causes, rows, strict=True)])


def _key(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


class Drawn(NamedTuple):
    """Draws of causes [cause, draw], in spreads, and seconds of the step in each [draw]."""

    z: Floats
    steps: Floats


def drawn(sensitivity: Sensitivity, step_s: float) -> Drawn:
    """Steps as prices are drawn; never less than half of the one that is predicted."""
    return Drawn(sensitivity.z, np.maximum(step_s + sensitivity.longer_s, step_s / 2))


def intervals(sensitivity: Sensitivity, summary: Mapping[str, Any], drawn: Drawn) -> dict[str, Any]:
    """90 % intervals of the headlines, and the tornado (seconds of the step at one spread less and more)."""
    (z, steps), step = drawn, float(summary["step_time_s"])
    out: dict[str, Any] = {"step_time_s": _ends(steps)}
    for name in ("tokens_per_day", "gpu_hours_per_trillion_tokens"):
        if summary.get(name):
            power = -1 if name == "tokens_per_day" else 1
            out[name] = _ends(summary[name] * (steps / step) ** power)
    for name in ("tflops_per_gpu", "mfu"):
        if summary.get(name):
            out[name] = {kind: _ends(value * step / steps) for kind, value in summary[name].items()}
    phases = {}
    for name, value in summary["phases_s"].items():
        if name != "bubble":
            phases[name] = np.maximum(value + np.array([p.get(name, 0.0) for p in sensitivity.phases_s]) @ z, 0.0)
    bubble = np.maximum(steps - sum(phases.values()), 0.0)
    out["phases_s"] = {name: _ends(values) for name, values in phases.items()} | {"bubble": _ends(bubble)}
    out["bubble_fraction"] = _ends(bubble / steps)
    tornado = [{"cause": c.name, "spread": c.spread, "step_s": c.step_s, "cheaper_s": c.cheaper_s}
               for c in sensitivity.causes if c.step_s or c.cheaper_s]  # fmt: skip
    return {"intervals_90": out, "tornado": tornado}


def _ends(values: npt.NDArray[np.float64]) -> list[float]:
    low, high = np.percentile(values, (LOW, HIGH))
    return [float(low), float(high)]
