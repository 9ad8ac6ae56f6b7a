"""`python -m numerics calibrate --gpu`: calibration tables for the card at hand, measured within a budget of time.

Correctness first: without the device leg of `check` nothing is timed, and an operation of the scenario is held against
its reference at its own shape before it is timed; one that differs is refused, and so are those like it around. The
order is the scenario's own shapes, then those around them (half and twice the rows; FP8 products also on the SMs
that communication leaves).
Every time is of the kernel alone on the whole card, with a cold L2, without what events and a launch add to it. What
one GPU cannot tell (exchanges, contention) is left empty, and what no kernel of ours does is listed; prices fall back
on their ladder there.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwmodels import tables as shipped
from hwmodels.price import waves
from hwmodels.units import GIGA, MICRO
from numerics.card.measure import Timing
from numerics.card.needs import Timed, confinable, kind_of, resized
from numerics.tables import cards, provenance
from numerics.tables.calibrate import Row, Table, assembled, rounded, row, wave_fits

BUDGET_S = 450.0
"""Of the eight minutes that a calibration may take, less half a minute to start and to write."""
FIRST_S, NEXT_S = 4.0, 0.5
"""Seconds planned for the first operation of a kind (its kernels compile) and for each further one, before any was
measured here. A judgement: what was seen in the same run replaces it."""
VERIFY_S = 0.2
"""Seconds planned for holding an operation's output against the reference, a judgement too: a few passes over its
operands in FP64, and sampled rows of products."""
PAIR_S = 120.0
"""Of the budget, what measuring beside communication is left on a machine with two GPUs."""
SETTLE_US = 700.0
"""Of each repetition beside the kernel: the sleep that lets the host run ahead, and writing over the L2."""
REPETITIONS, QUICK_REPETITIONS = 30, 10
AROUND = (0.5, 2.0)
"""Rows around a scenario's own."""
CONFINED = "confined"
"""Key of the fit that says how well times carry over to fewer SMs."""
ENTRIES = (
    "numerics.card.campaign:tables", "numerics.card.campaign:plan", "numerics.tables.calibrate:write",
    "numerics.card.measure:time_call", "numerics.card.measure:events_us",
    "numerics.card.rig:work_of", "numerics.card.needs:operations", "numerics.kernels.gemm:gemm",
    "numerics.kernels.wgrad:wgrad_gemm", "numerics.kernels.grouped:grouped_gemm",
    "numerics.kernels.attention:attention", "numerics.kernels.attention:attention_backward",
    "numerics.kernels.casts:quantize_rows", "numerics.kernels.casts:quantize_columns",
    "numerics.kernels.casts:requantize_columns", "numerics.kernels.casts:dequantize_rows",
    "numerics.kernels.casts:transpose_codes", "numerics.kernels.e5m6:store_e5m6", "numerics.kernels.e5m6:load_e5m6",
    "numerics.kernels.swiglu:swiglu_quantize", "numerics.kernels.swiglu:swiglu_backward",
    "numerics.kernels.swiglu:swiglu_forward_backward", "numerics.kernels.swiglu:gate_weight_gradient",
    "numerics.kernels.norm:rmsnorm", "numerics.kernels.norm:rmsnorm_backward", "numerics.kernels.norm:add_rmsnorm",
    "numerics.kernels.attention:backward_prepare", "numerics.kernels.permute:dispatch_layout",
    "numerics.kernels.permute:expert_count", "numerics.kernels.permute:expert_map",
    "numerics.reference.gate:gate_backward", "numerics.kernels.rope:rope", "numerics.kernels.gate:gate",
    "numerics.kernels.permute:permute", "numerics.kernels.permute:unpermute",
)  # fmt: skip
"""The program behind the tables: what asks a model's family for operations, kernels that were timed, and how."""

Show = Callable[[str], None]
Time = Callable[[Timed, int | None], Timing]


class Task(NamedTuple):
    """One thing to time. sms: None for the whole card. estimate_s: seconds it is planned to take."""

    op: Timed
    names: tuple[str, ...]
    sms: int | None
    estimate_s: float
    own: bool


class Measured(NamedTuple):
    """A task and what came of it; card: clocks and reasons for slowing meanwhile, where known."""

    task: Task
    timing: Timing
    card: Mapping[str, Any]


class Collected(NamedTuple):
    """What a plan came to. left: tasks without time; refused: task and why."""

    done: tuple[Measured, ...]
    left: tuple[Task, ...]
    refused: tuple[tuple[Task, str], ...]


class Campaign(NamedTuple):
    """Tables of a device ({} when nothing may be written), and whether something that should work did not."""

    device: str
    tables: dict[str, Table]
    refused: bool


