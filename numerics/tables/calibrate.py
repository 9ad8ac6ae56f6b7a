"""Calibration tables from the kernels of a trace: rows, fits, contention, exchanges; and how they are written.

Every kernel of the trace's layers is joined by name and order to the kernel that the simulator lowers for the same
layer (numerics.traces.samples), so its shape, bytes and FLOPs come from the model and only its time from the trace.
Only single kernels are fitted here: nothing about the pair, the step or memory is read. Traces come in through
`recording`, measurements on a card through numerics.card.campaign.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwmodels.beside import contention_family
from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory, Op
from hwmodels.price import waves
from hwmodels.refused import Refused
from hwmodels.units import GIGA, MICRO, TERA, US_NS
from numerics.fits import fixed_effects, relative_least_squares
from numerics.traces.importer import Analysis
from numerics.traces.samples import Sample, expert_turns, products, samples
from numerics.traces.summary import classes, idle, overlap, quantiles
from sim.models.shape import ModelShape

NIC_BYTES_PER_S = 40 * GIGA
"""Effective bandwidth of a 400 Gb/s NIC, "Insights into DeepSeek-V3" (arXiv 2505.09343) sec 4.3."""
NAMED = {Gemm: "gemm", GroupedGemm: "grouped", Attention: "attention", Memory: "memory"}
"""What a row calls an operation."""

ENOUGH_SHAPES = 6
"""BF16 products from which a wave model of their own is fitted; the H800 profile has three, all of the gate."""

Row = dict[str, Any]
Table = dict[str, Any]


def tables(analysis: Analysis, shape: ModelShape, head: Mapping[str, Any]) -> dict[str, Table]:
    """File stem -> table. head: what each says first (device, source, reference, provenance).

    Raises JoinError when the trace and the model run different kernels.
    """
    timed = samples(analysis, shape)
    factors = _contention(timed)
    rows = list(_rows(timed, factors))
    gemms = [r for r in rows if r["op"] in ("gemm", "grouped")]
    fit = _gemm_fit(gemms, analysis, timed, factors)
    sms = analysis.sms.compute
    exchanges = list(_exchanges(timed, analysis))
    return assembled({**head, "sms": sms}, rows, fit, exchanges, factors, launch_gap_us(analysis))


def assembled(
    head: Mapping[str, Any], rows: list[Row], gemm_fit: Mapping[str, Any], exchanges: list[Row], factors: list[Row],
    launch_gap_us: float,
) -> dict[str, Table]:  # fmt: skip
    """The five tables of a device from rows of any operation; see hwmodels.tables."""
    streamed = memory_fit(rows, head["reference"]["hbm_bytes_per_s"])
    return {
        "gemm": {**head, "fit": gemm_fit, "rows": [r for r in rows if r["op"] in ("gemm", "grouped")]},
        "memory": {**head, "fit": streamed, "rows": [r for r in rows if r["op"] == "memory"]},
        "attention": {**head, "rows": [r for r in rows if r["op"] == "attention"]},
        "exchange": {**head, "rows": exchanges},
        "contention": {**head, "launch_gap_us": launch_gap_us, "rows": factors},
    }


def unmodelled(analysis: Analysis, head: Mapping[str, Any]) -> dict[str, Table]:
    """Tables of a trace without a model's layers: products whose sides are known, classes with their shares, and each
    operation with its quantiles; overlap and gaps of each device in microseconds beside these."""
    times: dict[Op, list[float]] = defaultdict(list)
    names: dict[Op, set[str]] = defaultdict(set)
    for gemm, op in products(analysis):
        times[gemm] += op.us
        names[gemm].add(op.kernel)
    rows = [row(gemm, us, names[gemm]) | rate(gemm, us) for gemm, us in times.items()]
    shares = [{"class": kind} | figures for kind, figures in classes(analysis).items()]
    devices = [
        {"device": d.label, "name": d.name, "kernels": d.kernels} | overlap(d.overlap) | idle(d.overlap)
        for d in analysis.devices
    ]
    return {
        "gemm": {**head, "rows": rows}, "classes": {**head, "rows": shares},
        "operations": {**head, "overlap_us": devices, "rows": list(quantiles(analysis))},
    }  # fmt: skip


def rate(op: Op, us: Sequence[float]) -> Row:
    """TFLOP/s of a product."""
    if not isinstance(op, Gemm):
        return {}
    median = float(np.median(us))
    return {"tflops": rounded(op.flop() / (median * MICRO) / TERA)} if median > 0 else {}


def launch_gap_us(analysis: Analysis) -> float:
    """Mean idle time between two kernels; two decimals, since its standard error is about 0.02 us in the profile."""
    short = np.concatenate([device.overlap.launch_gaps() for device in analysis.devices])
    return round(float(short.mean()) / US_NS, 2) if len(short) else 0.0


# --- contention -------------------------------------------------------------------------------------------------------


def _contention(timed: list[Sample]) -> list[Row]:
    """Slow-down beside a communication kernel, by class, from the layers' repeats of each operation (fixed effects).

    A second effect, whether the layer is the first, takes up the drift of clocks through the profile.
    """
    times: dict[str, list[Any]] = defaultdict(list)
    effects: dict[str, list[Any]] = defaultdict(list)
    layers = max((len(s.us) for s in timed), default=0)
    for s in timed:
        family = contention_family(s.ops[0], float(np.median(s.us)))
        shared = "_wgrad_e" in s.name or s.name in ("cast_dY_for_dispatch", "dispatch_layout")  # two at once on the SMs
        if family in ("exchange", "attention") or shared or min(s.us) <= 0 or len(s.us) < max(2, layers):
            continue
        size = np.array([max(op.bytes(), 1.0) for op in s.ops])
        times[family].append(np.array(s.us) / size)
        effects[family].append(np.stack([np.array(s.beside), np.arange(len(s.us)) > 0], 1))
    out = []
    for family in sorted(times):
        effect, error = fixed_effects(np.array(times[family]), np.array(effects[family], dtype=float))
        figures = {"factor": rounded(effect[0]), "error": rounded(error[0]), "kernels": len(times[family])}
        out.append({"class": family, **figures})
    # beside communication in every repeat: its slow-down is inside its time and cannot be told apart
    out.append({"class": "attention", "factor": 1.0, "error": 0.0, "kernels": 0, "kind": "assumed"})
    return out


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(timed: Iterable[Sample], factors: list[Row]) -> Iterator[Row]:
    """One row for each distinct operation, its time alone: the median over repeats of time / slow-down."""
    factor = {f["class"]: f["factor"] for f in factors}
    times: dict[Op, list[float]] = defaultdict(list)
    names: dict[Op, set[str]] = defaultdict(set)
    for s in timed:
        if isinstance(s.ops[0], AllToAll) or "_wgrad_e" in s.name or s.name == "cast_dY_for_dispatch":
            continue
        slower = factor.get(contention_family(s.ops[0], float(np.median(s.us))), 1.0) - 1
        for op, us, beside in zip(s.ops, s.us, s.beside, strict=True):
            times[op].append(us / (1 + slower * beside))
            names[op].add(s.name)
    for op, us_alone in times.items():
        yield row(op, us_alone, names[op])


def row(op: Op, us: Sequence[float], names: Iterable[str]) -> Row:
    """A table's row: the operation, median, least and largest of its times in microseconds, and what it is called."""
    return {
        "op": NAMED[type(op)], **op._asdict(), "us": rounded(float(np.median(us))), "samples": len(us),
        "low_us": rounded(min(us)), "high_us": rounded(max(us)), "names": sorted(names),
    }  # fmt: skip


