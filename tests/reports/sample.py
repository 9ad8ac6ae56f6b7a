"""A made-up Result with the shape of a real one: 16 ranks, DualPipe-like steps, about 6,700 spans a rank.

The figures are invented; only their relations hold (spans fill steps, bars sum to the step, parts sum to a peak).
"""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from hwmodels.units import GB, MS_NS, US_NS, ns_to_seconds
from reports import columns
from sim.result import Bar, MemoryCurve, RankLoads, Result, StageLoad, Utilisation
from sim.result.trace import LANES, PHASES, Trace

RANKS = 16
MICRO_BATCHES = 120
LAYERS = 4
COMPUTE, COMMUNICATION, WEIGHT, NETWORK, HOST = range(len(LANES))
FORWARD, BACKWARD_INPUT, BACKWARD, WGRAD, OVERLAPPED, OPTIMIZER = range(len(PHASES))
LABELS = (
    "F", "B", "BW", "W", "F+BW", "optimizer", "attn(F)", "mlp(F)", "attn(B)", "mlp(B)", "attn(W)", "mlp(W)",
    "dispatch(F)", "combine(F)", "dispatch(B)", "combine(B)", "send", "adamw", "ema to host", "q_a", "kv_b",
    "flash_attention", "rmsnorm", "cast", "routed_gate_up", "swiglu", "permute",
)  # fmt: skip
PRICES = ("measured: h800/gemm", "interpolated: h800/gemm", "roofline", "published: deepep", "assumed: launch gap")
RUNGS = tuple(price.split(":")[0] for price in PRICES)
SOURCES = {
    PRICES[0]: "The table h800/gemm.json holds this shape: median of 4 launches, spread 3 %.",
    PRICES[1]: "Wave model between two measured shapes of h800/gemm.json, rms error 3.2 %.",
    PRICES[2]: "Bytes over the memory bandwidth that copies reach; no measurement <of this op> & kind.",
    PRICES[3]: "Dispatch and combine bandwidth at expert parallel 64, as published by DeepEP.",
    PRICES[4]: "2 us a kernel boundary.",
}


class Rows:
    """Rows of a trace while it is put together."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []

    def add(self, rank: int, lane: int, phase: int, start: int, end: int, label: str, **more: int) -> None:
        rest = (more.get(k, -1) for k in ("stage", "micro_batch", "stage_b", "micro_batch_b", "layer", "price", "sms"))
        self.rows.append((rank, lane, phase, start, end, LABELS.index(label), *rest))

    def trace(self) -> Trace:
        table = np.array(self.rows, dtype=np.int64).reshape(-1, len(Trace.COLUMNS))
        return Trace(*table.T.copy(), labels=LABELS, prices=PRICES, rungs=RUNGS)


CHUNK_NS = {"F": 38 * MS_NS, "B": 61 * MS_NS, "BW": 92 * MS_NS, "W": 31 * MS_NS, "F+BW": 129 * MS_NS}
CHUNK_PHASE = {"F": FORWARD, "B": BACKWARD_INPUT, "BW": BACKWARD, "W": WGRAD, "F+BW": OVERLAPPED}
OPTIMIZER_NS = 210 * MS_NS
PAIR_SPANS = (
    ("attn(F)", COMPUTE, 0, 44), ("mlp(B)", COMPUTE, 44, 54), ("mlp(W)", COMPUTE, 98, 52), ("mlp(W)", WEIGHT, 110, 35),
    ("mlp(F)", COMPUTE, 150, 45), ("attn(B)", COMPUTE, 195, 94), ("attn(W)", COMPUTE, 289, 24),
    ("combine(B)", COMMUNICATION, 0, 40), ("dispatch(F)", COMMUNICATION, 46, 48),
    ("dispatch(B)", COMMUNICATION, 100, 80), ("combine(F)", COMMUNICATION, 198, 80), ("send", NETWORK, 280, 8),
)  # fmt: skip
PART_OF = {"F": "(F)", "B": "(B)", "BW": "(B)", "W": "(W)"}


def _sequence(rank: int) -> list[tuple[str, int]]:
    """(kind, idle before in ns) of one rank, in order."""
    depth = min(rank, RANKS - 1 - rank)
    warm = 2 * (RANKS // 2 - depth)
    pairs = MICRO_BATCHES - 2 * warm
    kinds = ["F"] * warm + ["W", "F"] * (warm // 2) + ["F+BW"] * pairs + ["BW"] * (warm // 2) + ["B", "W"] * warm
    return [(kind, depth * CHUNK_NS["F"] if i == 0 else (i % 37 == 0) * 4 * MS_NS) for i, kind in enumerate(kinds)]


def _spans(rows: Rows, kind: str, rank: int, start: int, more: dict[str, int]) -> None:
    """The layer spans of one chunk that starts at `start`."""
    scale = CHUNK_NS[kind] // LAYERS // 313
    for layer in range(LAYERS):
        base = start + layer * (CHUNK_NS[kind] // LAYERS) + rank * 7
        for n, (label, lane, at, length) in enumerate(PAIR_SPANS):
            if kind != "F+BW" and not label.endswith(PART_OF[kind]):
                continue
            where = {"layer": layer, "price": n % len(PRICES), "sms": 20 if lane == COMMUNICATION else 112}
            rows.add(rank, lane, CHUNK_PHASE[kind], base + at * scale, base + (at + length) * scale, label,
                     **(more | where))  # fmt: skip


def unpack(packed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The columns that `pack` was given, as float64 and int32."""
    raw = zlib.decompress(base64.b64decode(packed["data"]))
    return {n: np.frombuffer(raw, columns.TYPES[t], packed["rows"], first) for n, t, first in packed["columns"]}