# --- the plan ---------------------------------------------------------------------------------------------------------


def plan(
    needed: Mapping[Timed, tuple[str, ...]], reference: Mapping[str, float], confined: int, quick: bool
) -> list[Task]:
    """Tasks in the order of their worth: own shapes, these on `confined` SMs, shapes around them."""
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    first: set[str] = set()

    def task(op: Timed, names: tuple[str, ...], sms: int | None, own: bool) -> Task:
        start = NEXT_S if kind_of(op) in first else FIRST_S
        first.add(kind_of(op))
        start += VERIFY_S * own
        return Task(op, names, sms, start + repetitions * (2 * bound_us(op, reference) + SETTLE_US) * MICRO, own)

    out = [task(op, names, None, True) for op, names in needed.items()]
    out += [task(op, names, confined, True) for op, names in needed.items() if confinable(op)]
    seen = set(needed)
    for factor in () if quick else AROUND:
        for op, names in needed.items():
            if (other := resized(op, factor)) not in seen:
                seen.add(other)
                out.append(task(other, names, None, False))
    return out


def bound_us(op: Timed, reference: Mapping[str, float]) -> float:
    """Microseconds that peaks and bandwidth allow; a kernel takes about twice as long (docs/PRICES.md, roofline)."""
    peak = reference["fp8_flops" if getattr(op, "precision", "") == "fp8" else "bf16_flops"]
    return max(op.flop() / peak, op.bytes() / reference["hbm_bytes_per_s"]) / MICRO


def plan_lines(tasks: Iterable[Task], budget_s: float) -> Iterator[str]:
    """The plan of time, a line a kind, and its sum beside the budget."""
    kinds: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        kinds[kind_of(task.op)].append(task)
    yield f"{'kind':22}{'operations':>12}{'seconds':>10}"
    for kind, group in kinds.items():
        yield f"{kind:22}{len(group):12}{sum(t.estimate_s for t in group):10.1f}"
    total = sum(t.estimate_s for group in kinds.values() for t in group)
    yield f"{'all':22}{sum(map(len, kinds.values())):12}{total:10.1f} of {budget_s:.0f}; what does not fit is left out"


def collect(
    tasks: Iterable[Task], timed: Time, deadline_s: float, show: Show, clock: Callable[[], float] = time.monotonic,
    watch: Callable[[float, float], Mapping[str, Any]] = lambda start, end: {},
) -> Collected:  # fmt: skip
    """Time tasks while they are expected to end before the deadline (of `clock`).

    A task is expected to take what is planned, times how much longer than planned tasks took until now.
    """
    done: list[Measured] = []
    left: list[Task] = []
    refused: list[tuple[Task, str]] = []
    planned = spent = 0.0
    for task in tasks:
        start = clock()
        slower = max(1.0, spent / planned) if planned else 1.0
        if start + task.estimate_s * slower > deadline_s:
            left.append(task)
            continue
        try:
            timing = timed(task.op, task.sms)
        except Exception as error:  # one operation that cannot run here does not end the campaign
            refused.append((task, " ".join(f"{type(error).__name__}: {error}".split())))
            continue
        planned, spent = planned + task.estimate_s, spent + clock() - start
        done.append(Measured(task, timing, watch(start, clock())))
        show(line(done[-1]))
    return Collected(tuple(done), tuple(left), tuple(refused))


def line(result: Measured) -> str:
    """One operation of the run."""
    task, t = result.task, result.timing
    where = f" on {task.sms} SMs" if task.sms else ""
    rate = task.op.bytes() / (t.median_us * MICRO) / GIGA
    sides = " ".join(f"{key}={value:g}" for key, value in task.op._asdict().items() if isinstance(value, int | float))
    times = f"{t.median_us:10.2f} us ({t.low_us:.2f} to {t.high_us:.2f})"
    return f"{kind_of(task.op):22}{times}{rate:8.0f} GB/s  {sides}{where}"


def summary_lines(collected: Collected) -> Iterator[str]:
    """What was left out and why."""
    for reason, tasks in _by_reason(collected).items():
        kinds = sorted({kind_of(t.op) for t in tasks})
        yield f"not measured: {len(tasks)} of {', '.join(kinds)}: {reason}"


