"""How sure a prediction is: the spread of prices carried to the step, as a 90 % interval and a tornado.

Prices that rest on the same thing (a family of kernels on one rung of the ladder, the links, the optimizer) are wrong
together; different families are wrong independently. Each family's spread moves the templates it occurs in, and those
move the step by as often as they lie on the critical path: one op-level run of each template a family, no new
simulation. The draws are the same for every headline and every scenario (paired), keyed by the seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.price import Price
from hwmodels.units import NS_PER_S
from sim import critical, engine, metrics
from sim.actor import Outcome
from sim.lower import Kit, Lowered, outputs
from sim.template import STREAMS, Template

DRAWS = 4096
"""Samples of the interval; its ends are good to about 2 % of its width."""
LOW, HIGH = 5, 95
"""Percentiles of a 90 % interval."""
NAMES = {
    "gemm": "FP8 products", "wgrad": "weight-gradient products", "gemm_bf16": "BF16 products", "attention": "attention",
    "memory": "memory-bound kernels", "norm": "norms", "small": "small kernels", "routing": "routing",
    "exchange": "expert exchanges beside compute",
}  # fmt: skip
WIRE_SPREAD = 0.10
"""Relative spread of pipeline messages and gradient traffic: closed forms over published effective bandwidths."""


@dataclass(frozen=True)
class Cause:
    """Something prices rest on. spread: relative. step_s: seconds the step moves when it is one spread dearer."""

    name: str
    spread: float
    step_s: float


@dataclass(frozen=True)
class Sensitivity:
    """causes, largest first. phases_s: seconds one spread of each adds to the phases, mean over ranks."""

    causes: tuple[Cause, ...]
    phases_s: tuple[dict[str, float], ...]


def sensitivity(lowered: Lowered, outcome: Outcome, books: Sequence[metrics.Ledger]) -> Sensitivity:
    """One cause a family and rung, and one for the wires."""
    chain = critical.chain(lowered, outcome)
    kits = {id(kit): kit for row in lowered.kits for kit in row}
    uses: dict[tuple[int, int], int] = {}
    for link in chain:
        key = (id(lowered.kits[link.position][link.step]), link.until)
        uses[key] = uses.get(key, 0) + 1
    found = []
    for family, rung in sorted(_families(kits)):
        spread, moved = _moved(kits, family, rung)
        if not spread:
            continue
        step = sum(count * (moved[kit][until] - kits[kit].outputs[until]) for (kit, until), count in uses.items())
        phases = _phases(lowered, kits, moved)
        name = f"{NAMES.get(family, family)} ({rung})"
        found.append((Cause(name, spread, step / NS_PER_S), phases))
    wire = sum(link.message_ns for link in chain) / NS_PER_S
    found.append((Cause("pipeline messages", WIRE_SPREAD, wire * WIRE_SPREAD), {}))
    update = books[0].phases["optimizer"]
    dearer = update * WIRE_SPREAD
    found.append((Cause("optimizer and its traffic", WIRE_SPREAD, dearer), {"optimizer": dearer}))
    found.sort(key=lambda item: -abs(item[0].step_s))
    return Sensitivity(tuple(c for c, _ in found), tuple(p for _, p in found))


def _families(kits: Mapping[int, Kit]) -> set[tuple[str, str]]:
    prices = (t.price for kit in kits.values() for lane in STREAMS for t in kit.fine.tasks[lane])
    return {(p.family, p.rung) for p in prices if p is not None}


def _moved(kits: Mapping[int, Kit], family: str, rung: str) -> tuple[float, dict[int, tuple[int, int, int]]]:
    """The family's spread (weighted by time), and outputs of every kit when its prices are that much dearer."""
    prices = [
        p
        for kit in kits.values()
        for lane in STREAMS
        for p in (t.price for t in kit.fine.tasks[lane])
        if p is not None and (p.family, p.rung) == (family, rung)
    ]
    total = sum(p.ns for p in prices)
    spread = sum(p.ns * p.spread for p in prices) / total if total else 0.0
    moved = {}
    for key, kit in kits.items():
        dearer = _dearer(kit.fine, family, rung, spread)
        moved[key] = outputs(dearer, engine.alone(dearer)) if dearer is not kit.fine else kit.outputs
    return spread, moved


def _dearer(fine: Template, family: str, rung: str, spread: float) -> Template:
    """The template with the prices of one family raised by its spread; itself when it has none."""

    def raised(times: Sequence[int], gaps: Sequence[int], prices: Sequence[Price | None]) -> tuple[int, ...]:
        return tuple(
            round(gap + (ns - gap) * (1 + spread)) if p is not None and (p.family, p.rung) == (family, rung) else ns
            for ns, gap, p in zip(times, gaps, prices, strict=True)
        )

    prices = [[t.price for t in fine.tasks[lane]] for lane in STREAMS]
    if not any(p is not None and (p.family, p.rung) == (family, rung) for row in prices for p in row):
        return fine
    alone = tuple(raised(fine.alone[i], fine.gap_ns[i], prices[i]) for i in STREAMS)
    beside = tuple(raised(fine.beside[i], fine.gap_ns[i], prices[i]) for i in STREAMS)
    return replace(fine, alone=alone, beside=beside)


def _phases(
    lowered: Lowered, kits: Mapping[int, Kit], moved: Mapping[int, tuple[int, int, int]]
) -> dict[str, float]:
    """Mean seconds over ranks that each phase gets longer."""
    out: dict[str, float] = {}
    for row in lowered.kits:
        for kit in row:
            name = metrics.phase_name(kit.fine.kind)
            out[name] = out.get(name, 0.0) + moved[id(kit)][0] - kit.outputs[0]
    return {name: ns / NS_PER_S / len(lowered.kits) for name, ns in out.items()}


# --- intervals --------------------------------------------------------------------------------------------------------


def draws(causes: Sequence[Cause], seed: int) -> npt.NDArray[np.float64]:
    """Standard normal draws [cause, draw]; each cause has its own stream, so what-ifs share them."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, _key(c.name)])).standard_normal(DRAWS) for c in causes]
    return np.array(rows)


def _key(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def intervals(found: Sensitivity, summary: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """90 % intervals of the headlines, and the tornado (seconds of the step at one spread less and more)."""
    z = draws(found.causes, seed)
    step = float(summary["step_time_s"])
    steps = np.maximum(step + np.array([c.step_s for c in found.causes]) @ z, step / 2)
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
            phases[name] = np.maximum(value + np.array([p.get(name, 0.0) for p in found.phases_s]) @ z, 0.0)
    bubble = np.maximum(steps - sum(phases.values()), 0.0)
    out["phases_s"] = {name: _ends(values) for name, values in phases.items()} | {"bubble": _ends(bubble)}
    out["bubble_fraction"] = _ends(bubble / steps)
    tornado = [{"cause": c.name, "spread": c.spread, "step_s": c.step_s} for c in found.causes if c.step_s]
    return {"intervals_90": out, "tornado": tornado}


def _ends(values: npt.NDArray[np.float64]) -> list[float]:
    low, high = np.percentile(values, (LOW, HIGH))
    return [float(low), float(high)]
