"""Figures of an analysed trace as plain rows: overlap and idle times, classes of kernels, quantiles of operations.

Times are microseconds.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from hwmodels.units import US_NS
from numerics.traces.importer import Analysis
from numerics.traces.measures import LAUNCH_GAP_NS, Overlap


def overlap(o: Overlap) -> dict[str, Any]:
    """Busy, exposed and idle times; launch gaps and the longer waits of the compute streams."""
    short, long = o.launch_gaps(), o.waits()
    return {
        "total": _us(o.total), "compute_busy": _us(o.compute), "comm_data": _us(o.data), "comm_sync": _us(o.sync),
        "comm_data_exposed": _us(o.data_exposed), "comm_data_hidden": _us(o.data - o.data_exposed),
        "comm_sync_exposed": _us(o.sync_exposed), "comm_stream_quant": _us(o.on_communication), "idle": _us(o.idle),
        "data_under_gemm": _us(o.data_beside_gemm), "data_under_attn": _us(o.data_beside_attention),
        "compute_gaps": len(o.gaps), "launch_gap_count": len(short), "launch_gap_total": _us(int(short.sum())),
        "launch_gap_mean": round(_us(float(short.mean())), 2) if len(short) else 0.0,
        "big_gap_total": _us(int(long[:, 0].sum())),
    }  # fmt: skip


def idle(o: Overlap) -> dict[str, Any]:
    """Times in which nothing at all ran, in two parts that are all of `idle`: boundaries between kernels, and waits."""
    short, long = o.idle_gaps[o.idle_gaps <= LAUNCH_GAP_NS], o.idle_gaps[o.idle_gaps > LAUNCH_GAP_NS]
    return {
        "idle_gaps": len(short), "idle_gaps_total": _us(int(short.sum())), "idle_waits": len(long),
        "idle_waits_total": _us(int(long.sum())), "on_communication_alone": _us(o.on_communication_alone()),
    }  # fmt: skip


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


def _us(ns: float) -> float:
    us = ns / US_NS
    return int(us) if us == int(us) else us
