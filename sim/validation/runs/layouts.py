"""The layout of a row: ranks of each axis, the pipeline's schedule and stages, the batch."""

from typing import Any, NamedTuple

from hwmodels.refused import Refused
from sim.validation.runs.rows import Run


class Batch(NamedTuple):
    """A batch that divides. sequences: simulated. share: the row's sequences over them (1: all of them)."""

    sequences: int
    share: float


def parallel(run: Run) -> dict[str, Any]:
    """Keys of the axes that are more than one rank."""
    axes = ("pipeline", "tensor", "context", "expert", "expert_tensor")
    return {f"parallel.{axis}": ranks for axis in axes if (ranks := getattr(run, axis) or 1) > 1}


def replicas(run: Run) -> int:
    """Copies of the model, each with sequences of its own. Raises Refused where the GPUs do not divide."""
    assert run.gpus and run.tensor and run.context and run.pipeline
    each = run.tensor * run.context * run.pipeline
    if run.gpus % each:
        raise Refused(f"{run.gpus} GPUs are no multiple of tensor x context x pipeline = {each}")
    return run.gpus // each


def schedule(run: Run) -> dict[str, Any]:
    """1F1B, interleaved where a rank holds several stages."""
    assert run.chunks
    return {"name": "interleaved", "chunks": run.chunks} if run.chunks > 1 else {"name": "1f1b"}


def batch(run: Run) -> Batch:
    """The batch that its copies can share in whole micro-batches: the nearest one, where the row's last micro-batch is
    smaller than the others. Raises Refused where there are fewer sequences than copies."""
    assert run.sequences and run.micro_batch
    each = replicas(run) * run.micro_batch
    if run.sequences < replicas(run):
        raise Refused(f"{run.sequences} sequences are fewer than {replicas(run)} copies of the model")
    sequences = max(1, round(run.sequences / each)) * each
    return Batch(sequences, run.sequences / sequences)


def placement(run: Run, layers: int) -> str | list[int]:
    """Layers of each stage as Megatron Core has them where nothing is said: all alike where the layers divide, else
    with embedding and loss counted as layers where those do (account_for_embedding_in_pipeline_split and
    account_for_loss_in_pipeline_split); "" else."""
    assert run.pipeline and run.chunks
    stages = run.pipeline * run.chunks
    if stages == 1:
        return ""
    if layers % stages == 0:
        return "even"
    each, rest = divmod(layers + 2, stages)
    return "" if rest else [each - 1, *[each] * (stages - 2), each - 1]
