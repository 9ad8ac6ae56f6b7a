"""One overlapped pair, op by op: its streams, and the streaming multiprocessors that each holds."""

from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.units import NS_PER_S, ns_to_seconds
from reports.columns import pack
from reports.headline import by_rank, noun, percent, seconds
from reports.palette import OPS, STEPS, op_kind
from reports.ranks import HEALTHY, differ, number
from reports.section import Section, bar, controls, details, legend, plot, table
from sim.result import Result
from sim.result.trace import LANES, PHASES, Column, Trace

COMPUTE_LANES = (LANES.index("compute"), LANES.index("weight"))
EXCHANGE_LANES = (LANES.index("communication"), LANES.index("network"))
LANE_NAMES = {"compute": "compute", "communication": "communication", "weight": "weight gradients",
              "network": "pipeline sends", "host": "host copies"}  # fmt: skip
ORDER = ("compute", "weight", "communication", "network", "host")

Steps = tuple[npt.NDArray[np.float64], Column]


def section(result: Result) -> Section | None:
    """The pair of `result`, or None when it has none."""
    pair = result.pair
    if pair is None or not len(pair):
        return None
    kinds = op_kinds(pair)
    present = [i for i in range(len(OPS)) if (kinds == i).any()]
    keys = legend((OPS[i].name, OPS[i].colour) for i in present)
    phases = sorted(set(pair.phase.tolist()))
    keys += legend((STEPS[i].name, STEPS[i].colour) for i in phases)  # the script shows one of the two
    what = noun(result.pair_name)
    choice = (
        '<label class="choice">Colour by <select id="pair-colour"><option value="op">kind of op</option>'
        '<option value="phase">direction</option></select></label>'
    )
    body = (
        f'<div class="row">{keys}<div class="tools">{choice}{controls("pair", what)}'
        f"</div></div>{plot('pair', f'operations of one {what}')}"
        + details(f"Where the {what}'s compute time goes", _table(pair, kinds, present))
    )
    return Section("pair", f"One {what}, op by op", _lead(result, pair), body, _data(result, pair, kinds))


def op_kinds(pair: Trace) -> Column:
    """Index into OPS for every row."""
    rows, which = np.unique(np.stack((pair.label, pair.lane, pair.phase)), axis=1, return_inverse=True)
    kinds = [op_kind(pair.labels[label], lane, phase) for label, lane, phase in rows.T.tolist()]
    return np.array(kinds, dtype=np.int64)[which.ravel()]


def occupancy(pair: Trace, lanes: tuple[int, ...]) -> Steps:
    """(times in seconds, SMs held from then on) by the spans of `lanes`.

    Streams of one kind share one pool: kernels side by side hold at most what the largest of them may take alone.
    """
    keep = np.isin(pair.lane, lanes) & (pair.sms > 0)
    if not keep.any():
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    times = np.concatenate((pair.start[keep], pair.end[keep]))
    change = np.concatenate((pair.sms[keep], -pair.sms[keep]))
    unique, at = np.unique(times, return_inverse=True)
    held = np.cumsum(np.bincount(at, change)).astype(np.int64)
    return unique / NS_PER_S, np.minimum(held, pair.sms[keep].max())


def left(compute: Steps, exchange: Steps, room: int | None) -> Steps:
    """`compute` with no more SMs at any time than `exchange` leaves of `room`: a kernel that has all SMs of a device
    while nothing communicates gives some back."""
    if room is None or not len(compute[0]) or not len(exchange[0]):
        return compute
    times = np.union1d(compute[0], exchange[0])
    own, others = (np.append(0, held)[np.searchsorted(at, times, side="right")] for at, held in (compute, exchange))
    return (times, np.minimum(own, room - others)) if (own + others > room).any() else compute


def device_sms(scenario: dict[str, Any]) -> int | None:
    """Streaming multiprocessors of the scenario's device, or None when the scenario does not spell them out."""
    return number(scenario, "cluster", "node", "device", "sms")


