"""Importing and running is running what somebody would have written by hand."""

from typing import Any

import pytest

import sim
from hwmodels.document import parse
from sim.scenario.files import from_mapping, load
from tests.sim.scenario.launchers.launched import FIXTURES, imported, loads

DENSE = {
    "cluster": {"node": "h100x8", "nodes": 1},
    "model": {
        "family": "transformer", "name": "GPT-2's shape", "vocabulary": 50304, "hidden": 2048, "layers": 24,
        "heads": 16, "kv_heads": 16, "head_width": 128, "tied": True, "intermediate": 8192, "activation": "gelu",
        "norm": "layer", "mlp_bias": True, "qkv_bias": True, "output_bias": True, "rotary": 0, "positions": 2048,
        "source": "by hand",
    },
    "precision": "bf16", "stack": "megatron", "parallel": {"zero": 0}, "recompute": "none",
    "batch": {"sequences": 256, "sequence_length": 2048, "micro_batch": 4},
    "overlap": {"gradients": False, "parameters": False},
}  # fmt: skip
NEMO = {
    "cluster": {"node": "h100x8", "nodes": 2}, "model": {"base": "llama2_7b"}, "precision": "bf16", "stack": "megatron",
    "parallel": {"tensor": 2, "sequence": True, "zero": 1}, "recompute": {"layers": 4, "method": "block"},
    "batch": {"sequences": 128, "sequence_length": 4096, "micro_batch": 1},
    "overlap": {"gradients": True, "parameters": True, "tensor": False},
}  # fmt: skip
TITAN = {
    "cluster": {"node": "h100x8", "nodes": 8}, "model": "llama3_70b", "precision": "fp8_current",
    "stack": {
        "name": "torch", "compiled": True, "compiled_ends": "loss", "rope": "complex", "clips": True,
        "early_stop": False,
    }, "parallel": {"tensor": 8, "sequence": True, "zero": 3, "shard": 4},
    "recompute": "full",
    "batch": {"sequences": 64, "sequence_length": 8192, "micro_batch": 4},
    "overlap": {"gradients": True, "parameters": True, "tensor": True},
    "states": {"master": "fp32", "moments": "fp32", "gradients": "fp32", "parameters": "fp8"},
}  # fmt: skip
WRITTEN: dict[str, tuple[int, dict[str, Any]]] = {
    "dense_1b.args": (1, DENSE), "nemo.yaml": (0, NEMO), "llama3_70b.toml": (0, TITAN),
}  # fmt: skip


def content(scenario: Any) -> dict[str, Any]:
    """A scenario without the names of things."""
    model = {key: each for key, each in scenario.resolved["model"].items() if key not in ("name", "source")}
    return {**scenario.resolved, "name": "", "model": model}


@loads
@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_an_import_is_what_one_would_write(name: str) -> None:
    nodes, written = WRITTEN[name]
    text = imported(FIXTURES / name, nodes=nodes).text
    assert content(load(parse(text, name).content)) == content(from_mapping(written))


@loads
def test_it_runs_to_the_same_figures() -> None:
    found = sim.run(load(imported(FIXTURES / "dense_1b.args", nodes=1).scenario)).summary
    written = sim.run(from_mapping(DENSE)).summary
    same = ("step_time_s", "phases_s", "peak_memory_bytes", "mfu", "tokens_per_day", "price_shares", "events")
    assert {key: found[key] for key in same} == {key: written[key] for key in same}
