"""Launch files of a line or two, read."""

from pathlib import Path
from typing import Any

import pytest

from sim.models.stacks.stack import KINDS
from sim.scenario.launchers.machine import Machine
from sim.scenario.launchers.scenario import Asked, Imported, read
from sim.scenario.layout import OverlapForm

FIXTURES = Path(__file__).parents[3] / "fixtures" / "launch"
DENSE = (
    "--num-layers 8 --hidden-size 1024 --num-attention-heads 16 --seq-length 2048 --max-position-embeddings 2048 "
    "--micro-batch-size 2 --global-batch-size 64 --bf16 --tokenizer-type NullTokenizer --vocab-size 32000 "
    "--hidden-dropout 0 --attention-dropout 0 "
)
"""Arguments of a small model, without anything else."""

KEYS = {"gradients", "parameters", "tensor", "pipeline"} <= {*OverlapForm.model_fields} and all(
    "tensor" in KINDS[name].axes for name in ("megatron", "torch")
)
loads = pytest.mark.skipif(not KEYS, reason="scenarios have no keys yet for what these launch files say")
"""Of tests that load what is imported."""


def imported(path: Path, node: str = "h100x8", nodes: int = 0, **asked: Any) -> Imported:
    return read(path, Asked(Machine(node, nodes), **asked))


def arguments(folder: Path, more: str = "", nodes: int = 4, **asked: Any) -> Imported:
    """A list of arguments: those of DENSE and more."""
    path = folder / "job.args"
    path.write_text(DENSE + more, encoding="utf-8")
    return imported(path, nodes=nodes, **asked)


def told(found: Imported) -> dict[str, str]:
    """Flag -> why, of notes."""
    return {note.word.split()[0]: note.why for note in found.notes}
