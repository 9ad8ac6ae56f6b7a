"""The figures of an analysed trace as one plain mapping: per operation, overlap, contention, exchanges, phases, tiles.

Keys and rounding are those of the summary that the H800 calibration tables carry as their source; times are
microseconds unless the key says otherwise. What no trace holds (FLOPs of the model, bytes on the wire) is not here.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from hwmodels.price import waves
from hwmodels.units import US_NS
from numerics.fits import fixed_effects, relative_least_squares
from numerics.traces.importer import Analysis
from numerics.traces.measures import LAUNCH_GAP_NS, Overlap
from numerics.traces.operations import TILE, Operation, pass_of, rows

PADDED_ROWS = 33_024
"""Padded expert rows of a rank in expectation, to which routed operations are scaled: 4096 tokens x 8 experts of a
token / 64 ranks x 64 ranks, plus 4 local experts x half a tile of 128."""
REPORTED_US = 10.0
"""Operations at least this long are listed singly."""


def summary(analysis: Analysis) -> dict[str, Any]:
    """All figures of a trace of one device (see the module). Parts that need phases are empty for a trace without them.

    Raises ValueError for a trace of several devices.
    """
    counts = rows(analysis.operations, analysis.rules)
    return {
        "_meta": {
            "source": analysis.source, "device": analysis.device, "kernels": analysis.kernels,
            "world_size": analysis.world_size, "tokens": counts.tokens,
            "padded_routed_rows": _numbered(counts.padded), "received_tokens": _numbered(counts.received),
        },
        "sms": analysis.sms._asdict(), "overlap": overlap(analysis.overlap), "streams": streams(analysis),
        "ops": operations(analysis), "comm": exchanges(analysis), "wgrad_groups": groups(analysis),
        "phases_us_per_layer_sum_of_kernels": phases(analysis), "contention": contention(analysis),
        "classes": classes(analysis), "calibration_us_per_layer": per_layer(analysis),
        "gemm_tile_model": tile_model(analysis),
    }  # fmt: skip


def _numbered(by_direction: Any) -> dict[str, int]:
    """{"F": (a, b)} as {"F0": a, "F1": b}; weight gradients have the rows of the backward."""
    return {f"{d}{i}": n for d, counts in by_direction.items() if d != "W" for i, n in enumerate(counts)}


def overlap(o: Overlap) -> dict[str, Any]:
    """Busy, exposed and idle times; launch gaps and the longer waits, as [length, start] of the compute streams."""
    short, long = o.launch_gaps(), o.waits()
    return {
        "total": _us(o.total), "compute_busy": _us(o.compute), "comm_data": _us(o.data), "comm_sync": _us(o.sync),
        "comm_data_exposed": _us(o.data_exposed), "comm_data_hidden": _us(o.data - o.data_exposed),
        "comm_sync_exposed": _us(o.sync_exposed), "comm_stream_quant": _us(o.on_communication), "idle": _us(o.idle),
        "data_under_gemm": _us(o.data_beside_gemm), "data_under_attn": _us(o.data_beside_attention),
        "compute_gaps": len(o.gaps), "launch_gap_count": len(short), "launch_gap_total": _us(int(short.sum())),
        "launch_gap_mean": round(_us(float(short.mean())), 2) if len(short) else 0.0,
        "big_gap_total": _us(int(long[:, 0].sum())), "big_gaps": [[_us(a), _us(b)] for a, b in long.tolist()],
    }  # fmt: skip


def idle(o: Overlap) -> dict[str, Any]:
    """Times in which nothing at all ran, in two parts that are all of `idle`: boundaries between kernels, and waits."""
    short, long = o.idle_gaps[o.idle_gaps <= LAUNCH_GAP_NS], o.idle_gaps[o.idle_gaps > LAUNCH_GAP_NS]
    return {
        "idle_gaps": len(short), "idle_gaps_total": _us(int(short.sum())), "idle_waits": len(long),
        "idle_waits_total": _us(int(long.sum())), "on_communication_alone": _us(o.on_communication_alone()),
    }  # fmt: skip


def streams(analysis: Analysis) -> dict[str, Any]:
    """Stream -> kernels, busy time, launch gaps."""
    return {
        str(s.number): {
            "kernels": s.kernels, "busy": _us(s.busy_ns), "communication": s.communication,
            "launch_gaps": s.launch_gaps, "launch_gap_mean": round(s.gap_ns / US_NS, 2),
        }
        for s in analysis.streams
    }  # fmt: skip


def operations(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """phase/operation -> class, values, medians; a name that comes twice in its phase is followed by #position."""
    chosen = [op for op in analysis.operations if op.median_us >= REPORTED_US]
    seen: set[str] = set()
    out = {}
    for op in sorted(chosen, key=lambda op: (op.phase, op.position)):
        name = f"{op.path}#{op.position}" if op.path in seen or _again(op, analysis) else op.path
        seen.add(op.path)
        out[name] = _entry(op, analysis)
    return out


