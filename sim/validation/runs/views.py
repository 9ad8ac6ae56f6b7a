"""Outcomes read in other ways than by family: kinds of models and machines, pairs, scaling, memory."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hwmodels.units import GIB, GIGA, MEGA
from sim.validation.runs.outcome import Outcome
from sim.validation.runs.words import table

EXPERTS = ("MoE", "mixture")
"""In a row's parameters: a model with experts."""
RELEASE = "26.06"
"""The release of Megatron-Bridge whose mixtures are one group: steps of mixtures move by 30 % between releases."""
MANY, LONG = 1 << 10, 1 << 15
"""GPUs of a large run, tokens of a long sequence."""
BYTES = re.compile(r"([\d.,]+) (GiB|GB|MB)")
"""A size in a row's words."""
UNITS = {"GiB": GIB, "GB": GIGA, "MB": MEGA}


def mixture(outcome: Outcome) -> bool:
    """Whether a row's model has experts."""
    return any(word in outcome.run.parameters for word in EXPERTS)


def kinds(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    """Groups that a change of one kind of price or layout shows in."""
    dense = [each for each in outcomes if not mixture(each)]
    for gpu in dict.fromkeys(each.run.gpu.split("-")[0] for each in dense):
        yield f"dense, {gpu}", [each for each in dense if each.run.gpu.split("-")[0] == gpu]
    mixtures = [each for each in outcomes if mixture(each)]
    ours = [each for each in mixtures if each.run.family == "megatron-bridge"]
    yield f"mixtures, Megatron-Bridge {RELEASE}", [each for each in ours if RELEASE in each.run.source]
    yield "mixtures, other releases of it", [each for each in ours if RELEASE not in each.run.source]
    yield "mixtures, all others", [each for each in mixtures if each not in ours]


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


def scaling(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Strong scaling: DeepSeek-V3 on 256 to 8,192 GPUs, a GPU after the other, small to large."""
    rows = [each for each in outcomes if each.run.family == "mlperf-v6" and each.run.model == "deepseek-v3"]
    return sorted(rows, key=lambda each: (each.run.gpu, each.run.gpus or 0))


def memory(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, float]]:
    """Runs whose row gives the memory of a GPU, with that in bytes: allocated where both are given."""
    for each in outcomes:
        if each.peak_bytes and (size := BYTES.search(each.run.memory_published)):
            yield each, float(size[1].replace(",", "")) * UNITS[size[2]]
