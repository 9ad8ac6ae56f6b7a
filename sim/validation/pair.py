"""The overlapped pair of four MoE layers: its span, streams and parts beside the published H800 profile.

Single kernels of that profile are inputs; how they follow, wait for and slow each other is predicted. The interval
moves one family of prices at a time by its spread and runs the pair again.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

from hwmodels.price import Pricer
from hwmodels.units import MS_NS, PERCENT
from sim.analysis import metrics
from sim.engine.kit import Kit
from sim.layout.machine import Machine
from sim.models.layer import COMMUNICATION, COMPUTE, WEIGHT
from sim.step.template import STREAMS
from sim.validation.answer import Answer, moved
from sim.validation.reference import PAIR_LAYERS, Reference, pair

KERNELS = {
    "flash_fwd": ("flash_fwd",), "flash_bwd": ("flash_bwd",),
    "grouped": ("routed_gateup", "routed_down", "routed_down_dgrad", "routed_gateup_dgrad"),
    "dispatch": ("dispatch(F)",), "dispatch cached": ("combine(B)",), "combine": ("combine(F)", "dispatch(B)"),
}  # fmt: skip
"""Kernels of the profile and the labels they have here. A cached dispatch carries gradients back: combine(B)."""
STREAM_NAMES = {COMPUTE: "compute", WEIGHT: "weight"}


def answers(reference: Reference) -> dict[str, Answer]:
    """Every measure of the pair by name; times in ms, `hidden` in %."""
    machine = reference.machine
    base = measures(reference.pair)
    dearer = [measures(pair(other)) for other in _dearer(machine, reference.pair)]
    return {name: moved(value, [other[name] - value for other in dearer]) for name, value in base.items()}


def measures(kit: Kit) -> dict[str, float]:
    """Measures of the pair, without intervals."""
    whole = metrics.alone(kit)
    ns = {
        "span": kit.timing.total, "compute": _busy(kit, COMPUTE, WEIGHT), "communication": _busy(kit, COMMUNICATION),
        "either": _busy(kit, *STREAMS), "period forward": _period(kit, "flash_fwd"),
        "period backward": _period(kit, "flash_bwd"),
    } | _parts(kit) | _kernels(kit)  # fmt: skip
    alone = [sum(kit.fine.alone[lane]) - sum(kit.fine.gap_ns[lane]) for lane in STREAMS]
    return {name: value / MS_NS for name, value in ns.items()} | {
        "hidden": (1 - whole["exposed"] / whole["communication"]) / PERCENT,
        "ratio": (alone[COMPUTE] + alone[WEIGHT]) / alone[COMMUNICATION],
    }


def _busy(kit: Kit, *lanes: int) -> int:
    """Ns in which a kernel runs on one of the lanes; launch gaps are idle, as in a profile."""
    runs = sorted(
        (start + gap, end)
        for lane in lanes
        for (start, end), gap in zip(kit.timing.kernels[lane], kit.fine.gap_ns[lane], strict=True)
    )
    busy = until = 0
    for start, end in runs:
        busy += max(0, end - max(start, until))
        until = max(until, end)
    return busy


def _runs(kit: Kit, lane: int) -> Iterator[tuple[str, int]]:
    """Label and ns of every kernel of a lane as it ran in the pair, launch gap left out."""
    for task, (start, end), gap in zip(
        kit.fine.tasks[lane], kit.timing.kernels[lane], kit.fine.gap_ns[lane], strict=True
    ):
        yield task.label, end - start - gap


def _kernels(kit: Kit) -> dict[str, float]:
    """Mean ns of the kernels the profile singles out."""
    runs = [run for lane in STREAMS for run in _runs(kit, lane)]
    return {f"kernel {name}": fmean(ns for label, ns in runs if label in labels) for name, labels in KERNELS.items()}


def _period(kit: Kit, label: str) -> float:
    """Mean ns from one start of a kernel to the next."""
    tasks = kit.fine.tasks[COMPUTE]
    starts = [start for task, (start, _) in zip(tasks, kit.timing.kernels[COMPUTE], strict=True) if task.label == label]
    return fmean(b - a for a, b in pairwise(starts))


def _parts(kit: Kit) -> dict[str, float]:
    """Kernel ns of each part, mean over layers: of all streams, and of each compute stream that a part uses."""
    assert kit.composition is not None
    spent: dict[str, float] = {}
    for phase, segment in zip(kit.composition.phases, kit.fine.segments, strict=True):
        ns = _kernel_ns(kit, segment.lane, segment.first, segment.stop)
        for name in (f"part {phase.label}", f"part {phase.label} {STREAM_NAMES.get(segment.lane, '')}"):
            spent[name] = spent.get(name, 0.0) + ns
    return {name: ns / PAIR_LAYERS for name, ns in spent.items()}


def _kernel_ns(kit: Kit, lane: int, first: int, stop: int) -> int:
    """Nanoseconds of the kernels [first, stop) of a lane, gaps left out."""
    spans, gaps = kit.timing.kernels[lane][first:stop], kit.fine.gap_ns[lane][first:stop]
    return sum(end - start for start, end in spans) - sum(gaps)


def _dearer(machine: Machine, kit: Kit) -> Iterator[Machine]:
    """The machine with one family of prices (and rung) raised by its spread, for each family of the pair."""
    prices = {task.price for lane in kit.fine.tasks for task in lane if task.price is not None}
    for family in sorted({(p.family, p.rung) for p in prices}):
        yield replace(machine, pricer=_raised(machine.pricer, family))


def _raised(pricer: Pricer, family: tuple[str, str]) -> Pricer:
    """A pricer that knows what `pricer` knows, but dearer where the family matches."""
    raised = replace(pricer)
    for key, p in pricer.known.items():
        up = 1 + p.spread if (p.family, p.rung) == family else 1.0
        raised.known[key] = p._replace(ns=round(p.ns * up), beside_ns=round(p.beside_ns * up))
    return raised
