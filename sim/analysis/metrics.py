"""Figures from the timeline: phases, bubbles and their causes, overlap, rates, shares of prices, the waterfall.

Phases and bubbles come from the steps; what happens inside a step (exposed communication, waiting for peers) from its
segments; what only prices know (products at peak, launch gaps, shares of rungs) from the run of its kit. All are means
over the ranks of a position. A gap in compute belongs to the exchange that ends it: first to its bytes (exposed
communication), then to its barrier (waiting for slower peers of the group).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from hwmodels.op import Attention, Gemm, GroupedGemm
from hwmodels.price import Pricer
from hwmodels.units import NS_PER_S, SECONDS_PER_DAY, SECONDS_PER_HOUR, TERA
from sim.analysis.spans import PHASE_OF
from sim.engine.actor import OWN
from sim.engine.kit import Kit
from sim.engine.lowering import Lowered
from sim.engine.timeline import Steps, Timeline
from sim.layout.machine import Machine
from sim.layout.mesh import Times
from sim.layout.plan import Plan
from sim.models.layer import COMMUNICATION, COMPUTE, HOST
from sim.models.stacks.sharing import TENSOR
from sim.result import Bar
from sim.step.inside import Inside
from sim.step.template import STREAMS, Template

PRODUCTS = ("gemm", "wgrad", "gemm_bf16", "attention")
"""Families of prices that tensor cores set; the others wait for memory."""
NETWORK = "network"
"""That of messages and collectives, which stand on the stream of computing too (`sim.step.overlap`)."""
MFU_PRECISION = "bf16"
"""Whose dense peak an MFU is over, whatever a run computes in: so DeepSeek publishes that of V3's FP8 run, over 989
TFLOP/s (Insights into DeepSeek-V3, arXiv:2505.09343, table 4)."""
COUNTED = 64
"""Lengths of documents at which FLOPs are counted."""
NOTHING = dict.fromkeys(("compute", "communication", "exposed", "peers"), 0)
"""ns inside no step."""
Lengths = Sequence[tuple[int, int]]
"""Tokens of documents, and how many of them a step has."""
CELLS = 1600
"""Steps times columns that are worked on at a time, so that their arrays stay in a cache."""


@dataclass(frozen=True)
class Profile:
    """What the prices of one kit come to, in ns. products, memory: kernels alone. ideal: products at peak of all SMs.
    gaps: launch gaps. shares: rung -> ns of kernels and exchanges."""

    ideal: float
    products: int
    memory: int
    gaps: int
    shares: dict[str, int]


def profile(kit: Kit, pricer: Pricer | None) -> Profile:
    """The profile of a kit as its fine run has it."""
    ideal, products, memory, gaps = 0.0, 0, 0, 0
    shares: Counter[str] = Counter()
    for lane in (lane for lane in STREAMS if lane != HOST):
        rows = zip(kit.fine.tasks[lane], kit.timing.kernels[lane], kit.fine.gap_ns[lane], strict=True)
        for task, (start, end), gap in rows:
            if task.price is None:
                continue
            shares[task.price.rung] += end - start - gap
            if lane == COMMUNICATION or task.price.family == NETWORK:
                continue
            gaps += gap
            if task.price.family in PRODUCTS:
                products += task.price.ns
            else:
                memory += task.price.ns
    if kit.composition is not None and pricer is not None:
        ideal = sum(_ideal_ns(k.op, pricer) for p in kit.composition.phases for k in p.kernels)
    return Profile(ideal, products, memory, gaps, dict(shares))


def _ideal_ns(op: Any, pricer: Pricer) -> float:
    if not isinstance(op, Gemm | GroupedGemm | Attention):
        return 0.0
    precision = "bf16" if isinstance(op, Attention) else op.precision
    return float(op.flop()) / pricer.device.peak_flops[precision] * NS_PER_S


# --- of the step ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Idle:
    """Seconds a rank idles: before its first step, between steps for activations or gradients to come or for its own to
    be through, after its last."""

    fill: float
    activations: float
    gradients: float
    sends: float
    drain: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.fill + self.activations + self.gradients + self.sends + self.drain


@dataclass(frozen=True)
class Ledger:
    """One pipeline position's step in seconds, mean over its ranks: phases by name, idle by cause, the inside of its
    steps, and ns of kernels by rung."""

    phases: dict[str, float]
    idle: Idle
    inside: dict[str, float]
    shares: dict[str, float]


def ledgers(lowered: Lowered, timeline: Timeline, pricer: Pricer | None) -> list[Ledger]:
    """One a pipeline position."""
    profiles = {kit.number: _kept(kit, "profile", lambda kit: profile(kit, pricer)) for kit in lowered.known}
    rows = zip(lowered.kits, timeline.positions, timeline.update, strict=True)
    return [_ledger(kits, steps, update, timeline, profiles) for kits, steps, update in rows]


def _kept(kit: Kit, name: str, of: Callable[[Kit], Any]) -> Any:
    """What `of` a kit comes to, worked out once in its life."""
    if name not in kit.sums:
        kit.sums[name] = of(kit)
    return kit.sums[name]


def phase_name(kind: str) -> str:
    """The phase that a kind of step counts to; input-gradient steps are backward."""
    name = PHASE_OF[kind]
    return "backward" if name.startswith("backward") else name


def _ledger(
    kits: Sequence[Kit], steps: Steps, update: tuple[int, Times], timeline: Timeline, profiles: dict[int, Profile]
) -> Ledger:
    weight = timeline.columns.weight
    all_ns = int(weight.sum()) * NS_PER_S
    spent = (steps.ends - steps.starts) @ weight
    phases = Counter(dict.fromkeys(("forward", "backward", "weight", "overlapped"), 0))
    used = Counter(kits)
    numbers = np.array([kit.number for kit in kits])
    for kit in used:
        phases[phase_name(kit.fine.kind)] += int(spent[numbers == kit.number].sum())
    norm, updated = update
    phases["optimizer"] = int((updated - norm) @ weight)
    fill, drain = steps.starts[0], timeline.end - (updated - norm) - steps.ends[-1]
    idle = Idle(*(int(ns) / all_ns for ns in (fill @ weight, *_waits(steps, weight), drain @ weight)))
    seconds = {name: ns / all_ns for name, ns in phases.items()} | {"bubble": idle.total}
    inside = {
        name: sum(getattr(profiles[kit.number], name) * count for kit, count in used.items()) / NS_PER_S
        for name in ("ideal", "products", "memory", "gaps")
    }
    inside |= {name: ns / all_ns for name, ns in _insides(kits, steps.insides, weight).items()}
    shares: Counter[str] = Counter()
    for kit, count in used.items():
        for rung, ns in profiles[kit.number].shares.items():
            shares[rung] += ns * count
    inside["total"] = int(spent.sum()) / all_ns
    return Ledger(seconds, idle, inside, {rung: ns / NS_PER_S for rung, ns in shares.items()})


def _waits(steps: Steps, weight: Times) -> tuple[int, ...]:
    """ns between steps that went to waiting for a forward, for a backward and for own outputs, all ranks together."""
    gaps, blame = steps.starts[1:] - steps.ends[:-1], steps.blame[1:]
    return tuple(int((gaps * which).sum(axis=0) @ weight) for which in (blame == 1, blame == 2, blame > OWN))


def alone(kit: Kit) -> Counter[str]:
    """ns of one step by itself: compute, communication, and what of it is exposed."""
    once = np.ones((1, 1), dtype=np.int64)
    return Counter(NOTHING | (_inside(kit.parts, [kit.inside], once) if len(kit.inside.starts) else {}))


def _insides(kits: Sequence[Kit], insides: Sequence[Inside], weight: Times) -> Counter[str]:
    """ns of all steps, all ranks together: compute, exchanges, and gaps in compute by what they wait for."""
    total = Counter(NOTHING)
    alike = Counter(kit for kit, inside in zip(kits, insides, strict=True) if inside is kit.inside)
    for kit, count in alike.items():
        times = count * int(weight.sum())
        total.update({name: ns * times for name, ns in _kept(kit, "alone", alone).items()})
    rest = [(kit, inside) for kit, inside in zip(kits, insides, strict=True) if inside is not kit.inside]
    for template, run, counts in _runs(rest, len(weight)):
        share = weight if run[0].starts.shape[1] == len(weight) else weight.sum(keepdims=True)
        total.update(_inside(template, run, np.array(counts)[:, None] * share))
    return total


def _runs(ran: Sequence[tuple[Kit, Inside]], columns: int) -> Iterator[tuple[Template, list[Inside], list[int]]]:
    """Insides of one template and as many columns, each with how many steps share it; as many as CELLS allow."""
    alike: dict[tuple[int, int], dict[int, list[Any]]] = {}
    templates = {kit.number: kit.parts for kit, _ in ran}
    for kit, inside in ran:
        if len(inside.starts):
            rows = alike.setdefault((kit.number, inside.starts.shape[1]), {})
            rows.setdefault(id(inside), [inside, 0])[1] += 1
    most = max(1, CELLS // columns)
    for (number, _), rows in alike.items():
        shared = list(rows.values())
        for i in range(0, len(shared), most):
            run = shared[i : i + most]
            yield templates[number], [inside for inside, _ in run], [count for _, count in run]


def _inside(template: Template, run: Sequence[Inside], weight: Times) -> dict[str, int]:
    """ns of some steps, all ranks together. weight: ranks that each column of each step stands for [step, column]."""
    starts, ends = np.stack([i.starts for i in run]), np.stack([i.ends for i in run])
    end = ends.max(axis=1, keepdims=True)
    begun, through = (times[:, template.order[COMPUTE]] for times in (starts, ends))
    gap_begins, gap_ends = np.concatenate([np.zeros_like(end), through], axis=1), np.concatenate([begun, end], axis=1)
    some = np.any(gap_ends > gap_begins, axis=(0, 2)).tolist()
    pairs = [pair for pair in template.idle if some[pair[0]]]
    gap, other = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    ready = starts.copy()
    ready[:, list(template.meetings)] = np.stack([i.ready for i in run])
    begin, end, start = gap_begins[:, gap], gap_ends[:, gap], starts[:, other]
    talk = template.order[COMMUNICATION]
    spans = {
        "compute": (begun, through), "communication": (starts[:, talk], ends[:, talk]),
        "exposed": (np.maximum(start, begin), np.minimum(ends[:, other], end)),
        "peers": (np.maximum(ready[:, other], begin), np.minimum(start, end)),
    }  # fmt: skip
    total = {name: int((np.maximum(b - a, 0).sum(axis=1) * weight).sum()) for name, (a, b) in spans.items()}
    line = [i for i in template.order[COMPUTE] if template.segments[i].meets == TENSOR]
    waited = int(((ends[:, line] - starts[:, line]).sum(axis=1) * weight).sum())
    more = {"compute": -waited, "communication": waited, "exposed": waited, "peers": 0}
    return {name: ns + more[name] for name, ns in total.items()}


def summary(
    plan: Plan, machine: Machine | None, timeline: Timeline, books: Sequence[Ledger], lengths: Lengths
) -> dict[str, Any]:
    """The content of result.json that time decides, SI units; see sim.result.figures. lengths: of documents."""
    step = timeline.end / NS_PER_S
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
        "events": timeline.events,
    }
    return out | (_rates(machine, step, lengths) if machine else _no_rates())


def _idle(books: Sequence[Ledger]) -> dict[str, float]:
    """Mean seconds by cause; own sends only where ranks wait for them."""
    names = [name for name in vars(books[0].idle) if name != "sends" or any(b.idle.sends for b in books)]
    return {name: _mean([getattr(b.idle, name) for b in books]) for name in names}


def _add(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {key: a.get(key, 0.0) + b.get(key, 0.0) for key in a | b}


def _rates(machine: Machine, step: float, lengths: Lengths) -> dict[str, Any]:
    cluster, tokens = machine.cluster, sum(length * pieces for length, pieces in lengths)
    gpus, peak = cluster.gpus, cluster.node.device.peak_flops[MFU_PRECISION]
    rates = {
        name: _flop(machine, lengths, causal) / step / gpus
        for name, causal in (("causal", True), ("non_causal", False))
    }
    return {
        "tokens_per_step": tokens,
        "tokens_per_day": tokens / step * SECONDS_PER_DAY,
        "gpu_hours_per_trillion_tokens": gpus * step / SECONDS_PER_HOUR / tokens * TERA,
        "tflops_per_gpu": {name: rate / TERA for name, rate in rates.items()},
        "mfu": {name: rate / peak for name, rate in rates.items()},
        "mfu_peak": {"precision": MFU_PRECISION, "tflops": peak / TERA},
    }


def _flop(machine: Machine, lengths: Lengths, causal: bool) -> float:
    """FLOPs of a step as publishers count them, each token in a document of its own length. Of more lengths than
    COUNTED those between are interpolated, which is exact where attention is over whole documents."""
    shape, flop = machine.whole, machine.family.flop
    if len(lengths) <= COUNTED:
        return sum(length * pieces * flop(shape, length, causal) for length, pieces in lengths)
    ours, pieces = np.array(sorted(lengths), dtype=float).T
    some = ours[np.linspace(0, len(ours) - 1, COUNTED).astype(int)]
    each = np.interp(ours, some, [flop(shape, int(length), causal) for length in some])
    return float(ours * pieces @ each)


def _no_rates() -> dict[str, Any]:
    names = ("tokens_per_step", "tokens_per_day", "gpu_hours_per_trillion_tokens", "tflops_per_gpu", "mfu", "mfu_peak")
    return dict.fromkeys(names)


def waterfall(books: Sequence[Ledger]) -> tuple[Bar, ...]:
    """From products at peak to the step, mean over pipeline ranks; bars add up to the step time."""
    mean = {name: _mean([b.inside[name] for b in books]) for name in books[0].inside}
    idle = _idle(books)
    slowed = mean["compute"] - mean["products"] - mean["memory"] - mean["gaps"]
    inside = mean["total"] - mean["compute"] - mean["peers"]
    bars = [
        Bar("ideal compute", mean["ideal"], "matrix products and attention at the peak of all SMs"),
        Bar("product efficiency", mean["products"] - mean["ideal"], "SMs given to communication, tiles, accumulation"),
        Bar("memory-bound kernels", mean["memory"], "casts, norms, permutes, SwiGLU, copies, routing"),
        Bar("launch gaps", mean["gaps"], "time between two kernels of a stream"),
        Bar("contention", slowed, "compute slowed by communication beside it, and by what makes ranks uneven"),
        Bar("exposed communication", mean["exposed"], "an exchange runs and compute waits for it"),
        Bar("waiting for peers", mean["peers"], "slower ranks of the expert group come last to an exchange"),
        Bar("waits inside steps", inside - mean["exposed"], "neither compute nor an exchange runs"),
        Bar("pipeline fill", idle["fill"], "before a rank's first micro-batch arrives"),
        Bar("waiting for activations", idle["activations"], "between steps, for the stage before"),
        Bar("waiting for gradients", idle["gradients"], "between steps, for the stage after"),
        Bar("waiting for own sends", idle.get("sends", 0.0), "between steps, until neighbours have taken what it made"),
        Bar("pipeline drain", idle["drain"], "after a rank's last step, until all gradients are reduced"),
        Bar("optimizer", _mean([b.phases["optimizer"] for b in books]), "gradient norm, update, all-gather"),
    ]
    if not mean["ideal"]:  # chunk times: nothing is known inside a step
        bars[:8] = [Bar("compute", mean["total"], "steps, as long as the scenario says")]
    return tuple(bar for bar in bars if abs(bar.seconds) > 1 / NS_PER_S or bar.name in ("ideal compute", "compute"))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
