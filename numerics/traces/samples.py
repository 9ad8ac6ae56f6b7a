"""Operations of a trace joined to the kernels that the simulator lowers for the same layer: name, shape and times.

Shapes, bytes and FLOPs come from the model, only the times from the trace: what a calibration table is made of.
The join is by phase, name and order; a kernel that only one side runs is an error, so that neither drifts unseen.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from hwmodels.op import Gemm, Op
from numerics.traces.importer import Analysis
from numerics.traces.operations import Operation, Rows, pass_of, rows
from sim.models import deepseek
from sim.models.deepseek.shape import DeepSeekShape
from sim.models.layer import Kernel, Site
from sim.models.precision import RECIPES

RANKS_PER_NODE = 8
"""GPUs of an H800 node (DeepSeek-V3 report sec 3.1)."""
NODES_A_TOKEN, RANKS_A_TOKEN = 3.964, 7.488
"""Distinct nodes and ranks a token reaches under the group-limited gate of 8 nodes (h800_dualpipe_trace.json comm)."""
MODEL_NAMES = {
    "o_WT": "o_proj_WT", "shared_W2T": "shared_down_WT", "shared_W1T": "shared_gateup_WT",
    "dispatchF=dispatch_fp8": "dispatch(F)", "combineB=dispatch_fp8_cached": "combine(B)",
    "combineF=combine_bf16": "combine(F)", "dispatchB=combine_bf16": "dispatch(B)",
}  # fmt: skip
"""Operations that the rules name otherwise than the model does."""

OPERAND_TYPES = {"(?i)float8": "fp8", "(?i)bfloat16|half": "bf16", r"\bfloat\b": "fp32", r"\bdouble\b": "fp64"}
"""How torch writes the types of tensors -> what a table calls them; the narrowest operand decides."""


class JoinError(ValueError):
    """The trace and the model do not run the same kernels; its text says which one differs, in one line."""


class Sample(NamedTuple):
    """One kernel of a layer: what it is in each layer, and its microseconds and share beside communication there."""

    name: str
    ops: tuple[Op, ...]
    us: tuple[float, ...]
    beside: tuple[float, ...]


def samples(analysis: Analysis, shape: DeepSeekShape) -> list[Sample]:
    """Every kernel of the trace's layers with its operation, times of all layers.

    Raises JoinError: the trace has no phases of a model's layer (say what rules to use), phases disagree on how often
    they ran, or the model runs other kernels than the trace.
    """
    if not has_layers(analysis):
        raise JoinError(f"{analysis.source}: no phases of a layer; samples need rules with sequences, such as deepseek")
    counts = rows(analysis.operations, analysis.rules)
    out: list[Sample] = []
    for phase in _layer_phases(analysis):
        timed = list(_merged(analysis.phase(phase)))
        layers = max((len(t.us) for t in timed), default=0)
        if cut := [t for t in timed if len(t.us) < layers]:
            raise JoinError(
                f"{phase}: {cut[0].name!r} ran {len(cut[0].us)} times, others {layers}; is the trace whole?"
            )
        lowered = [_lowered(site, phase) for site in _sites(analysis, shape, counts, pass_of(phase), layers)]
        out += _join(phase, timed, lowered)
    return out


def has_layers(analysis: Analysis) -> bool:
    """Whether the trace has phases of a model's layer whose kernels the rules name one by one."""
    return bool(_layer_phases(analysis)) and rows(analysis.operations, analysis.rules).tokens > 0


def _layer_phases(analysis: Analysis) -> list[str]:
    return [phase for phase in analysis.phases() if phase in analysis.rules.sequences]


def expert_turns(analysis: Analysis) -> Mapping[str, tuple[float, ...]]:
    """Group of per-expert products on two streams -> one's turn on the SMs in ns, a layer: the wall time shared."""
    turns = {}
    for name, spans in analysis.groups.items():
        members = sum(op.op.startswith(f"{name}_e") for op in analysis.operations)
        turns[name] = tuple(span / members for span in spans)
    return turns


class _Timed(NamedTuple):
    name: str
    us: tuple[float, ...]
    beside: tuple[float, ...]