def _by_reason(collected: Collected) -> dict[str, list[Task]]:
    out: dict[str, list[Task]] = defaultdict(list)
    for task in collected.left:
        out["no time was left"].append(task)
    for task, why in collected.refused:
        out[why].append(task)
    return out


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(collected: Collected, head: Mapping[str, Any], launch_gap: Mapping[str, Any]) -> dict[str, Table]:
    """The tables of a card. head: device, source, reference, provenance. launch_gap: launch_gap_us and its kind.

    Raises ValueError naming what a set of tables cannot do without.
    """
    whole = [m for m in collected.done if m.task.sms is None]
    confined = {(m.task.op, m.task.sms): m.timing for m in collected.done if m.task.sms}
    rows = [_row(m, confined) for m in whole]
    if missing := _missing(rows):
        raise ValueError(f"too little was measured to price by: no {', '.join(missing)}")
    sms = int(head["reference"]["sms"])
    gemms = [r for r in rows if r["op"] in ("gemm", "grouped")]
    fit = wave_fits(gemms, sms, [])
    if confined:
        fit[CONFINED] = _confined(gemms, fit, sms)
    out = assembled({**head, "sms": sms}, rows, fit, [], [], 0.0)
    out["contention"] |= launch_gap
    why = "one GPU exchanges with nobody; prices take bandwidths (hwmodels.price)"
    out["exchange"]["empty"] = out["contention"]["empty"] = why
    return out


def _row(result: Measured, confined: Mapping[tuple[Timed, int | None], Timing]) -> Row:
    t = result.timing
    spread = {"low_us": rounded(t.low_us), "high_us": rounded(t.high_us), "samples": t.repetitions}
    out = row(result.task.op, [t.median_us], result.task.names) | spread
    others = {str(sms): rounded(c.median_us) for (op, sms), c in confined.items() if op == result.task.op}
    slowed = result.card.get("slowed")
    return out | ({"us_on_sms": others} if others else {}) | ({"slowed": slowed} if slowed else {})


def _missing(rows: list[Row]) -> list[str]:
    """What the price ladder falls over without."""
    fp8 = [r for r in rows if r.get("precision") == "fp8"]
    wgrad = sum(r["role"] == "wgrad" for r in fp8)
    kinds = {r.get("kind") for r in rows} | {r.get("direction") for r in rows}
    counts = {"FP8 products (two shapes)": len(fp8) - wgrad > 1, "FP8 weight gradients (two shapes)": wgrad > 1}
    wanted = {"attention forward": "forward", "attention backward": "backward", "elementwise": "elementwise",
              "tiny": "tiny"}  # fmt: skip
    return [name for name, there in counts.items() if not there] + [n for n, k in wanted.items() if k not in kinds]


def _confined(gemms: list[Row], fit: Mapping[str, Any], whole: int) -> dict[str, Any]:
    """How well waves carry a time over to fewer SMs: time there against time here times the ratio of waves."""
    errors = []
    for r in gemms:
        for sms, us in r.get("us_on_sms", {}).items():
            rows = r["rows"] if "rows" in r else r["m"]
            errors.append(r["us"] * waves(rows, r["n"], int(sms)) / waves(rows, r["n"], whole) / us - 1)
    return {
        "points": len(errors), "median_error": rounded(float(np.median(np.abs(errors)))),
        "bias": rounded(float(np.mean(errors))),
    }  # fmt: skip


# --- on a card --------------------------------------------------------------------------------------------------------


def run(scenario_path: Path, quick: bool, show: Show, budget_s: float = BUDGET_S) -> Campaign:
    """Measure what a scenario needs on the CUDA device at hand. Raises DocumentError, UnknownCardError (a
    ValueError), NoDevice without a CUDA device."""
    started = time.monotonic()
    import torch

    from numerics.card import check, contention, measure, needs
    from sim.scenario import load

    measure.require_device()
    device = cards.device_of(torch.cuda.get_device_name())
    scenario, reference = load(str(scenario_path)), cards.reference(device)
    own, compute_sms = needs.operations(scenario), int(reference["sms"]) - scenario.comm.sms
    tasks = plan(own, reference, compute_sms, quick)
    for text in plan_lines(tasks, budget_s):
        show(text)
    if not check.device(show):
        show("the device leg of `python -m numerics check` failed: nothing was timed")
        return Campaign(device, {}, True)
    deadline = started + budget_s - (PAIR_S if torch.cuda.device_count() > 1 else 0)
    with measure.Monitor() as monitor:
        gap, events = launch_gap(device), measure.events_us()
        timed = _timer(scenario.model, quick, own, events + gap["launch_gap_us"])
        collected = collect(tasks, timed, deadline, show, watch=_watch(monitor))
        beside = contention.attempted(scenario, show)
    for text in summary_lines(collected):
        show(text)
    program = [*ENTRIES, f"sim.models.{scenario.model.family}:parts", *(contention.ENTRIES if beside else ())]
    head = {
        "device": device, "source": f"{torch.cuda.get_device_name()}, python -m numerics calibrate --gpu",
        "reference": reference,
        "provenance": _origin(scenario_path, quick, collected, monitor, program) | {"events_us": rounded(events)},
    }  # fmt: skip
    try:
        made = tables(collected, head, gap)
    except ValueError as error:
        show(str(error))
        return Campaign(device, {}, True)
    broken = any(not why.startswith("Unmeasurable") for _, why in collected.refused)
    return Campaign(device, made | contention.tables(beside, made, compute_sms), broken)


