"""The layout of a row: ranks of each axis, the pipeline's schedule and stages."""

from typing import Any

from hwmodels.refused import Refused
from sim.scenario.stages import layout
from sim.validation.runs.rows import Run


def parallel(run: Run) -> dict[str, Any]:
    """Keys of the axes that are more than one rank. Where nothing is said, experts are cut as the other products are
    (`--expert-tensor-parallel-size`; NVIDIA/Megatron-LM, megatron/core/parallel_state.py: the tensor size if None)."""
    axes = {axis: getattr(run, axis) for axis in ("pipeline", "tensor", "context", "expert", "expert_tensor")}
    if axes["expert_tensor"] is None and (run.expert or 1) > 1:
        axes["expert_tensor"] = run.tensor
    return {f"parallel.{axis}": ranks for axis, ranks in axes.items() if (ranks or 1) > 1}


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


def fits(run: Run, text: str, layers: int) -> bool:
    """Whether a layout string is of so many layers and of the row's stages."""
    assert run.pipeline and run.chunks
    try:
        read = layout(text)
    except Refused:
        return False
    return read.count("t") == layers and len(read.stages) == run.pipeline * run.chunks


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
