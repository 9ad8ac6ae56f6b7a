"""Outcomes read in other ways than by family: kinds of models and machines, pairs, scaling, memory."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hwmodels.units import GIB, GIGA, MEGA
from sim.validation.runs import models
from sim.validation.runs.outcome import Outcome
from sim.validation.runs.words import table

MANY, LONG = 1 << 10, 1 << 15
"""GPUs of a large run, tokens of a long sequence."""
BYTES = re.compile(r"([\d.,]+) (GiB|GB|MB)")
"""A size in a row's words."""
UNITS = {"GiB": GIB, "GB": GIGA, "MB": MEGA}


def mixture(outcome: Outcome) -> bool:
    """Whether a row's model has experts."""
    return models.mixture(outcome.run)


def kinds(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    """Groups that a change of one kind of price or layout shows in."""
    dense = [each for each in outcomes if not mixture(each)]
    for gpu in dict.fromkeys(each.run.gpu.split("-")[0] for each in dense):
        yield f"dense, {gpu}", [each for each in dense if each.run.gpu.split("-")[0] == gpu]
    mixtures = [each for each in outcomes if mixture(each)]
    ours = [each for each in mixtures if each.run.family == "megatron-bridge"]
    for release in sorted({each.run.source for each in ours}):
        yield f"mixtures, {release.replace(' performance summary', '')}", [o for o in ours if o.run.source == release]
    yield "mixtures, all others", [each for each in mixtures if each not in ours]


TORCH = ("llm-foundry", "torchtitan", "nemo-automodel")
"""Families whose rows ran plain torch, sharded."""


def sixths(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    """The few kinds that a reader asks for; each row is in one."""
    parts: dict[str, list[Outcome]] = {name: [] for name in SIXTHS}
    for each in outcomes:
        parts[_sixth(each)].append(each)
    yield from parts.items()


SIXTHS = (
    "dense, recipes of NVIDIA", "dense, MLPerf", "dense, A100", "dense, other software and proxies",
    "mixtures, Blackwell", "mixtures, H100",
)  # fmt: skip


def _sixth(each: Outcome) -> str:
    """Its name in SIXTHS."""
    run = each.run
    if mixture(each):
        return SIXTHS[4] if run.gpu[:2] in ("GB", "B2", "B3") else SIXTHS[5]
    if run.gpu.startswith("A100"):
        return SIXTHS[2]
    if run.family in ("mlperf", "mlperf-v6"):
        return SIXTHS[1]
    return SIXTHS[3] if run.family in (*TORCH, "simumax-b200", "papers", "primus") else SIXTHS[0]


def layouts(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    """Groups by what a layout has; a row may be in several."""
    yield "tensor > 1", [each for each in outcomes if (each.run.tensor or 1) > 1]
    yield "pipeline > 1", [each for each in outcomes if (each.run.pipeline or 1) > 1]
    yield "chunks > 1", [each for each in outcomes if (each.run.chunks or 1) > 1]
    yield "context > 1", [each for each in outcomes if (each.run.context or 1) > 1]
    yield "expert > 1", [each for each in outcomes if (each.run.expert or 1) > 1]
    yield "sharded parameters (FSDP)", [each for each in outcomes if each.run.data_parallel == "fsdp"]
    yield f"{MANY:,} GPUs and more", [each for each in outcomes if (each.run.gpus or 1) >= MANY]
    yield f"{LONG:,} tokens and more", [each for each in outcomes if (each.run.sequence_length or 1) >= LONG]
    for name in dict.fromkeys(each.run.precision for each in outcomes):
        rows = [each for each in outcomes if each.run.precision == name]
        if len(rows) >= 10:
            yield f"precision {name}", rows


class Pair(NamedTuple):
    """Two rows that differ in one thing. measured, simulated: the second's step over the first's, less 1."""

    what: str
    ids: str
    measured: float
    simulated: float

    @property
    def signed(self) -> bool:
        """Whether both say faster, or both slower."""
        return (self.measured < 0) == (self.simulated < 0)


def pairs(outcomes: Sequence[Outcome]) -> Iterator[Pair]:
    """Those whose rows both ran."""
    known = {each.run.id: each for each in outcomes if each.error is not None}
    listed: Sequence[Mapping[str, str]] = table("pairs")  # type: ignore[assignment]
    for said in listed:
        first, second = known.get(said["from"]), known.get(said["to"])
        if first and second and first.predicted_s and second.predicted_s and first.run.step_s and second.run.step_s:
            yield Pair(
                said["what"], f"{said['from']}, {said['to']}", second.run.step_s / first.run.step_s - 1,
                second.predicted_s / first.predicted_s - 1,
            )  # fmt: skip


def strong(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Strong scaling: DeepSeek-V3 on 256 to 8,192 GPUs, a GPU after the other, small to large."""
    rows = [each for each in outcomes if each.run.family == "mlperf-v6" and each.run.model == "deepseek-v3"]
    return sorted(rows, key=lambda each: (each.run.gpu, each.run.gpus or 0))


class Gain(NamedTuple):
    """Sequences a second on the most GPUs over those on the fewest, of one kind of GPU."""

    gpu: str
    fewest: int
    most: int
    measured: float
    simulated: float
    rival: float | None


def gains(outcomes: Sequence[Outcome]) -> Iterator[Gain]:
    """Of strong scaling, a GPU after the other."""
    ran = [each for each in strong(outcomes) if each.error is not None]
    for gpu in dict.fromkeys(each.run.gpu for each in ran):
        rows = [each for each in ran if each.run.gpu == gpu]
        few, many = rows[0].run, rows[-1].run
        if (few.gpus or 0) < (many.gpus or 0):
            more = (many.sequences or 0) / (few.sequences or 1)
            steps = [[each.run.step_s, each.answer.step_s, each.answer.rival_s] for each in (rows[0], rows[-1])]
            pairs = zip(*steps, strict=True)
            measured, simulated, rival = (one / other * more if one and other else None for one, other in pairs)
            assert measured and simulated
            yield Gain(gpu, few.gpus or 0, many.gpus or 0, measured, simulated, rival)


class Series(NamedTuple):
    """Runs that differ in GPUs and have as many sequences a GPU. measured, simulated: the step on the most over that on
    the fewest, less 1."""

    what: str
    fewest: int
    most: int
    measured: float
    simulated: float


def weak(outcomes: Sequence[Outcome]) -> Iterator[Series]:
    """Weak scaling: of each recipe with runs on several numbers of GPUs, the fewest against the most."""
    series: dict[tuple[object, ...], list[Outcome]] = {}
    for each in outcomes:
        if each.error is not None and each.run.gpus:
            series.setdefault(_recipe(each), []).append(each)
    for rows in series.values():
        first, last = (end(rows, key=lambda each: each.run.gpus or 0) for end in (min, max))
        few, many = first.run, last.run
        if few.gpus and many.gpus and many.gpus > few.gpus and first.predicted_s and last.predicted_s:
            assert few.step_s and many.step_s
            what = f"{few.model}, {few.precision}, {few.source.removeprefix('NVIDIA ')}"
            yield Series(what, few.gpus, many.gpus, many.step_s / few.step_s - 1,
                         last.predicted_s / first.predicted_s - 1)  # fmt: skip


def _recipe(each: Outcome) -> tuple[object, ...]:
    """All that runs of a series have in common."""
    run = each.run
    axes = (run.tensor, run.context, run.pipeline, run.chunks, run.expert, run.expert_tensor, run.data_parallel)
    each_gpu = (run.sequences or 0) / (run.gpus or 1)
    words = (run.family, run.source, run.model, run.gpu, run.precision, run.recompute, run.overlap, run.other)
    return (*words, *axes, run.micro_batch, run.sequence_length, each_gpu)


def memory(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, float]]:
    """Runs whose row gives the memory of a GPU, with that in bytes: allocated where both are given."""
    for each in outcomes:
        if each.answer.peak_bytes and (size := BYTES.search(each.run.memory_published)):
            yield each, float(size[1].replace(",", "")) * UNITS[size[2]]