def _again(op: Operation, analysis: Analysis) -> bool:
    return any(o.path == op.path and 0 <= o.position < op.position for o in analysis.operations)


def _entry(op: Operation, analysis: Analysis) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "class": op.kind, "us": op.median_us, "values": list(op.us), "f_data": [round(b, 4) for b in op.beside],
        "low_us": op.quantile_us(0.1), "high_us": op.quantile_us(0.9),
    }  # fmt: skip
    if op.shapes and all(all(s) for s in op.shapes):
        flop = [2 * s.m * s.n * s.k for s in op.shapes]
        entry["shapes"] = [list(s) for s in op.shapes]
        rates = [f / (us * US_NS * US_NS) for f, us in zip(flop, op.us, strict=True) if us]
        entry["TFLOPs"] = round(float(np.median(rates))) if rates else 0
    if _is_routed(op, analysis):
        scaled = np.array(op.us) / _padded(op, analysis)
        entry["us_at_33024_rows"] = round(float(np.median(scaled)) * PADDED_ROWS, 1)
        entry["us_per_1000_padded_rows"] = round(float(np.median(scaled)) * US_NS, 3)
    elif op.with_communication() is not None and op.without_communication() is not None:
        entry |= {"us_with_comm": op.with_communication(), "us_without_comm": op.without_communication()}
    return entry


def _is_routed(op: Operation, analysis: Analysis) -> bool:
    return any(re.search(p, op.path) for p in analysis.rules.shapes.get("routed", ())) and op.position >= 0


def _padded(op: Operation, analysis: Analysis) -> Any:
    return np.array(rows(analysis.operations, analysis.rules).padded[pass_of(op.phase)], float)


def _scaled(op: Operation, analysis: Analysis) -> Any:
    """Times of the repeats, those of routed operations as if each had the same rows."""
    us = np.array(op.us)
    return us * PADDED_ROWS / _padded(op, analysis) if _is_routed(op, analysis) else us


def exchanges(analysis: Analysis) -> dict[str, Any]:
    """Communication kernels: times of each that moves data, times of each barrier."""
    data = [op for op in analysis.operations if op.kind == "comm_data"]
    sync = [op for op in analysis.operations if op.kind == "comm_sync"]
    out: dict[str, Any] = {op.op: {"durs": list(op.us), "med": op.median_us} for op in data if len(op.us)}
    barriers = {op.op: list(op.us) for op in sync if "layout" not in op.op}
    return {"SMs": analysis.sms.communication, **out, "barriers_us": barriers}


def groups(analysis: Analysis) -> dict[str, Any]:
    """Wall time of products that run on two streams at once."""
    return {
        name: {"span_us_4_experts": [_us(s) for s in spans], "median": _us(float(np.median(spans)))}
        for name, spans in analysis.groups.items()
    }


def phases(analysis: Analysis) -> dict[str, Any]:
    """Phase -> kernels, summed kernel time and wall time of each repeat."""
    out = {}
    for name in analysis.phases():
        ops = analysis.phase(name)
        sums: dict[int, float] = defaultdict(float)
        for op in ops:
            for repeat, us in zip(op.repeats, op.us, strict=True):
                sums[repeat] += us
        values = [sums[r] for r in sorted(sums)]
        spans = [_us(analysis.spans[name, r]) for r in sorted(sums)]
        out[name] = {
            "kernels": sum(op.position >= 0 for op in ops), "values": values, "median": float(np.median(values)),
            "spans": spans,
        }  # fmt: skip
    return out


def contention(analysis: Analysis) -> dict[str, Any]:
    """Slow-down beside communication, by family, from repeats of each operation (fixed effects; see numerics.fits).

    A second effect, whether the repeat is the first, takes up the drift of clocks. Operations whose own repeats run
    beside each other, and those on communication streams, are left out.
    """
    beside = {s.number for s in analysis.streams if s.communication}
    out = {}
    for family, chosen in analysis.rules.contention.items():
        ops = [
            op for op in analysis.operations
            if op.kind in chosen["classes"] and op.position >= 0 and op.median_us >= chosen.get("least_us", 0)
            and not beside & set(op.streams) and not _in_group(op, analysis) and min(op.us) > 0
        ]  # fmt: skip
        repeats = max((len(op.us) for op in ops), default=0)
        ops = [op for op in ops if len(op.us) == repeats]
        if repeats < 2:
            continue
        effects = [np.stack([np.array(op.beside), np.arange(repeats) > 0], 1) for op in ops]
        effect, error = fixed_effects(np.array([_scaled(op, analysis) for op in ops]), np.array(effects, float))
        out[family] = {
            "slowdown_under_comm": round(float(effect[0]), 3), "se": round(float(error[0]), 3),
            "drift_layers1_3": round(float(effect[1]), 3), "kernels": len(ops),
        }  # fmt: skip
    return out


def _in_group(op: Operation, analysis: Analysis) -> bool:
    return bool(analysis.rules.groups and analysis.rules.groups.search(op.op))


