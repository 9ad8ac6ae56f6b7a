"""Calibration tables for the H800 from an analysis of DeepSeek's published profile.

Input: the analysis' op list (`h800_dualpipe_trace_ops.csv`: one row a kernel with its time in each of four layers and
how much of it ran beside a communication kernel) and summary (`h800_dualpipe_trace.json`). Output: the JSON tables in
`hwmodels/tables/h800`. Every kernel of the profile is joined by name and order to the kernel that `sim.models.deepseek`
lowers for the same layer, so its shape, bytes and FLOPs come from the model and only its time from the profile.

Only single kernels are fitted here: nothing about the pair, the step or memory is read.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory, Op
from hwmodels.price import contention_family, waves
from hwmodels.units import GIGA, MICRO, TERA
from numerics import provenance
from numerics.fits import fixed_effects, relative_least_squares
from sim.models import deepseek
from sim.models.layer import Kernel, Site, Unit
from sim.models.shape import ModelShape
from sim.precision import RECIPES

SOURCE = "deepseek-ai/profile-data train.json @4496024 (H800 SXM, PyTorch profiler, EP64, 4096 tokens, rank 0 of 64)"
PROFILE_SMS = 112
"""Persistent GEMM CTAs in the profile (132 SMs less 20 for communication)."""
PROFILE_NIC_BYTES_PER_S = 40 * GIGA
"""Effective bandwidth of a 400 Gb/s NIC, "Insights into DeepSeek-V3" (arXiv 2505.09343) sec 4.3."""
REFERENCE = {"sms": 132, "hbm_bytes_per_s": 3.35 * TERA, "bf16_flops": 989 * TERA, "fp8_flops": 1979 * TERA}
"""What the times belong to: NVIDIA H800 SXM data sheet figures, dense."""
MEASURED = "2025-02-25"
"""Day of the profile by its own time stamps (record window 1740461679 s after 1970-01-01)."""
ENTRIES = ("numerics.calibrate:tables", "numerics.calibrate:write", "sim.models.shape:ModelShape")
"""The program behind the tables, for its digest; the dimensions are given to it, so their class is named here."""
COMMAND = (
    "python -m numerics calibrate --facts h800_dualpipe_trace_ops.csv h800_dualpipe_trace.json "
    "--model scenarios/models/deepseek_v3.yaml"
)
UNSAID = {"value": None, "reason": "the profiler's trace, the only source, does not say"}
LAYERS = 4
ALIASES = {"o_WT": "o_proj_WT", "shared_W2T": "shared_down_WT", "shared_W1T": "shared_gateup_WT"}
EXCHANGES = {
    "dispatchF=dispatch_fp8": "dispatch(F)", "combineB=dispatch_fp8_cached": "combine(B)",
    "combineF=combine_bf16": "combine(F)", "dispatchB=combine_bf16": "dispatch(B)",
}  # fmt: skip


class Sample(NamedTuple):
    """One kernel of the profile: what it is, and its time and share beside communication in each of four layers."""

    name: str
    ops: tuple[Op, ...]
    us: tuple[float, ...]
    beside: tuple[float, ...]


def tables(ops_csv: Path, summary_json: Path, shape: ModelShape) -> dict[str, dict[str, Any]]:
    """File stem -> table, from the two files of the analysis. Raises ValueError naming kernels that do not join."""
    summary = json.loads(summary_json.read_text())
    samples = list(_samples(ops_csv, summary["_meta"], shape))
    factors = _contention(samples)
    rows = list(_rows(samples, factors))
    origin = _provenance(ops_csv, summary, shape)
    head = {"device": "h800", "source": SOURCE, "sms": PROFILE_SMS, "reference": REFERENCE, "provenance": origin}
    gemms = [r for r in rows if r["op"] in ("gemm", "grouped")]
    return {
        "gemm": {**head, "fit": _gemm_fit(gemms, summary, samples, factors), "rows": gemms},
        "memory": {**head, "fit": memory_fit(rows), "rows": [r for r in rows if r["op"] == "memory"]},
        "attention": {**head, "rows": [r for r in rows if r["op"] == "attention"]},
        "exchange": {**head, "rows": list(_exchanges(samples))},
        "contention": {**head, "launch_gap_us": summary["overlap"]["launch_gap_mean"], "rows": factors},
    }


def _provenance(ops_csv: Path, summary: dict[str, Any], shape: ModelShape) -> dict[str, Any]:
    """What a table says of its making; of the summary only the parts that are read count."""
    used = {k: summary[k] for k in ("_meta", "wgrad_groups")} | {"launch_gap": summary["overlap"]["launch_gap_mean"]}
    return {
        "device": "NVIDIA H800 SXM, 132 SMs", "driver": UNSAID, "clocks": UNSAID, "versions": UNSAID,
        "version": "deepseek-ai/profile-data 4496024", "measured": MEASURED, "command": COMMAND,
        "repetitions": f"each kernel once in each of {LAYERS} layers; a row's samples say how many it has",
        "quantiles": "us is the median of the samples, low_us and high_us the least and the largest, as if run alone",
        "inputs": {
            "h800_dualpipe_trace_ops.csv": provenance.digest(ops_csv.read_bytes()),
            "h800_dualpipe_trace.json (_meta, wgrad_groups, launch_gap_mean)": provenance.content(used),
            f"dimensions of {shape.name}": provenance.content(asdict(shape)),
        },
        "program": {"entries": ENTRIES, "files": provenance.program(ENTRIES)},
    }  # fmt: skip


# --- joining profile and model ----------------------------------------------------------------------------------------


def site(shape: ModelShape, received: int, rows: int) -> Site:
    """The profile's site: one sequence of 4096 tokens, 64 ranks on 8 nodes, 4 experts a rank."""
    nodes, ranks = 3.964, 7.488  # distinct ones a token reaches, h800_dualpipe_trace.json comm
    return Site(shape, RECIPES["fp8"], 1, 4096, received, rows, nodes, ranks, shape.experts // 64, 64, 8)


def _samples(path: Path, meta: dict[str, Any], shape: ModelShape) -> Iterator[Sample]:
    by_phase: dict[str, list[dict[str, str]]] = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            by_phase[row["phase"]].append(row)
    received, padded = meta["received_tokens"], meta["padded_routed_rows"]
    sites = {
        d: [site(shape, received[f"{d}{i}"], padded[f"{d}{i}"]) for i in range(LAYERS)] for d in "FB"
    }
    for phase, rows in by_phase.items():
        direction = phase[-2]
        lowered = [_kernels(s, phase, direction) for s in sites["F" if direction == "F" else "B"]]
        yield from _join(phase, _merge_routing(rows), lowered)


def _kernels(s: Site, phase: str, direction: str) -> list[Kernel]:
    for part in deepseek.parts(s, Unit("moe", 3), direction):
        if part.name == phase:
            return list(part.kernels)
    raise ValueError(f"the model has no part {phase!r}")


def _merge_routing(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The gate's tiny kernels as one row: times add up."""
    out: list[dict[str, Any]] = []
    for row in rows:
        name = EXCHANGES.get(row["op"], ALIASES.get(row["op"], row["op"]))
        if row["class"] == "comm_sync" and name != "dispatch_layout":
            continue  # barriers wait for peers; they are not work
        us = [float(row[f"L{i}"]) for i in range(LAYERS)]
        beside = [float(row[f"f_data_L{i}"]) for i in range(LAYERS)]
        if row["class"] == "routing":
            name = name.rsplit("_", 1)[0]
            if out and out[-1]["name"] == name:
                out[-1]["us"] = [a + b for a, b in zip(out[-1]["us"], us, strict=True)]
                continue
        out.append({"name": name, "us": us, "beside": beside})
    return out


def _join(phase: str, rows: list[dict[str, Any]], lowered: list[list[Kernel]]) -> Iterator[Sample]:
    waiting: dict[str, list[int]] = defaultdict(list)
    for i, kernel in enumerate(lowered[0]):
        waiting[kernel.name].append(i)
    for row in rows:
        if not waiting[row["name"]]:
            raise ValueError(f"{phase}: the profile runs {row['name']!r}, the model does not")
        i = waiting[row["name"]].pop(0)
        ops = tuple(kernels[i].op for kernels in lowered)
        yield Sample(row["name"], ops, tuple(row["us"]), tuple(row["beside"]))
    left = [name for name, rest in waiting.items() if rest]
    if left:
        raise ValueError(f"{phase}: the model runs {', '.join(left)}, the profile does not")


# --- contention -------------------------------------------------------------------------------------------------------


def _contention(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Slow-down beside a communication kernel, by class, from four repeats of each operation (fixed effects).

    A second effect, whether the layer is the first, takes up the drift of clocks through the profile.
    """
    times: dict[str, list[Any]] = defaultdict(list)
    effects: dict[str, list[Any]] = defaultdict(list)
    for s in samples:
        family = contention_family(s.ops[0], float(np.median(s.us)))
        shared = "_wgrad_e" in s.name or s.name in ("cast_dY_for_dispatch", "dispatch_layout")  # two at once on the SMs
        if family in ("exchange", "attention") or shared or min(s.us) <= 0:
            continue
        size = np.array([max(op.bytes(), 1.0) for op in s.ops])
        times[family].append(np.array(s.us) / size)
        effects[family].append(np.stack([np.array(s.beside), np.arange(LAYERS) > 0], 1))
    out = []
    for family in sorted(times):
        effect, error = fixed_effects(np.array(times[family]), np.array(effects[family], dtype=float))
        row = {"factor": _round(effect[0]), "error": _round(error[0]), "kernels": len(times[family])}
        out.append({"class": family, **row})
    # beside communication in every repeat: its slow-down is inside its time and cannot be told apart
    out.append({"class": "attention", "factor": 1.0, "error": 0.0, "kernels": 0, "kind": "assumed"})
    return out


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(samples: Iterable[Sample], factors: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for each distinct operation, its time alone: the median over repeats of time / slow-down."""
    factor = {f["class"]: f["factor"] for f in factors}
    found: dict[Op, list[tuple[float, str]]] = defaultdict(list)
    for s in samples:
        if isinstance(s.ops[0], AllToAll) or "_wgrad_e" in s.name or s.name == "cast_dY_for_dispatch":
            continue
        family = contention_family(s.ops[0], float(np.median(s.us)))
        for op, us, beside in zip(s.ops, s.us, s.beside, strict=True):
            found[op].append((us / (1 + (factor[family] - 1) * beside), s.name))
    for op, hits in found.items():
        name = {Gemm: "gemm", GroupedGemm: "grouped", Attention: "attention", Memory: "memory"}[type(op)]
        times = [us for us, _ in hits]
        yield {
            "op": name, **op._asdict(), "us": _round(float(np.median(times))), "samples": len(times),
            "low_us": _round(min(times)), "high_us": _round(max(times)), "names": sorted({n for _, n in hits}),
        }  # fmt: skip


def _gemm_fit(
    rows: list[dict[str, Any]], summary: dict[str, Any], samples: Iterable[Sample], factors: list[dict[str, Any]]
) -> dict[str, Any]:
    """Time = waves x (a + b x K blocks), for products that write BF16 and for those that accumulate into FP32."""
    forward = [(r["m"] if r["op"] == "gemm" else r["rows"], r["n"], r["k"], r["us"]) for r in rows if _is_fp8(r, False)]
    weight = [(r["m"], r["n"], r["k"], r["us"]) for r in rows if _is_fp8(r, True)]
    spans: list[dict[str, Any]] = []
    slower = next(f["factor"] for f in factors if f["class"] == "wgrad") - 1
    for name, group in summary["wgrad_groups"].items():
        turns = [s for s in samples if s.name.startswith(f"{name}_e")]
        gemms = [op for op in turns[0].ops if isinstance(op, Gemm)]
        # the experts' GEMMs overlap on two streams: the span over their number is one's turn on the SMs
        beside = float(np.mean([s.beside for s in turns]))
        turn = group["median"] / len(turns) / (1 + slower * beside)
        weight.append((gemms[0].m, gemms[0].n, float(np.mean([g.k for g in gemms])), turn))
        spans.append({"name": name, "experts": len(turns), "span_us": group["median"], "beside": _round(beside)})
        spans[-1] |= dict(zip("mnk", weight[-1], strict=False)) | {"turn_us": _round(turn)}
    return {"fprop": wave_fit(forward), "wgrad": {**wave_fit(weight), "expert_turns": spans}}


def _is_fp8(row: dict[str, Any], wgrad: bool) -> bool:
    return row["precision"] == "fp8" and (row["role"] == "wgrad") == wgrad


def wave_fit(shapes: list[tuple[float, float, float, float]]) -> dict[str, Any]:
    terms = [[w := waves(m, n, PROFILE_SMS), w * -(-k // 128)] for m, n, k, _ in shapes]
    (a, b), rms = relative_least_squares(np.array(terms, dtype=float), np.array([s[3] for s in shapes]))
    return {"a_us": _round(a), "b_us": _round(b), "rms": _round(rms), "shapes": len(shapes)}


def memory_fit(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Time = fixed + bytes / rate, for each kind of memory-bound kernel."""
    kinds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for r in rows:
        if r["op"] == "memory":
            kinds[r["kind"]].append((r["rows"] * (r["read"] + r["write"]), r["us"]))
    out = {}
    for kind, points in sorted(kinds.items()):
        size, us = np.array(points).T
        (fixed, slope), rms = relative_least_squares(np.stack([np.ones(len(us)), size], 1), us)
        if slope and 1 / (slope * MICRO) > REFERENCE["hbm_bytes_per_s"]:  # nothing streams faster than HBM
            (slope,), rms = relative_least_squares(size[:, None], us)
            fixed = 0.0
        rate = 1 / (slope * MICRO) if slope else 0.0
        out[kind] = {
            "fixed_us": _round(fixed), "bytes_per_s": _round(rate), "rms": _round(rms), "points": len(us),
            "low_bytes": _round(float(size.min())), "high_bytes": _round(float(size.max())),
        }  # fmt: skip
    return out


def _exchanges(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
    """In-situ times of the four exchanges, and how much longer than the NIC needs alone (peers and contention)."""
    for s in samples:
        op = s.ops[0]
        if isinstance(op, AllToAll):
            us = float(np.median(s.us))
            alone = op.wire_bytes() / PROFILE_NIC_BYTES_PER_S / MICRO
            yield {
                "beside": op.beside, "direction": op.direction, "us": us, "samples": len(s.us), "low_us": min(s.us),
                "high_us": max(s.us), "wire_bytes": round(op.wire_bytes()), "nvlink_bytes": round(op.nvlink_bytes()),
                "alone_us": _round(alone), "stretch": _round(us / alone),
            }  # fmt: skip


def _round(value: float) -> float:
    """Four significant digits: more than microsecond time stamps hold."""
    return float(f"{value:.4g}") if abs(value) > MICRO else 0.0


def write(found: dict[str, dict[str, Any]], folder: Path) -> None:
    """One JSON file a table, a row a line, so that a change reads as a diff."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in found.items():
        rows = ",\n  ".join(json.dumps(row, sort_keys=True) for row in table["rows"])
        head = json.dumps({k: v for k, v in table.items() if k != "rows"}, indent=1, sort_keys=True)
        text = f'{head[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'
        json.loads(text)
        (folder / f"{name}.json").write_text(text)


