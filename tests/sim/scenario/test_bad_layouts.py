"""Illegal layouts of three models: each is one line that says what is wrong and what is legal, nearest first."""

from typing import Any

import pytest

from hwmodels.document import DocumentError
from sim.scenario import from_mapping

DENSE, MIXTURE, LATENT = "llama3_8b", "qwen3_30b_a3b", "deepseek_v3"
LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    *((DENSE, {"parallel": parallel}) for parallel in (
        {"tensor": 3}, {"tensor": 64}, {"tensor": 6}, {"tensor": 48}, {"context": 3}, {"context": 24}, {"expert": 8},
        {"context": 4, "context_kind": "all_to_all", "tensor": 4}, {"zero": 3, "shard": 5}, {"zero": 0, "shard": 2},
        {"sequence": True}, {"tensor": 5, "context": 2},
    )),
    (DENSE, {"parallel": {"pipeline": 3}, "schedule": "1f1b"}),
    (DENSE, {"parallel": {"pipeline": 24}, "schedule": "1f1b"}),
    (DENSE, {"parallel": {"context": 8}, "batch": {"sequences": 256, "sequence_length": 4100}}),
    (DENSE, {"parallel": {"tensor": 2}, "batch": {"sequences": 256, "sequence_length": 4097}}),
    (DENSE, {"parallel": {"tensor": 8, "context": 2}, "batch": {"sequences": 256, "sequence_length": 4104}}),
    (DENSE, {"batch": {"sequences": 100, "sequence_length": 4096}}),
    (DENSE, {"parallel": {"pipeline": 2}, "schedule": "dualpipe", "batch": {"sequences": 32, "sequence_length": 4096}}),
    (DENSE, {"parallel": {"tensor": 2}, "stack": "deepseek"}),
    (DENSE, {"parallel": {"context": 2}, "stack": "deepseek"}),
    (DENSE, {"parallel": {"tensor": 16}, "overlap": {"tensor": True}}),
    *((MIXTURE, {"parallel": parallel}) for parallel in (
        {"expert": 3}, {"expert": 256}, {"expert": 12}, {"expert": 5}, {"expert": 8, "tensor": 3},
        {"tensor": 8, "expert": 8, "sequence": False}, {"expert": 64, "expert_tensor": 2}, {"context": 5, "expert": 8},
        {"expert": 32, "zero": 3, "shard": 16},
    )),
    (MIXTURE, {"parallel": {"expert": 64, "pipeline": 2}, "schedule": "1f1b"}),
    (MIXTURE, {"parallel": {"expert": 8}, "routing": {"kind": "sampled", "redundant_experts": 3}}),
    (MIXTURE, {"stack": {"name": "megatron", "dispatcher": "deepep"}}),
    (MIXTURE, {"parallel": {"expert": 8, "expert_tensor": 16}}),
    *((LATENT, {"parallel": parallel}) for parallel in (
        {"expert": 7}, {"expert": 512}, {"expert": 48}, {"tensor": 3, "expert": 8}, {"context": 7, "expert": 8},
        {"tensor": 256, "expert": 8},
    )),
    (LATENT, {"parallel": {"pipeline": 16, "expert": 64}, "schedule": "1f1b"}),
    (LATENT, {"parallel": {"pipeline": 7, "expert": 8}, "schedule": "1f1b"}),
    (LATENT, {"parallel": {"expert": 8, "tensor": 2}, "stack": "torch", "overlap": {"tensor": True}}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "more"), LAYOUTS, ids=lambda value: str(value))
def test_an_illegal_layout_is_one_line_with_what_is_legal(model: str, more: dict[str, Any]) -> None:
    plain = {
        "cluster": {"node": "h100x8", "nodes": 8}, "model": model, "precision": "bf16", "stack": "megatron",
        "batch": {"sequences": 256, "sequence_length": 4096}, "outputs": ["result"],
    }  # fmt: skip
    with pytest.raises(DocumentError) as caught:
        from_mapping({**plain, **more})
    (line,) = str(caught.value).splitlines()
    assert "legal" in line, line


def test_there_are_forty() -> None:
    assert len(LAYOUTS) >= 40 and {model for model, _ in LAYOUTS} == {DENSE, MIXTURE, LATENT}


def test_what_is_legal_for_experts_divides_ranks_too() -> None:
    """128 experts and 24 ranks of a position: up to eight."""
    with pytest.raises(DocumentError) as caught:
        from_mapping({
            "cluster": {"node": "h100x8", "nodes": 3}, "model": MIXTURE, "precision": "bf16", "stack": "megatron",
            "batch": {"sequences": 48, "sequence_length": 4096}, "parallel": {"expert": 6},
        })  # fmt: skip
    assert str(caught.value).endswith("cannot be divided by parallel.expert 6; legal: 1, 2, 4, 8")


SIXTY_FOUR = "64 GPUs (cluster.nodes 8 x 8)"


@pytest.mark.parametrize(("parallel", "what", "legal"), [
    ({"tensor": 3}, f"parallel.tensor: {SIXTY_FOUR} cannot be divided by parallel.tensor 3", "1, 2, 4, 8"),
    ({"tensor": 3, "context": 4}, f"parallel.tensor: 16 of {SIXTY_FOUR} over parallel.context 4 cannot be divided by "
                                  "parallel.tensor 3", "1, 2, 4, 8"),
    ({"tensor": 2, "context": 12}, f"parallel.context: 32 of {SIXTY_FOUR} over parallel.tensor 2 cannot be divided by "
                                   "parallel.context 12", "1, 2, 4, 8, 16, 32"),
    ({"tensor": 3, "context": 5}, f"parallel.pipeline: {SIXTY_FOUR} cannot be divided by parallel.tensor x "
                                  "parallel.context 15", "1, 2, 4, 8, 16, 32, 64"),
])  # fmt: skip
def test_the_axis_that_does_not_fit_is_named_with_what_is_legal_for_it(
    parallel: dict[str, int], what: str, legal: str
) -> None:
    """Beside the others, and for a tensor group of the eight heads of keys and values too."""
    with pytest.raises(DocumentError) as caught:
        from_mapping({
            "cluster": {"node": "h100x8", "nodes": 8}, "model": DENSE, "precision": "bf16", "stack": "megatron",
            "batch": {"sequences": 256, "sequence_length": 4096}, "parallel": parallel,
        })  # fmt: skip
    assert str(caught.value).endswith(f"{what}; legal: {legal}")