def classes(analysis: Analysis) -> dict[str, Any]:
    """Class -> kernels, microseconds, share of all kernel time, with and without communication beside (medians)."""
    total = sum(sum(op.us) for op in analysis.operations) or 1.0
    out = {}
    for kind in sorted({op.kind for op in analysis.operations}):
        us = np.array([t for op in analysis.operations if op.kind == kind for t in op.us])
        tenth, median, ninetieth = np.quantile(us, [0.1, 0.5, 0.9]).tolist()
        out[kind] = {
            "kernels": len(us), "us": round(float(us.sum()), 3), "share": round(float(us.sum()) / total, 4),
            "p10_us": tenth, "p50_us": median, "p90_us": ninetieth,
        }  # fmt: skip
    return out


def quantiles(analysis: Analysis) -> Iterable[dict[str, Any]]:
    """Each operation, the longest in all first: what it is, how often, its share of kernel time and its quantiles, and
    beside and without communication where it ran both ways."""
    total = sum(sum(op.us) for op in analysis.operations) or 1.0
    for op in sorted(analysis.operations, key=lambda op: -sum(op.us)):
        tenth, median, ninetieth = (round(float(q), 3) for q in np.quantile(op.us, [0.1, 0.5, 0.9]))
        row: dict[str, Any] = {} if op.op == op.kernel else {"op": op.op}
        row |= {
            "phase": op.phase, "kernel": op.kernel, "class": op.kind, "kernels": len(op.us),
            "us": round(sum(op.us), 3), "share": round(sum(op.us) / total, 4), "p10_us": tenth, "p50_us": median,
            "p90_us": ninetieth,
        }  # fmt: skip
        if op.shapes and all(op.shapes[0]):
            row |= op.shapes[0]._asdict()
        beside, alone = op.with_communication(), op.without_communication()
        yield row | ({"us_with_comm": beside, "us_without_comm": alone} if beside and alone else {})


def per_layer(analysis: Analysis) -> dict[str, Any]:
    """Class -> median over layers of its summed time in F, B and W, routed operations at PADDED_ROWS.

    Products on two streams count once, by their wall time.
    """
    sums: dict[tuple[str, str], list[Any]] = defaultdict(list)
    beside = {s.number for s in analysis.streams if s.communication}
    layers = 1 + max((r for op in analysis.operations for r in op.repeats), default=0)
    for op in analysis.operations:
        if op.phase in analysis.rules.sequences and not beside & set(op.streams) and not _in_group(op, analysis):
            of_layer = np.zeros(layers)
            np.add.at(of_layer, list(op.repeats), _scaled(op, analysis))
            sums[op.kind, pass_of(op.phase)].append(of_layer)
    for name, spans in analysis.groups.items():
        member = next(op for op in analysis.operations if op.op.startswith(name))
        wall = np.array([_us(s) for s in spans])
        sums[member.kind, pass_of(member.phase)].append(wall * PADDED_ROWS / _padded(member, analysis))
    out: dict[str, dict[str, float]] = defaultdict(dict)
    for (kind, direction), values in sorted(sums.items()):
        out[kind][direction] = round(float(np.median(sum(values))), 1)
    return dict(out)


def tile_model(analysis: Analysis) -> dict[str, Any]:
    """Time = waves x (a + b x ceil(K / 128)) of the FP8 products with 128 x 128 tiles, by least squares."""
    out = {}
    for name, kinds in (("fwd/dgrad", ("gemm_fp8", "gemm_grouped")), ("wgrad", ("gemm_fp8_wgrad",))):
        points = list(_tile_points(analysis, kinds))
        if len(points) < 3:
            continue
        terms = [[w, w * -(-k // TILE)] for w, k, _ in points]
        (a, b), rms = relative_least_squares(np.array(terms, float), np.array([us for _, _, us in points]))
        out[name] = {"a_us": float(a), "b_us_per_kblock": float(b), "rms_err": rms, "shapes": len(points)}
    return out


def _tile_points(analysis: Analysis, kinds: tuple[str, ...]) -> Iterable[tuple[int, float, float]]:
    """(waves, K, median time) of each product whose shape was deduced, routed ones at PADDED_ROWS.

    Of products on two streams, one's turn on the SMs.
    """
    sms = analysis.sms.compute
    for op in analysis.operations:
        if op.kind in kinds and op.shapes and sms and all(op.shapes[0]) and not _in_group(op, analysis):
            m, n, k = op.shapes[0]
            m = PADDED_ROWS if _is_routed(op, analysis) else m
            yield waves(m, n, sms), k, float(np.median(_scaled(op, analysis)))
    for name, spans in analysis.groups.items():
        members = [op for op in analysis.operations if op.op.startswith(name) and op.kind in kinds]
        if members and sms:
            scaled = np.array(spans) / US_NS * PADDED_ROWS / _padded(members[0], analysis)
            m, n, _ = members[0].shapes[0]
            yield waves(m, n, sms), PADDED_ROWS / len(members), float(np.median(scaled)) / len(members)


def _us(ns: float) -> float:
    us = ns / US_NS
    return int(us) if us == int(us) else us