def union_ns(pair: Trace, lanes: tuple[int, ...]) -> list[tuple[int, int]]:
    """The times at which any of `lanes` is busy, as disjoint ascending intervals."""
    keep = np.isin(pair.lane, lanes)
    merged: list[tuple[int, int]] = []
    for start, end in sorted(zip(pair.start[keep].tolist(), pair.end[keep].tolist(), strict=True)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _lead(result: Result, pair: Trace) -> str:
    length = int(pair.end.max() - pair.start.min())
    compute, both = (sum(b - a for a, b in union_ns(pair, lanes))
                     for lanes in (COMPUTE_LANES, COMPUTE_LANES + EXCHANGE_LANES))  # fmt: skip
    exchange = sum(b - a for a, b in union_ns(pair, EXCHANGE_LANES))
    text = f"The {result.pair_name}, alone: {seconds(ns_to_seconds(length))}, {len(pair):,} operations"
    text += f", compute busy {percent(compute / length)}"
    if exchange:
        text += f", {percent(1 - (both - compute) / exchange)} of communication beside compute"
    return f"{text}. {HEALTHY}{_measured(result.summary.get('pair_s', {}))}" if differ(result) else f"{text}."


def _measured(pair: dict[str, Any]) -> str:
    """How long it took in the run, where ranks differ."""
    if "balanced_seconds" not in pair:
        return ""
    where = f"on the ranks of position {pair['position']}, mean of {pair['steps']} each"
    return f" In the run it takes {seconds(pair['seconds'])} ({by_rank(pair)}; {where})."


def _data(result: Result, pair: Trace, kinds: Column) -> dict[str, Any]:
    origin = int(pair.start.min())
    shift = origin / NS_PER_S
    table_ = pack({
        "start": (pair.start - origin) / NS_PER_S, "end": (pair.end - origin) / NS_PER_S, "lane": pair.lane,
        "kind": kinds, "phase": pair.phase, "label": pair.label, "layer": pair.layer, "price": pair.price,
        "sms": pair.sms, "stage": pair.stage, "micro_batch": pair.micro_batch,
    })  # fmt: skip
    exchange = occupancy(pair, EXCHANGE_LANES)
    compute = left(occupancy(pair, COMPUTE_LANES), exchange, device_sms(result.scenario))
    present = {LANES[i] for i in pair.lane.tolist()}
    return {
        "table": table_,
        "what": noun(result.pair_name),
        "labels": pair.labels,
        "lanes": [[LANES.index(lane), LANE_NAMES[lane]] for lane in ORDER if lane in present],
        "kinds": [kind._asdict() for kind in OPS],
        "phases": [kind._asdict() for kind in STEPS[: len(PHASES)]],
        "prices": [[price, result.price_sources.get(price, "")] for price in pair.prices],
        "sms": [
            {"name": name, "table": pack({"time": times - shift, "held": held})}
            for name, (times, held) in (("compute", compute), ("communication", exchange))
        ],
        "device_sms": device_sms(result.scenario),
    }


def _table(pair: Trace, kinds: Column, present: list[int]) -> str:
    """Summed time of the kernels of each kind on the compute streams, by direction."""
    lengths = np.where(np.isin(pair.lane, COMPUTE_LANES), pair.end - pair.start, 0)
    total = max(1, int(lengths.sum()))
    directions = {"F": ("forward",), "B": ("backward_input", "backward"), "W": ("weight",)}
    masks = [np.isin(pair.phase, [PHASES.index(p) for p in phases]) for phases in directions.values()]
    rows = []
    for kind in sorted(present, key=lambda k: -int(lengths[kinds == k].sum())):
        mine = kinds == kind
        time = int(lengths[mine].sum())
        if time:
            cells = [_time(int(lengths[mine & mask].sum())) for mask in masks]
            share = bar(time / total, OPS[kind].colour) + percent(time / total)
            rows.append([OPS[kind].name, f"{int((mine & (lengths > 0)).sum()):,}", *cells,
                         _time(time), share])  # fmt: skip
    return table(("Kind", "Kernels", *directions, "Sum", "Share of kernel time"), rows)


def _time(duration_ns: int) -> str:
    return seconds(ns_to_seconds(duration_ns)) if duration_ns else "–"