def _timer(shape: Any, quick: bool, own: Collection[Timed], less_us: float) -> Time:
    """Times an operation, `less_us` that events and a launch add to each call; one of `own` is verified first. What is
    like a wrong one is not timed either."""
    import torch

    from numerics.card import measure, rig

    wrong: dict[str, rig.Wrong] = {}

    def timed(op: Timed, sms: int | None) -> Timing:
        if op not in own and kind_of(op) in wrong:
            raise wrong[kind_of(op)]
        work = rig.work_of(op, shape, sms)
        try:
            call = rig.verified(work) if op in own else rig.call(work)
        except rig.Wrong as error:
            wrong[kind_of(op)] = error
            raise
        timing = measure.time_call(call, QUICK_REPETITIONS if quick else REPETITIONS).less(less_us)
        del call, work
        torch.cuda.empty_cache()
        return timing

    return timed


def _watch(monitor: Any) -> Callable[[float, float], Mapping[str, Any]]:
    def watch(start: float, end: float) -> Mapping[str, Any]:
        slowed = {name: rounded(share) for name, share in monitor.slowed(start, end).items()}
        return {**monitor.between(start, end), "slowed": slowed}

    return watch


def launch_gap(device: str) -> dict[str, Any]:
    """Mean idle time between two kernels of a stream, by torch's profiler and the importer; else the sibling's."""
    try:
        measured_launch_gap_us()  # the first recording takes the host too long
        return {"launch_gap_us": measured_launch_gap_us(), "launch_gap_kind": "measured"}
    except Exception as error:  # a profiler that cannot run here costs one figure, which then says so
        why, gap = " ".join(f"{type(error).__name__}: {error}".split()), shipped.load("h800").launch_gap_us
        return {"launch_gap_us": gap, "launch_gap_kind": f"transferred from the h800, not measured: {why}"}


def measured_launch_gap_us(kernels: int = 400) -> float:
    """Queue small kernels before they run and read the gaps off a trace. Raises ValueError where there are none."""
    import tempfile

    import torch

    from numerics.card import measure
    from numerics.tables.calibrate import launch_gap_us
    from numerics.traces import rules
    from numerics.traces.importer import analyse
    from numerics.traces.trace import read_trace

    x = torch.zeros(1 << 22, device="cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        torch.cuda._sleep(100 * measure.AHEAD_CYCLES)
        for _ in range(kernels):
            x.mul_(1.0)
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gaps.json")
        profile.export_chrome_trace(str(path))
        gap_us = launch_gap_us(analyse(read_trace(path), rules.load("torch")))
    if not gap_us:
        raise ValueError("the profiler's trace shows no two kernels back to back")
    return gap_us


def _origin(scenario: Path, quick: bool, collected: Collected, monitor: Any, entries: Sequence[str]) -> dict[str, Any]:
    """What a table says of its making."""
    from numerics.card import measure

    said = measure.provenance(QUICK_REPETITIONS if quick else REPETITIONS)
    clocks = [values[0] for _, values in monitor.readings]
    return {
        "device": f"{said['device']}, {said['sms']} SMs", "driver": said["driver"],
        "clocks": {
            "sm_mhz_low": min(clocks), "sm_mhz_median": float(np.median(clocks)), "sm_mhz_high": max(clocks),
        } if clocks else {"value": None, "reason": "nvidia-smi gave no readings"},
        "versions": {key: said[key] for key in ("cuda", "torch", "triton", "python")},
        "version": "this repository's kernels, by the digests in program", "measured": said["date"],
        "command": f"python -m numerics calibrate --gpu --scenario {scenario.name}{' --quick' if quick else ''}",
        "repetitions": str(said["repetitions"]), "quantiles": "us is the median, low_us and high_us the tenths",
        "method": f"{said['method']}; less events_us, that two events add to one of many in a row, and the launch gap",
        "verified": "the scenario's own shapes, by numerics.reference before they were timed",
        "inputs": {f"scenario {scenario.name}": provenance.digest_of(scenario)},
        "not_measured": {why: sorted({kind_of(t.op) for t in ts}) for why, ts in _by_reason(collected).items()},
        "program": {"entries": list(entries), "files": provenance.program(entries)},
    }  # fmt: skip