def _gemm_fit(rows: list[Row], analysis: Analysis, timed: list[Sample], factors: list[Row]) -> dict[str, Any]:
    """The wave model of products that write BF16 and of those that accumulate into FP32, experts' turns included."""
    slower = next((f["factor"] for f in factors if f["class"] == "wgrad"), 1.0) - 1
    spans: list[Row] = []
    for name, turns_ns in expert_turns(analysis).items():
        turns = [s for s in timed if s.name.startswith(f"{name}_e")]
        gemms = [op for op in turns[0].ops if isinstance(op, Gemm)]
        # the experts' GEMMs overlap on two streams: the span over their number is one's turn on the SMs
        beside = float(np.mean([s.beside for s in turns]))
        turn = float(np.median(turns_ns)) / US_NS / (1 + slower * beside)
        k = float(np.mean([g.k for g in gemms]))
        spans.append({
            "name": name, "experts": len(turns), "span_us": float(np.median(analysis.groups[name])) / US_NS,
            "beside": rounded(beside), "m": gemms[0].m, "n": gemms[0].n, "k": k, "turn_us": rounded(turn),
        })  # fmt: skip
    return wave_fits(rows, analysis.sms.compute, spans)


def wave_fits(rows: Iterable[Row], sms: int, turns: list[Row]) -> dict[str, Any]:
    """Role -> wave model of the products of some rows; turns: of the experts' weight gradients, as more points."""
    rows = list(rows)
    fp8 = [r for r in rows if r["precision"] == "fp8"]
    forward = [(r["rows"] if "rows" in r else r["m"], r["n"], r["k"], r["us"]) for r in fp8 if r["role"] != "wgrad"]
    weight = [(r["m"], r["n"], r["k"], r["us"]) for r in fp8 if r["role"] == "wgrad"]
    weight += [(t["m"], t["n"], t["k"], t["turn_us"]) for t in turns]
    bf16 = [(r["m"], r["n"], r["k"], r["us"]) for r in rows if r["precision"] == "bf16" and r["op"] == "gemm"]
    bf16 = [shape for shape in bf16 if waves(*shape[:2], 1) >= sms]  # for less than a wave a library takes other tiles
    models = {"fprop": wave_fit(forward, sms), "wgrad": {**wave_fit(weight, sms), "expert_turns": turns}}
    return models | ({"bf16": wave_fit(bf16, sms)} if len(bf16) >= ENOUGH_SHAPES else {})