@cache
def traces() -> tuple[Trace, Trace]:
    """(steps, spans) of all ranks."""
    steps, spans = Rows(), Rows()
    ends = []
    for rank in range(RANKS):
        now = 0
        for n, (kind, idle) in enumerate(_sequence(rank)):
            now += idle
            pair = {"stage_b": RANKS - 1 - rank, "micro_batch_b": n // 2} if kind == "F+BW" else {}
            more = {"stage": rank, "micro_batch": n % MICRO_BATCHES} | pair
            steps.add(rank, COMPUTE, CHUNK_PHASE[kind], now, now + CHUNK_NS[kind], kind, price=n % 3, **more)
            _spans(spans, kind, rank, now, more)
            now += CHUNK_NS[kind]
        ends.append(now)
    for rank in range(RANKS):
        start, end = max(ends), max(ends) + OPTIMIZER_NS
        steps.add(rank, COMPUTE, OPTIMIZER, start, end, "optimizer", price=2)
        spans.add(rank, COMPUTE, OPTIMIZER, start, end, "adamw", price=2, sms=132)
        spans.add(rank, HOST, OPTIMIZER, start + MS_NS, end + MS_NS // 2, "ema to host", price=4)
    return steps.trace(), spans.trace()


def pair() -> Trace:
    """Ops of one overlapped pair: each of the blocks of PAIR_SPANS cut into kernels."""
    rows, names = Rows(), ("q_a", "kv_b", "flash_attention", "rmsnorm", "cast", "routed_gate_up", "swiglu", "permute")
    for layer in range(LAYERS):
        for label, lane, at, length in PAIR_SPANS:
            cuts = 1 if lane in (COMMUNICATION, NETWORK) else 12
            step = length * 100 * US_NS // cuts
            phase = {"(F)": FORWARD, "(B)": BACKWARD_INPUT, "(W)": WGRAD}.get(label[-3:], FORWARD)
            for n in range(cuts):
                start = (layer * 313 + at) * 100 * US_NS + n * step
                name = label if cuts == 1 else names[n % len(names)]
                rows.add(0, lane, phase, start, start + step - 2 * US_NS, name, layer=layer + 3, price=n % 4,
                         sms=20 if cuts == 1 else 112, stage=7, micro_batch=20)  # fmt: skip
    return rows.trace()


def memory() -> tuple[MemoryCurve, ...]:
    """A curve per rank that rises, stays and falls."""
    times = np.linspace(0, int(traces()[0].end.max()), 400).astype(np.int64)
    shape = np.minimum(1, np.minimum(np.arange(400) / 40, (399 - np.arange(400)) / 40))
    curves = []
    for rank in range(RANKS):
        flat = {"weights": 18 + rank % 3, "gradients": 12, "optimizer states": 5, "communication buffers": 2}
        parts = {name: np.full(400, value * GB, dtype=np.int64) for name, value in flat.items()}
        parts["activations"] = ((30 - rank) * GB * shape).astype(np.int64)
        curves.append(MemoryCurve(rank, times, parts, 80 * GB))
    return tuple(curves)


def links() -> tuple[Utilisation, dict[str, Any]]:
    """Sixteen NICs that send, sixteen that receive, and two links up of which one is asked for too much at the end."""
    bins, nics, spines = 100, 16, 2
    edges = np.linspace(0, int(traces()[0].end.max()), bins + 1).astype(np.int64)
    expert, data = np.full(bins, 0.4), np.where(np.arange(bins) < 90, 0.0, 0.3)
    mean = np.stack([np.stack([share * expert, 0.05 + 0 * expert, data]) for share in (1.0, 1.0, 0.0, 0.0)])
    mean[3] = 0.0  # a class with no link in use
    busiest = mean.sum(axis=1) * 1.25
    busiest[2, -1] = 1.5
    of = np.repeat([0, 1, 2], [nics, nics, spines])
    names = ([(f"node{n}.nic0", "plane0.leaf0") for n in range(nics)] + [("plane0.leaf0", f"node{n}.nic0")
             for n in range(nics)] + [("plane0.leaf0", f"plane0.spine<{s}>") for s in range(spines)])  # fmt: skip
    size = np.where(of[:, None] < 2, [8e9, 1e9, 1e9], [0.0, 1e9, 3e9]) * (1 + (np.arange(len(of)) == 3))[:, None]
    average = np.where(of < 2, 0.45, 0.08) * (1 + (np.arange(len(of)) == 3))
    peak = np.where(np.arange(len(of)) == len(of) - 1, 1.5, 0.95)
    names_of = ("NIC out", "NIC in", "leaf up", "spine down")
    use = Utilisation(edges, names_of, ("expert", "pipeline", "data"), mean, busiest, (), tuple(names), of, size,
                      average, peak)  # fmt: skip
    classes = {
        name: {"links": int((of == n).sum()), "mean": float(average[of == n].mean()),
               "busiest_average": float(average[of == n].max()), "busiest_peak": float(peak[of == n].max())}
        for n, name in enumerate(names_of[:3])
    }  # fmt: skip
    return use, {"fabric": "a <fabric> & more", "placement": "packed", "routing": "adaptive", "blocking_priced": False,
                 "bin_s": 0.05, "evenly_spread": [], "classes": classes}  # fmt: skip


def loads() -> tuple[RankLoads, dict[str, Any]]:
    """Layers 3 to 6 at positions 0 and 1 of 2, three layers and one; groups of 4 ranks on nodes of 2, two a layer."""
    layer, replica = (grid.ravel() for grid in np.mgrid[3:7, 0:8])
    position = layer // 6
    rows = 4096 + 128 * (replica % 4 + layer - 3)
    spread = np.stack([rows + 0.25, rows - 128, rows + 256], axis=1).astype(float)
    table = RankLoads(layer, position * 8 + replica, position, np.full(32, 5), spread / 2, spread, np.full(32, 1.96),
                      2 + layer / 8, 4, 2, 4480)  # fmt: skip
    return table, {
        "kind": "sampled <&>", "layers": [3, 4, 5, 6], "nodes_per_token_expected": [1.96] * 4,
        "ranks_per_token": [2.375, 2.5, 2.625, 2.75],
        "max_vio": {"of": "experts", "by_layer": [0.1, 0.2, 0.6, 0.3], "mean": 0.3, "worst": 0.6, "worst_layer": 5},
        "rank_imbalance": {"received": {"of": "ranks", "mean": 0.07, "worst": 0.09, "worst_layer": 4}},
        "rows_percentiles": {str(p): 4000 + p for p in (1, 5, 25, 50, 75, 95, 99)},
    }  # fmt: skip


def _phases(steps: Trace, total_s: float) -> dict[str, Any]:
    """Seconds of each phase by rank."""
    names = ("forward", ("backward_input", "backward"), "weight", "overlapped", "optimizer")
    table: dict[str, list[float]] = {}
    for name in names:
        group = (name,) if isinstance(name, str) else name
        ids = [PHASES.index(n) for n in group]
        keep = np.isin(steps.phase, ids)
        time = np.bincount(steps.position[keep], (steps.end - steps.start)[keep], RANKS)
        table["backward" if "backward" in group else group[0]] = [ns_to_seconds(t) for t in time]
    table["bubble"] = [total_s - sum(column[r] for column in table.values()) for r in range(RANKS)]
    return table


def result() -> Result:
    """The whole sample."""
    steps, spans = traces()
    total_s = ns_to_seconds(int(steps.end.max()))
    per_rank = _phases(steps, total_s)
    bars = [("ideal compute", 0.42), ("kernel inefficiency", 0.31), ("exposed communication", 0.04),
            ("bubble: fill and drain", 0.13), ("bubble: uneven stages", 0.07), ("optimizer", 0.03)]  # fmt: skip
    curves = memory()
    (use, counts), (drawn, routing) = links(), loads()
    summary: dict[str, Any] = {
        "schema_version": 1, "scenario": "sample <step> & friends", "scenario_hash": "ab" * 16, "step_time_s": total_s,
        "tokens_per_day": 15360 * 4096 * 86400 / total_s, "gpu_hours_per_trillion_tokens": 181234.5,
        "tflops_per_gpu": {"causal": 391.2, "non_causal": 441.9}, "mfu": {"causal": 0.395, "non_causal": 0.447},
        "mfu_peak": {"precision": "bf16", "tflops": 989.0}, "price_grade": "measured", "price_warning": None,
        "phases_s": {name: float(np.mean(v)) for name, v in per_rank.items()}, "phases_per_rank": per_rank,
        "bubble_fraction": float(np.mean(per_rank["bubble"])) / total_s, "exposed_communication_s": 0.321,
        "overlap_fraction": 0.957, "events": len(spans), "links": counts, "routing": routing,
        "feasible": True, "infeasible": [],
        "peak_memory_bytes": [curve.peak_bytes for curve in curves],
        "price_shares": {"measured": 0.61, "interpolated": 0.22, "roofline": 0.12, "assumed": 0.05},
        "communication": [
            {"name": "dispatch(F)", "where": "a MoE layer", "alone_s": 2.8e-3, "shared_s": 2.9e-3,
             "beside_s": 4.3e-3, "bound_s": 2.5e-3, "logical_bytes": 120e6, "wire_bytes": 105e6,
             "nvlink_bytes": 200e6, "limited_by": "<receive>"},
            {"name": "pipeline message", "where": "position 1 to 2", "alone_s": 1.5e-3, "bound_s": 1.5e-3,
             "logical_bytes": 58e6, "wire_bytes": 58e6, "nvlink_bytes": 0.0, "limited_by": "network"},
        ],
    }  # fmt: skip
    stages = tuple(
        StageLoad(s, s, f"MoE {4 * s}-{4 * s + 3}" if s else "embedding, dense 0-2, MoE 3", 4 - (s == 15),
                  11_000_000_000 + s, 0.038 + 0.001 * (s % 3), 0.061, 0.031 - 0.001 * (s == 15))
        for s in range(RANKS)
    )  # fmt: skip
    scenario = {"name": summary["scenario"], "cluster": {"node": {"device": {"name": "h800", "sms": 132}, "gpus": 8},
                "nodes": 256}, "parallel": {"pipeline": RANKS}, "schedule": {"name": "dualpipe"}, "detail": "layer",
                "seed": 0}  # fmt: skip
    return Result(
        summary=summary, scenario=scenario, steps=steps, spans=spans, pair=pair(),
        pair_name="forward of stage 7 with backward of stage 8", price_sources=SOURCES, memory=curves,
        waterfall=tuple(Bar(n, share * total_s, f"{n}: what it is, in a sentence.") for n, share in bars),
        stages=stages, links=use, loads=drawn,
    )  # fmt: skip


def differing() -> Result:
    """The same with a slow rank at position 8, and replica 3 of 128 drawn."""
    full = result()
    slow = {"rank": 1024, "pipeline_position": 8, "replica": 0, "node": 128, "seconds": full.summary["step_time_s"] / 2}
    named = [slow | {"beyond_s": 1.1, "part": 0.9}]
    pair = {"name": full.pair_name, "position": 8, "seconds": 0.131, "min": 0.129, "max": 0.133, "steps": 52,
            "balanced_seconds": 0.1285}  # fmt: skip
    return replace(full, summary=full.summary | {"critical_ranks": named, "shown_replica": 3, "pair_s": pair})


def chunk_times() -> Result:
    """The same without what a scenario with chunk times cannot have."""
    full = result()
    summary = {k: v for k, v in full.summary.items() if k not in ("peak_memory_bytes", "price_shares", "mfu",
               "mfu_peak", "price_grade",
               "tflops_per_gpu", "gpu_hours_per_trillion_tokens", "tokens_per_day", "phases_per_rank",
               "links", "routing", "communication")}  # fmt: skip
    return Result(summary, {"name": "zb"}, full.steps, full.spans, None, "", {}, (), (), ())
