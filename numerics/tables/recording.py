"""Calibration from a recorded trace: which rules fit it, which device it ran on, what was not understood of it.

`calibrated` reads a trace once and gives its tables with their provenance; `calibrate` makes the tables.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwmodels.document import read
from hwmodels.op import Gemm
from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S, TERA, US_NS
from numerics.tables import cards, provenance, traced
from numerics.tables.calibrate import Table, rate, tables, unmodelled
from numerics.traces.hosts import Host, host
from numerics.traces.importer import Analysis, analyse
from numerics.traces.measures import Device
from numerics.traces.rules import FOLDER, load, shipped
from numerics.traces.samples import has_layers, products
from numerics.traces.summary import idle, overlap
from numerics.traces.trace import Trace, read_trace
from numerics.traces.unknowns import shares, shown, unknown
from numerics.traces.window import TraceError
from sim.models.deepseek.shape import DeepSeekShape

ENTRIES = (
    "numerics.traces.trace:read_trace", "numerics.traces.rules:Rules", "numerics.traces.importer:analyse",
    "numerics.tables.calibrate:tables", "numerics.tables.calibrate:write", "sim.models.deepseek.shape:DeepSeekShape",
)  # fmt: skip
"""The program behind the tables, for its digest; the dimensions are given to it, so their class is named here."""
TRACED = (*ENTRIES[:3], "numerics.tables.traced:tables_of", "numerics.traces.hosts:host", *ENTRIES[4:])
"""That behind tables of a trace without a model's layers."""
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

    whole: whether the tables hold a model's layers, as `hwmodels/tables` has them; else each kernel whose sizes the
    trace tells. host: what it took to launch them.
    """

    analysis: Analysis
    device: str
    whole: bool
    tables: dict[str, Table]
    host: Host

    @property
    def prices(self) -> bool:
        """Whether a scenario can be priced by the tables."""
        return self.whole or "host" in self.tables


def calibrated(
    path: Path, rules: Path | None, model: Path, watch: Callable[[float], object] = lambda share: None,
    device: str = "",
) -> Recording:  # fmt: skip
    """Tables from the trace in `path`, by `rules` (None: the shipped ones that know most of it), shapes from `model`.

    watch: told the share of the file that was read. device: only what ran on it ("": on all, if they are of one kind).

    Raises TraceError, DocumentError (rules or model), JoinError (the model runs other kernels) and UnknownCardError
    (a model's layers on a GPU that hwmodels does not know).
    """
    shape = shape_of(model)
    trace = read_trace(path, watch)
    trace = trace.of_device(device) if device else trace
    which = rules or Path(best(trace))
    analysis = analyse(trace, load(str(which)))
    whole = has_layers(analysis)
    _check_devices(analysis, whole)
    name = cards.device_of(analysis.device) if whole else cards.NAMES.get(analysis.device, "")
    digest = provenance.digest_of(path)
    head = _head(path.name, digest, analysis, name)
    origin = _origin(path.name, digest, trace, analysis, which, model, shape, ENTRIES if whole else TRACED)
    origin["command"] += f" --device {device}" if device else ""
    head |= {"provenance": origin}
    spent = host(trace)
    made = tables(analysis, shape, head) if whole else unmodelled(analysis, head)
    if name and not whole:
        own = traced.tables_of(analysis, spent, head)
        made |= own if any(table["rows"] for table in own.values()) else {}
    return Recording(analysis, name, whole, made, spent)


def _check_devices(analysis: Analysis, whole: bool) -> None:
    """Raises TraceError where several devices cannot share tables."""
    several = len(analysis.devices) > 1
    kinds = {device.name for device in analysis.devices}
    if several and (whole or len(kinds) > 1):
        why = "a model's layers are priced from one" if whole else "they are not of one kind"
        devices = ", ".join(f"{d.label} ({shown(d.name) or 'unnamed'})" for d in analysis.devices)
        raise TraceError(f"{analysis.source}: kernels of the devices {devices}; {why}: choose with --device")


def shape_of(model: Path) -> DeepSeekShape:
    """The dimensions in a model's YAML. Raises DocumentError, or Refused for a document that is no model."""
    content = read(model).content
    fields = DeepSeekShape.__dataclass_fields__
    if not isinstance(content, dict):
        raise Refused(f"{model}: a mapping of {', '.join(fields)} is needed")
    odd = [k for k in content if k not in fields]
    odd += [f"{k} (missing)" for k, f in fields.items() if k not in content and f.default is MISSING]
    kinds: dict[Any, Any] = {int: int, float: int | float, str: str}
    odd += [k for k, f in fields.items() if k in content and not isinstance(content[k], kinds[f.type])]
    if odd:
        raise Refused(f"{model}: not the dimensions of a model: {', '.join(map(str, odd))}")
    return DeepSeekShape(**content)


def best(trace: Trace) -> str:
    """The shipped rules that find most phases in a trace and know most names of its work; the plainest of equals."""
    table = trace.device if trace.kernels else trace.host
    names = [trace.texts[i] for i in np.unique(table["name"])]
    host = not trace.kernels

    def fitness(which: str) -> tuple[int, int, int]:
        rules = load(which)
        phases = sum(text in rules.sequences for text in trace.texts)
        return phases, sum(rules.classify(name, host=host).known for name in names), -len(rules.rules)

    return max(shipped(), key=fitness)


def report(recording: Recording, most: int = 20) -> Iterator[str]:
    """Lines: what was understood, and what was not with its share of kernel time, the `most` largest."""
    a = recording.analysis
    strange = unknown(a)
    yield f"{a.source}: {a.kernels} pieces of work on {_devices(a)}, rules {a.rules.name}; {_understood(a)}"
    yield from (f"  {u}" for u in strange[:most])
    if len(strange) > most:
        yield f"  and {len(strange) - most} more, {sum(u.share for u in strange[most:]):.2%} of kernel time"
    yield from _missing(a)
    if not recording.whole:
        yield from _measured(recording)
        yield from _prices(recording)


def _prices(recording: Recording) -> Iterator[str]:
    """Lines: what of it prices scenarios, or why it prices nothing."""
    a = recording.analysis
    if recording.prices:
        yield from traced.report(a, recording.host, recording.tables["gemm"]["reference"])
    elif a.device == "CPU":
        yield "prices nothing: host operators are no kernels"
    elif not recording.device:
        known, name = ", ".join(cards.NAMES), shown(a.device) or "(unsaid)"
        yield f"prices nothing: no device of hwmodels is called {name} (known: {known})"
    else:
        yield "prices nothing: no kernel has sizes; record_shapes=True of torch.profiler writes them"


def _devices(a: Analysis) -> str:
    many = f"{len(a.devices)} devices, each " if len(a.devices) > 1 else ""
    return many + (shown(a.device) or "an unnamed device")


def _understood(a: Analysis) -> str:
    share = shares(a)
    parts = {"not understood": share.unknown, "known only by a catch-all": share.general}
    said = [f"{what}: {part:.2%} of kernel time" for what, part in parts.items() if part]
    return ", ".join(said) or ("all that was read is understood" if a.lost or a.left_out else "all understood")


def _missing(a: Analysis, most: int = 3) -> Iterator[str]:
    """Lines on what is not in the trace, or was not read: kernels that were lost, events of other categories."""
    if a.lost:
        yield (
            f"  {a.lost} of {a.launches} launches of kernels have no kernel in the trace: lost by the profiler, "
            "captured into a graph, or run after it stopped; busy times lack theirs"
        )
    for category, events, duration_ns in a.left_out[:most]:
        name = f"category {shown(category)}" if category else "no category"
        us = f"{duration_ns / US_NS:.15g} us"
        yield f"  left out: {events} events of {name}, {us}; kernel, gpu_memcpy and gpu_memset are read as device work"
    if len(a.left_out) > most:
        rest = a.left_out[most:]
        yield f"  left out: {sum(left.events for left in rest)} events of {len(rest)} more categories"


def _measured(recording: Recording) -> Iterator[str]:
    """Lines: classes of kernels with their shares and quantiles, gaps, and how fast the products are."""
    for row in sorted(recording.tables["classes"]["rows"], key=lambda r: -r["us"]):
        quantiles = " / ".join(f"{row[f'p{q}_us']:.1f}" for q in (10, 50, 90))
        yield f"  {row['class']:15} {row['share']:6.1%}  {row['kernels']} times, 10/50/90 % in {quantiles} us"
    a = recording.analysis
    yield from (_busy(device, len(a.devices) > 1) for device in a.devices)
    if a.device == "CPU":
        hint = "" if a.left_out or a.launches else "; ProfilerActivity.CUDA records a GPU's"
        yield f"  no kernels in the trace: these are times of host operators{hint}"
    yield from _rates(recording)


def _busy(device: Device, named: bool) -> str:
    """A line whose parts add up: to the whole time, and those of idle to idle."""
    o = overlap(device.overlap) | idle(device.overlap)
    other = f", others beside it alone {o['on_communication_alone']}" if o["on_communication_alone"] else ""
    head = f"device {device.label}, {device.kernels} pieces of work: " if named else ""
    return (
        f"  {head}of {o['total']} us, compute was busy {o['compute_busy']}, communication alone "
        f"{o['comm_data_exposed']} (of {o['comm_data']}){other}, waiting for peers alone {o['comm_sync_exposed']} (of "
        f"{o['comm_sync']}), idle {o['idle']}: {o['idle_gaps']} launch gaps, {o['idle_gaps_total']} us, and "
        f"{o['idle_waits']} longer waits, {o['idle_waits_total']} us"
    )


def _rates(recording: Recording) -> Iterator[str]:
    """A line on the products' rates, and one when the device cannot be that fast (then sides or times are wrong) or no
    peak is known to hold them against."""
    times: dict[Gemm, list[float]] = defaultdict(list)
    for gemm, op in products(recording.analysis):
        times[gemm] += op.us
    rates = [(said["tflops"], gemm.precision) for gemm, us in times.items() if (said := rate(gemm, us))]
    if rates:
        yield f"  {len(rates)} products with known sides: {min(rates)[0]:g} to {max(rates)[0]:g} TFLOP/s"
    peaks = recording.tables["gemm"].get("reference", {})
    fast = [r for r, precision in rates if r * TERA > peaks.get(f"{precision}_flops", float("inf"))]
    if rates and not peaks and recording.analysis.device != "CPU":
        yield f"  no peak of {shown(recording.analysis.device) or 'an unnamed device'} is known to check these rates by"
    if fast:
        yield f"  {len(fast)} of them above the peak of {recording.device}: the trace's sides or times cannot be right"


# --- what the tables say of themselves --------------------------------------------------------------------------------


def _head(file: str, digest: str, analysis: Analysis, name: str) -> dict[str, Any]:
    recorded = f"{file} ({analysis.device or 'unnamed device'}, PyTorch profiler)"
    source = PUBLISHED.get(digest, recorded)
    head = {"device": name or analysis.device, "source": source, "sms": analysis.sms.compute}
    return head | ({"reference": cards.reference(name)} if name else {})


def _origin(
    file: str, digest: str, trace: Trace, analysis: Analysis, rules: Path, model: Path, shape: DeepSeekShape,
    program: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """What a table says of its making."""
    layers = max((len(op.us) for op in analysis.operations if op.position >= 0), default=0)
    entries = [*program, *rule_files(rules)]
    given = "" if str(rules) in shipped() else f" --map {rules.name}"
    middle = "median of the samples" if layers else "mean of the samples"
    often = f"each kernel once in each of {layers} layers" if layers else "each kernel as often as the trace has it"
    return {
        "device": f"{analysis.device}, {analysis.sms.device} SMs", "driver": SILENT, "clocks": SILENT,
        "versions": {key: trace.head[key] for key in VERSIONS if key in trace.head} or SILENT,
        "version": f"trace {file}", "measured": day(trace),
        "command": f"python -m numerics calibrate --trace {file}{given} --model {_shown(model)}",
        "repetitions": f"{often}; a row's samples say how many it has",
        "quantiles": f"us is the {middle}, low_us and high_us the least and the largest"
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
