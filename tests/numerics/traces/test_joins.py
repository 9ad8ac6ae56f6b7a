"""Phases: the user's annotations count, whatever the frameworks write around and between them."""

from pathlib import Path

import pytest

from numerics.traces import rules
from numerics.traces.importer import analyse
from numerics.traces.trace import read_trace
from tests.numerics.traces.made import Event, kernel, launch, span, write

GEMM = "my_bf16_gemm"


def phases(folder: Path, events: list[Event], which: str = "torch") -> dict[str, str]:
    """Kernel -> its phase."""
    found = analyse(read_trace(write(folder, events)), rules.load(which))
    return {op.kernel: op.phase for op in found.operations}


@pytest.mark.parametrize(
    "inner",
    ["## Call CompiledFxGraph f67otgaw34 ##", "Torch-Compiled Region: 0/1", "nccl:all_reduce", "nccl:_all_gather_base",
     "gloo:broadcast", "FSDP::pre_forward (layers.0)", "FullyShardedDataParallel._pre_forward", "ProfilerStep#3",
     "DistributedDataParallel.forward", "Optimizer.step#AdamW.step", "TorchDynamo Cache Lookup", "Pregraph bytecode",
     "inductor_compile (dynamo_timed)", "graph_0_inductor_wrapper_call"],
)  # fmt: skip
def test_annotations_of_frameworks_do_not_hide_the_users(tmp_path: Path, inner: str) -> None:
    events = [span("user_annotation", "forward", 0, 100), span("user_annotation", inner, 10, 50),
              launch(20, 1), kernel(GEMM, 200, 40, 1)]  # fmt: skip
    assert phases(tmp_path, events) == {GEMM: "forward"}
    assert phases(tmp_path, events[1:]) == {GEMM: ""}, "and are none themselves"


@pytest.mark.parametrize("inner", ["layer 3", "attention", "nccl warm-up", "my Region: 2"])
def test_the_innermost_annotation_of_the_user_is_the_phase(tmp_path: Path, inner: str) -> None:
    events = [span("user_annotation", "forward", 0, 100), span("user_annotation", inner, 10, 50),
              launch(20, 1), kernel(GEMM, 200, 40, 1)]  # fmt: skip
    assert phases(tmp_path, events) == {GEMM: inner}


def test_an_annotation_of_another_process_is_no_phase(tmp_path: Path) -> None:
    """Ranks merged into one file: what one has open says nothing of another's threads, its own thread's does."""
    events = [
        span("user_annotation", "of rank 0", 0, 100, (10, 1)),
        launch(20, 1, thread=(11, 5)),
        kernel(GEMM, 200, 40, 1),
    ]
    assert phases(tmp_path, events) == {GEMM: ""}
    events[1] = launch(20, 1, thread=(10, 5))
    assert phases(tmp_path, events) == {GEMM: "of rank 0"}, "autograd's thread of the same process"
