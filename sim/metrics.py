"""Figures from what happened: phases, bubbles and their causes, overlap, rates, shares of prices, the waterfall.

Phases and bubbles come from the recorded steps; what happens inside a step (exposed communication, inefficiency,
price shares) from the op-level run of its template, counted as often as it ran. At op and
layer detail the spans say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from hwmodels.op import Attention, Gemm, GroupedGemm
from hwmodels.price import Pricer
from hwmodels.units import NS_PER_S, SECONDS_PER_DAY, SECONDS_PER_HOUR, TERA
from sim.actor import Outcome
from sim.lower import Kit, Lowered
from sim.models.layer import COMMUNICATION, COMPUTE, WEIGHT
from sim.plan import Machine, Plan
from sim.result import Bar
from sim.spans import PHASE_OF
from sim.template import STREAMS

Interval = tuple[int, int]


@dataclass(frozen=True)
class Profile:
    """Inside one run of a template, in ns. products, memory: kernels alone. ideal: products at peak of all SMs.
    gaps: launch gaps. compute: time any compute lane works. communication: time an exchange or its set-up works.
    exposed: communication with no compute beside it. shares: rung -> ns of kernels and exchanges."""

    total: int
    ideal: float
    products: int
    memory: int
    gaps: int
    compute: int
    communication: int
    exposed: int
    shares: dict[str, int]


def profile(kit: Kit, pricer: Pricer | None) -> Profile:
    """What one kit does with its time."""
    busy = _union([i for lane in (COMPUTE, WEIGHT) for i in _segments(kit, lane)])
    talk = _union(_segments(kit, COMMUNICATION))
    communication = _length(talk)
    ideal, products, memory, gaps = 0.0, 0, 0, 0
    shares: dict[str, int] = {}
    for lane in STREAMS:
        for task, (start, end), gap in zip(
            kit.fine.tasks[lane], kit.timing.kernels[lane], kit.fine.gap_ns[lane], strict=True
        ):
            if task.price is None:
                continue
            shares[task.price.rung] = shares.get(task.price.rung, 0) + end - start - gap
            if lane == COMMUNICATION:
                continue
            gaps += gap
            if task.price.family in ("gemm", "wgrad", "gemm_bf16", "attention"):
                products += task.price.ns
            else:
                memory += task.price.ns
    if kit.composition is not None and pricer is not None:
        ideal = sum(_ideal_ns(k.op, pricer) for p in kit.composition.phases for k in p.kernels)
    return Profile(
        kit.timing.total, ideal, products, memory, gaps, _length(busy), communication,
        communication - _overlap(busy, talk), shares,
    )  # fmt: skip


def _ideal_ns(op: Any, pricer: Pricer) -> float:
    if not isinstance(op, Gemm | GroupedGemm | Attention):
        return 0.0
    precision = "bf16" if isinstance(op, Attention) else op.precision
    return float(op.flop()) / pricer.device.peak_flops[precision] * NS_PER_S


def _segments(kit: Kit, lane: int) -> list[Interval]:
    return [kit.timing.segments[number] for number in kit.fine.order[lane]]


def _union(intervals: list[Interval]) -> list[Interval]:
    out: list[Interval] = []
    for start, end in sorted(intervals):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def _length(intervals: list[Interval]) -> int:
    return sum(end - start for start, end in intervals)


def _overlap(a: list[Interval], b: list[Interval]) -> int:
    return _length(a) + _length(b) - _length(_union([*a, *b]))


# --- of the step ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Idle:
    """Seconds a rank idles: before its first step, between steps for activations or gradients, after its last."""

    fill: float
    activations: float
    gradients: float
    drain: float

    @property
    def total(self) -> float:
        return self.fill + self.activations + self.gradients + self.drain


@dataclass(frozen=True)
class Ledger:
    """One pipeline rank's step in seconds: phases by name, idle by cause, and the inside of its steps."""

    phases: dict[str, float]
    idle: Idle
    inside: dict[str, float]
    shares: dict[str, float]


def ledgers(plan: Plan, lowered: Lowered, outcome: Outcome, pricer: Pricer | None) -> list[Ledger]:
    """One a pipeline position."""
    profiles: dict[int, Profile] = {}
    for row in lowered.kits:
        for kit in row:
            if id(kit) not in profiles:
                profiles[id(kit)] = profile(kit, pricer)
    return [_ledger(plan, lowered, outcome, p, profiles) for p in range(plan.program.ranks)]


def phase_name(kind: str) -> str:
    """The phase that a kind of step counts to; input-gradient steps are backward."""
    name = PHASE_OF[kind]
    return "backward" if name.startswith("backward") else name


def _ledger(plan: Plan, lowered: Lowered, outcome: Outcome, position: int, profiles: dict[int, Profile]) -> Ledger:
    record = outcome.records[lowered.actor_of[position]]
    start, end = np.array(record.starts), np.array(record.ends)
    kinds = [phase_name(s.kind) for s in plan.program.steps[position]]
    phases = dict.fromkeys(("forward", "backward", "weight", "overlapped"), 0.0)
    for kind, length in zip(kinds, (end - start).tolist(), strict=True):
        phases[kind] += length / NS_PER_S
    update = record.update[1] - record.update[0]
    phases["optimizer"] = update / NS_PER_S
    wait = (start[1:] - end[:-1]).tolist()
    by_cause = [0, 0, 0]
    for cause, ns in zip(record.blame[1:], wait, strict=True):
        by_cause[cause] += ns
    drain = outcome.end - update - int(end[-1])
    idle = Idle(int(start[0]) / NS_PER_S, by_cause[1] / NS_PER_S, by_cause[2] / NS_PER_S, drain / NS_PER_S)
    phases["bubble"] = idle.total
    used = [profiles[id(kit)] for kit in lowered.kits[position]]
    names = ("ideal", "products", "memory", "gaps", "compute", "communication", "exposed", "total")
    inside = {name: sum(getattr(p, name) for p in used) / NS_PER_S for name in names}
    shares: dict[str, float] = {}
    for p in used:
        for rung, ns in p.shares.items():
            shares[rung] = shares.get(rung, 0.0) + ns / NS_PER_S
    return Ledger(phases, idle, inside, shares)