def _merged(operations: Iterable[Operation]) -> Iterator[_Timed]:
    """Operations in the model's words: without barriers (they wait and do no work), the gate's tiny kernels as one."""
    last: _Timed | None = None
    for op in operations:
        if op.position < 0 or (op.kind == "comm_sync" and op.op != "dispatch_layout"):
            continue
        timed = _Timed(MODEL_NAMES.get(op.op, op.op), op.us, op.beside)
        if op.kind == "routing":
            timed = timed._replace(name=op.op.rsplit("_", 1)[0])
        if last and op.kind == "routing" and last.name == timed.name:
            last = last._replace(us=tuple(a + b for a, b in zip(last.us, timed.us, strict=False)))  # cut: noticed above
            continue
        if last:
            yield last
        last = timed
    if last:
        yield last


def _sites(analysis: Analysis, shape: DeepSeekShape, counts: Rows, direction: str, layers: int) -> list[Site]:
    """One site a layer, with the rows that layer had."""
    key = "F" if direction == "F" else "B"
    received, padded = counts.received.get(key, ()), counts.padded.get(key, ())
    if not len(received) == len(padded) == layers:
        raise JoinError(
            f"{analysis.source}: {layers} layers of {direction}, rows of {len(padded)}; is the trace whole?"
        )
    ranks = analysis.world_size or RANKS_PER_NODE
    if shape.experts % ranks:
        raise JoinError(f"{analysis.source}: {shape.experts} experts do not divide over the {ranks} ranks it names")
    return [
        Site(
            shape, RECIPES["fp8"], 1, counts.tokens, r, p, NODES_A_TOKEN, RANKS_A_TOKEN, shape.experts // ranks, ranks,
            max(1, ranks // RANKS_PER_NODE),
        )
        for r, p in zip(received, padded, strict=True)
    ]  # fmt: skip


def _lowered(site: Site, phase: str) -> list[Kernel]:
    unit = next(unit for unit in deepseek.units(site.shape) if unit.routed)
    for part in deepseek.parts(site, unit, pass_of(phase)):
        if part.label == phase:
            return list(part.kernels)
    raise JoinError(f"the model has no part {phase!r}")


def _join(phase: str, timed: Iterable[_Timed], lowered: list[list[Kernel]]) -> Iterator[Sample]:
    """Pairs by name, the first with the first where a name comes twice."""
    waiting: dict[str, list[int]] = defaultdict(list)
    for i, kernel in enumerate(lowered[0]):
        waiting[kernel.name].append(i)
    for t in timed:
        if not waiting[t.name]:
            raise JoinError(f"{phase}: the trace runs {t.name!r}, the model does not")
        i = waiting[t.name].pop(0)
        yield Sample(t.name, tuple(kernels[i].op for kernels in lowered), t.us, t.beside)
    left = [name for name, rest in waiting.items() if rest]
    if left:
        raise JoinError(f"{phase}: the model runs {', '.join(left)}, the trace does not")


def products(analysis: Analysis) -> list[tuple[Gemm, Operation]]:
    """Matrix products of any trace whose dimensions are known, as priced operations: tables without a model.

    Only single products (no grouped ones). Precision is what the kernel's name tells, else the operands' types (then
    "fp32" and "fp64" come up too), else "unsaid". Weight gradients of torch's own autograd write their operands' format
    and have the traffic of a forward product, so that is their role; "wgrad" accumulates into FP32.
    """
    out = []
    for op in analysis.operations:
        if op.kind in ("gemm", "gemm_bf16", "gemm_fp8", "gemm_fp8_wgrad") and op.shapes and all(op.shapes[0]):
            m, n, k = (round(side) for side in op.shapes[0])
            role = "wgrad" if op.kind.endswith("wgrad") or op.op.endswith("_wgrad") else "fprop"
            out.append((Gemm(m, n, k, role, precision(op)), op))
    return out


def precision(op: Operation) -> str:
    """Format of a product's operands; FP16 counts as BF16, for which the rate is the same."""
    named = {"gemm_fp8": "fp8", "gemm_fp8_wgrad": "fp8", "gemm_bf16": "bf16"}.get(op.kind)
    if named:
        return named
    return next((said for pattern, said in OPERAND_TYPES.items() if re.search(pattern, op.types)), "unsaid")