def wave_fit(shapes: list[tuple[float, float, float, float]], sms: int) -> dict[str, Any]:
    """Time = waves x (a + b x K blocks) on `sms` SMs, from (m, n, k, microseconds)."""
    terms = [[w := waves(m, n, sms), w * -(-k // 128)] for m, n, k, _ in shapes]
    (a, b), rms = relative_least_squares(np.array(terms, dtype=float), np.array([s[3] for s in shapes]))
    return {"a_us": rounded(a), "b_us": rounded(b), "rms": rounded(rms), "shapes": len(shapes)}


def memory_fit(rows: Iterable[Row], hbm_bytes_per_s: float) -> dict[str, Any]:
    """Time = fixed + bytes / rate, for each kind of memory-bound kernel; nothing streams faster than HBM."""
    kinds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for r in rows:
        if r["op"] == "memory":
            kinds[r["kind"]].append((r["rows"] * (r["read"] + r["write"]), r["us"]))
    out = {}
    for kind, points in sorted(kinds.items()):
        size, us = np.array(points).T
        (fixed, slope), rms = relative_least_squares(np.stack([np.ones(len(us)), size], 1), us)
        if slope and 1 / (slope * MICRO) > hbm_bytes_per_s:
            (slope,), rms = relative_least_squares(size[:, None], us)
            fixed = 0.0
        rate = 1 / (slope * MICRO) if slope else 0.0
        out[kind] = {
            "fixed_us": rounded(fixed), "bytes_per_s": rounded(rate), "rms": rounded(rms), "points": len(us),
            "low_bytes": rounded(float(size.min())), "high_bytes": rounded(float(size.max())),
        }  # fmt: skip
    return out


def _exchanges(timed: Iterable[Sample], analysis: Analysis) -> Iterator[Row]:
    """In-situ times of the four exchanges, how much longer than the NIC needs alone (contention), and the mean time of
    the barrier before each, in which a rank mostly waits for its peers."""
    barriers = {op.op: op.us for op in analysis.operations if op.kind == "comm_sync"}
    for s in timed:
        op = s.ops[0]
        if isinstance(op, AllToAll):
            us = float(np.median(s.us))
            alone = op.wire_bytes() / NIC_BYTES_PER_S / MICRO
            yield {
                "beside": op.beside, "direction": op.direction, "us": us, "samples": len(s.us), "low_us": min(s.us),
                "high_us": max(s.us), "wire_bytes": round(op.wire_bytes()), "nvlink_bytes": round(op.nvlink_bytes()),
                "alone_us": rounded(alone), "stretch": rounded(us / alone),
            } | _wait(barriers.get(f"notify({re.sub('[()]', '', op.beside)})", ()))  # fmt: skip


def _wait(us: Sequence[float]) -> Row:
    """Of the barrier before an exchange, where the trace has one."""
    return {"wait_us": rounded(float(np.mean(us))), "waits_us": [rounded(each) for each in us]} if us else {}


def rounded(value: float) -> float:
    """Four significant digits: more than microsecond time stamps hold."""
    return float(f"{value:.4g}") if abs(value) > MICRO else 0.0


def write(by_name: Mapping[str, Table], folder: Path) -> None:
    """One JSON file a table, a row a line, so that a change reads as a diff. All of them or none: nothing half-written
    takes a table's name."""
    texts = {folder / f"{name}.json": _text(table) for name, table in by_name.items()}
    for path in texts:
        if path.exists() and not _ours(path):
            raise Refused("is no table of ours and would be replaced; choose another --out", str(path))
    folder.mkdir(parents=True, exist_ok=True)
    parts = {path: path.with_suffix(".part") for path in texts}
    try:
        for path, text in texts.items():
            parts[path].write_text(text, encoding="utf-8")
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _ours(path: Path) -> bool:
    """Whether a file is a table that this program wrote, or an older one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"provenance", "rows"} <= content.keys()


def _text(table: Table) -> str:
    rows = ",\n  ".join(json.dumps(row, sort_keys=True) for row in table["rows"])
    head = json.dumps({k: v for k, v in table.items() if k != "rows"}, indent=1, sort_keys=True)
    text = f'{head[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'
    json.loads(text)
    return text
