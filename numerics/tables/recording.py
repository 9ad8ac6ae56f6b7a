"""Calibration from a recorded trace: which rules fit it, which device it ran on, what was not understood of it.

`calibrated` reads a trace once and gives its tables with their provenance; `calibrate` makes the tables.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwmodels.document import read
from hwmodels.units import NS_PER_S, TERA
from numerics.tables import cards, provenance
from numerics.tables.calibrate import Table, tables, unmodelled
from numerics.traces.importer import Analysis, analyse, shown, unknown
from numerics.traces.rules import FOLDER, load, shipped
from numerics.traces.samples import has_layers
from numerics.traces.summary import overlap
from numerics.traces.trace import Trace, read_trace
from sim.models.deepseek.shape import DeepSeekShape

ENTRIES = (
    "numerics.traces.trace:read_trace", "numerics.traces.rules:Rules", "numerics.traces.importer:analyse",
    "numerics.tables.calibrate:tables", "numerics.tables.calibrate:write", "sim.models.deepseek.shape:DeepSeekShape",
)  # fmt: skip
"""The program behind the tables, for its digest; the dimensions are given to it, so their class is named here."""
PUBLISHED = {
    "a203d5f713f0f8c1d0291a2c22cede18": (
        "deepseek-ai/profile-data train.json @4496024 (H800 SXM, PyTorch profiler, EP64, 4096 tokens, rank 0 of 64)"
    )
}  # fmt: skip
"""Digest of a trace -> where it was published; any other trace is called by its name."""
SILENT = {"value": None, "reason": "the profiler's trace, the only source, does not say"}
VERSIONS = ("cuda_runtime_version", "cuda_driver_version", "cupti_version")
"""What torch.profiler says of its surroundings beside the events, in newer versions."""
EPOCH_YEAR = 2016
"""PyTorch's first year: a time stamp before it counts from the machine's start and is no date."""


class Recording(NamedTuple):
    """A calibration from a trace. device: name in hwmodels/devices, or "" when it is none of them.

    whole: whether the tables hold a model's layers and can price; else products and classes only.
    """

    analysis: Analysis
    device: str
    whole: bool
    tables: dict[str, Table]


def calibrated(
    path: Path, rules: Path | None, model: Path, watch: Callable[[float], object] = lambda share: None
) -> Recording:
    """Tables from the trace in `path`, by `rules` (None: the shipped ones that know most of it), shapes from `model`.

    watch: told the share of the file that was read.

    Raises TraceError, DocumentError (rules or model), JoinError (the model runs other kernels) and UnknownCardError
    (a model's layers on a GPU that hwmodels does not know).
    """
    shape = shape_of(model)
    trace = read_trace(path, watch)
    which = rules or Path(best(trace))
    analysis = analyse(trace, load(str(which)))
    whole = has_layers(analysis)
    name = cards.device_of(analysis.device) if whole else cards.NAMES.get(analysis.device, "")
    digest = provenance.digest_of(path)
    head = _head(path.name, digest, analysis, name)
    head |= {"provenance": _origin(path.name, digest, trace, analysis, which, model, shape)}
    return Recording(analysis, name, whole, tables(analysis, shape, head) if whole else unmodelled(analysis, head))


def shape_of(model: Path) -> DeepSeekShape:
    """The dimensions in a model's YAML. Raises DocumentError, or ValueError for a document that is no model."""
    content = read(model).content
    fields = DeepSeekShape.__dataclass_fields__
    if not isinstance(content, dict):
        raise ValueError(f"{model}: a mapping of {', '.join(fields)} is needed")
    odd = [k for k in content if k not in fields]
    odd += [f"{k} (missing)" for k, f in fields.items() if k not in content and f.default is MISSING]
    odd += [k for k, f in fields.items() if k in content and not isinstance(content[k], _kind(f.type))]
    if odd:
        raise ValueError(f"{model}: not the dimensions of a model: {', '.join(map(str, odd))}")
    return DeepSeekShape(**content)


def _kind(name: Any) -> Any:
    return {int: int, float: int | float, str: str}[name]


def best(trace: Trace) -> str:
    """The shipped rules that find most phases in a trace and know most names of its work; the plainest of equals."""
    table = trace.device if trace.kernels else trace.host
    names = [trace.texts[i] for i in np.unique(table["name"])]

    def fitness(which: str) -> tuple[int, int, int]:
        rules = load(which)
        phases = sum(text in rules.sequences for text in trace.texts)
        return phases, sum(rules.classify(name).known for name in names), -len(rules.rules)

    return max(shipped(), key=fitness)


def report(recording: Recording, most: int = 20) -> Iterator[str]:
    """Lines: what was understood, and what was not with its share of kernel time, the `most` largest."""
    a = recording.analysis
    strange = unknown(a)
    share = sum(u.share for u in strange)
    left = "all understood" if not strange else f"not understood: {share:.2%} of kernel time"
    device = shown(a.device) or "an unnamed device"
    yield f"{a.source}: {a.kernels} pieces of work on {device}, rules {a.rules.name}; {left}"
    yield from (f"  {u}" for u in strange[:most])
    if len(strange) > most:
        yield f"  and {len(strange) - most} more, {sum(u.share for u in strange[most:]):.2%} of kernel time"
    if not recording.whole:
        yield from _measured(recording)
        yield "no phases of a model's layer: products with known sides and classes only, which price nothing alone"


def _measured(recording: Recording) -> Iterator[str]:
    """Lines: classes of kernels with their shares and quantiles, gaps, and how fast the products are."""
    for row in sorted(recording.tables["classes"]["rows"], key=lambda r: -r["us"]):
        quantiles = " / ".join(f"{row[f'p{q}_us']:.1f}" for q in (10, 50, 90))
        yield f"  {row['class']:15} {row['share']:6.1%}  {row['kernels']} times, 10/50/90 % in {quantiles} us"
    o = overlap(recording.analysis)
    moved, synced = o["comm_data"], o["comm_sync"]
    yield (
        f"  of {o['total']} us, compute was busy {o['compute_busy']}, communication {moved} (alone "
        f"{o['comm_data_exposed']}) and waiting for peers {synced}; idle {o['idle']}: {o['launch_gap_count']} launch "
        f"gaps of {o['launch_gap_mean']} us, longer waits: {len(o['big_gaps'])}, {o['big_gap_total']} us"
    )
    if recording.analysis.device == "CPU":
        yield "  no kernels in the trace: these are times of host operators; ProfilerActivity.CUDA records a GPU's"
    yield from _rates(recording)


def _rates(recording: Recording) -> Iterator[str]:
    """A line on the products' rates, and one when the device cannot be that fast: then sides or times are wrong."""
    products = recording.tables["gemm"]["rows"]
    rates = [(r["tflops"], r["precision"]) for r in products if "tflops" in r]
    if rates:
        yield f"  {len(rates)} products with known sides: {min(rates)[0]:g} to {max(rates)[0]:g} TFLOP/s"
    peaks = recording.tables["gemm"].get("reference", {})
    fast = [r for r, precision in rates if r * TERA > peaks.get(f"{precision}_flops", float("inf"))]
    if fast:
        yield f"  {len(fast)} of them above the peak of {recording.device}: the trace's sides or times cannot be right"


# --- what the tables say of themselves --------------------------------------------------------------------------------


def _head(file: str, digest: str, analysis: Analysis, name: str) -> dict[str, Any]:
    recorded = f"{file} ({analysis.device or 'unnamed device'}, PyTorch profiler)"
    source = PUBLISHED.get(digest, recorded)
    head = {"device": name or analysis.device, "source": source, "sms": analysis.sms.compute}
    return head | ({"reference": cards.reference(name)} if name else {})


def _origin(
    file: str, digest: str, trace: Trace, analysis: Analysis, rules: Path, model: Path, shape: DeepSeekShape
) -> dict[str, Any]:
    """What a table says of its making."""
    layers = max((len(op.us) for op in analysis.operations if op.position >= 0), default=0)
    entries = [*ENTRIES, *rule_files(rules)]
    given = "" if str(rules) in shipped() else f" --map {rules.name}"
    often = f"each kernel once in each of {layers} layers" if layers else "each kernel as often as the trace has it"
    return {
        "device": f"{analysis.device}, {analysis.sms.device} SMs", "driver": SILENT, "clocks": SILENT,
        "versions": {key: trace.head[key] for key in VERSIONS if key in trace.head} or SILENT,
        "version": f"trace {file}", "measured": day(trace),
        "command": f"python -m numerics calibrate --trace {file}{given} --model {_shown(model)}",
        "repetitions": f"{often}; a row's samples say how many it has",
        "quantiles": "us is the median of the samples, low_us and high_us the least and the largest"
        + (", as if run alone" if layers else ""),
        "inputs": {
            f"trace {file}": digest,
            f"dimensions of {shape.name}": provenance.content(asdict(shape)),
            f"rules {rules.name}": provenance.content(read(_file(rules)).content),
        },
        "program": {"entries": entries, "files": provenance.program(entries)},
    }  # fmt: skip


def _file(rules: Path) -> Path:
    return FOLDER / f"{rules}.yaml" if str(rules) in shipped() else rules


def rule_files(rules: Path) -> list[str]:
    """Shipped documents behind a rule file, itself included, as paths from the root of the project."""
    out = [] if str(rules) not in shipped() else [_file(rules).relative_to(provenance.ROOT).as_posix()]
    more = read(_file(rules)).content.get("extends")
    return out + (rule_files(Path(more)) if more else [])


def _shown(model: Path) -> str:
    """A path as the command says it: from the root of the project, or its name alone."""
    model = model.resolve()
    inside = model.is_relative_to(provenance.ROOT)
    return model.relative_to(provenance.ROOT).as_posix() if inside else model.name


def day(trace: Trace) -> str:
    """Day (UTC) on which a trace began by its own time stamps, or "unsaid"."""
    table = trace.device if trace.kernels else trace.host
    base = trace.head.get("baseTimeNanoseconds")
    first = int(table["start_ns"].min()) + (base if isinstance(base, int) else 0)
    try:
        began = datetime.fromtimestamp(first / NS_PER_S, UTC)
    except (ValueError, OverflowError, OSError):
        return "unsaid"
    return began.date().isoformat() if began.year >= EPOCH_YEAR else "unsaid"