def summary(plan: Plan, machine: Machine | None, outcome: Outcome, books: Sequence[Ledger]) -> dict[str, Any]:
    """The content of result.json that time decides (design section 6), SI units."""
    step = outcome.end / NS_PER_S
    phases = {name: _mean([b.phases[name] for b in books]) for name in books[0].phases}
    talk = _mean([b.inside["communication"] for b in books])
    exposed = _mean([b.inside["exposed"] for b in books])
    total: dict[str, float] = reduce(_add, (b.shares for b in books), {})
    known = sum(total.values())
    out: dict[str, Any] = {
        "step_time_s": step,
        "phases_s": phases,
        "phases_per_rank": {name: [b.phases[name] for b in books] for name in books[0].phases},
        "bubble_fraction": phases["bubble"] / step if step else 0.0,
        "bubble_s": _idle(books),
        "exposed_communication_s": exposed,
        "overlap_fraction": 1 - exposed / talk if talk else None,
        "price_shares": {rung: seconds / known for rung, seconds in sorted(total.items())},
        "events": outcome.events,
    }
    return out | (_rates(plan, machine, step) if machine else _no_rates())


def _idle(books: Sequence[Ledger]) -> dict[str, float]:
    names = ("fill", "activations", "gradients", "drain")
    return {name: _mean([getattr(b.idle, name) for b in books]) for name in names}


def _add(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {key: a.get(key, 0.0) + b.get(key, 0.0) for key in a | b}


def _rates(plan: Plan, machine: Machine, step: float) -> dict[str, Any]:
    batch, cluster, shape = plan.scenario.batch, machine.cluster, machine.site.shape
    tokens = plan.micro_batches * batch.micro_batch * plan.data * batch.sequence_length
    gpus, peak = cluster.gpus, cluster.node.device.peak_flops["bf16"]
    rates = {
        name: tokens * machine.family.flop(shape, batch.sequence_length, causal) / step / gpus
        for name, causal in (("causal", True), ("non_causal", False))
    }
    return {
        "tokens_per_step": tokens,
        "tokens_per_day": tokens / step * SECONDS_PER_DAY,
        "gpu_hours_per_trillion_tokens": gpus * step / SECONDS_PER_HOUR / tokens * TERA,
        "tflops_per_gpu": {name: rate / TERA for name, rate in rates.items()},
        "mfu": {name: rate / peak for name, rate in rates.items()},
    }


def _no_rates() -> dict[str, Any]:
    names = ("tokens_per_step", "tokens_per_day", "gpu_hours_per_trillion_tokens", "tflops_per_gpu", "mfu")
    return dict.fromkeys(names)


def waterfall(books: Sequence[Ledger]) -> tuple[Bar, ...]:
    """From products at peak to the step, mean over pipeline ranks; bars add up to the step time."""
    mean = {name: _mean([b.inside[name] for b in books]) for name in books[0].inside}
    idle = _idle(books)
    slowed = mean["compute"] - mean["products"] - mean["memory"] - mean["gaps"]
    inside = mean["total"] - mean["compute"] - mean.get("peers", 0.0)
    bars = [
        Bar("ideal compute", mean["ideal"], "matrix products and attention at the peak of all SMs"),
        Bar("product efficiency", mean["products"] - mean["ideal"], "SMs given to communication, tiles, accumulation"),
        Bar("memory-bound kernels", mean["memory"], "casts, norms, permutes, SwiGLU, copies, routing"),
        Bar("launch gaps", mean["gaps"], "time between two kernels of a stream"),
        Bar("contention", slowed, "compute slowed by communication beside it, and by what makes ranks uneven"),
        Bar("exposed communication", mean["exposed"], "an exchange runs and compute waits for it"),
        Bar("waiting for peers", mean.get("peers", 0.0), "slower ranks of the expert group come last to an exchange"),
        Bar("waits inside steps", inside - mean["exposed"], "neither compute nor an exchange runs"),
        Bar("pipeline fill", idle["fill"], "before a rank's first micro-batch arrives"),
        Bar("waiting for activations", idle["activations"], "between steps, for the stage before"),
        Bar("waiting for gradients", idle["gradients"], "between steps, for the stage after"),
        Bar("pipeline drain", idle["drain"], "after a rank's last step, until all gradients are reduced"),
        Bar("optimizer", _mean([b.phases["optimizer"] for b in books]), "gradient norm, AdamW, all-gather"),
    ]
    if not mean["ideal"]:  # chunk times: nothing is known inside a step
        bars[:8] = [Bar("compute", mean["total"], "steps, as long as the scenario says")]
    return tuple(bar for bar in bars if abs(bar.seconds) > 1 / NS_PER_S or bar.name in ("ideal compute", "compute"))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
