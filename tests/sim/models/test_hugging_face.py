"""A model in Hugging Face's names: one line that says what to write, never a suggestion that means something else."""

import json
from pathlib import Path

import pytest

import sim
from hwmodels.refused import Refused
from sim.models.family import families, family
from sim.models.hugging_face import NAMES

BASE = {
    "cluster": {"node": "h100x8", "nodes": 2}, "parallel": {"pipeline": 2, "expert": 8}, "schedule": "1f1b",
    "batch": {"sequences": 64},
}  # fmt: skip
QWEN = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 4096, "num_hidden_layers": 94,
    "head_dim": 128, "num_experts": 128, "rope_theta": 1e6,
}  # fmt: skip


def refusal(scenario: object) -> str:
    with pytest.raises(Refused) as caught:
        sim.load(scenario)  # type: ignore[arg-type]
    return str(caught.value)


def test_names_of_a_known_family_are_translated() -> None:
    theirs = {"num_hidden_layers": 48, "moe_intermediate_size": 768, "intermediate_size": 1, "rope_theta": 1.0}
    assert refusal(BASE | {"model": {"base": "deepseek_v3", **theirs}}) == (
        "<mapping>: model: has names of a Hugging Face config.json; write num_hidden_layers -> layers, "
        "moe_intermediate_size -> expert_intermediate, intermediate_size -> dense_intermediate"
    )
    assert refusal(BASE | {"model": {"base": "llama3_70b", "intermediate_size": 1, "moe_intermediate_size": 2}}) == (
        "<mapping>: model: has names of a Hugging Face config.json; write intermediate_size -> intermediate, "
        "moe_intermediate_size -> expert_intermediate"
    )


def test_a_config_as_a_model_is_one_line_that_names_it() -> None:
    line = "of qwen3_moe (Qwen3MoeForCausalLM); write a family and its keys instead; legal: deepseek, transformer"
    assert refusal(BASE | {"model": QWEN}).startswith(
        "<mapping>: model: has names of a Hugging Face config.json " + line
    )
    assert "\n" not in refusal(BASE | {"model": QWEN})


@pytest.mark.parametrize(("change", "named"), [
    ({}, "qwen3_moe (Qwen3MoeForCausalLM)"), ({"model_type": None}, "Qwen3MoeForCausalLM"),
    ({"architectures": None}, "qwen3_moe"), ({"architectures": "X", "model_type": ["y"]}, "['y'] (X)"),
])  # fmt: skip
def test_a_config_as_a_scenario_is_one_line_that_names_it(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(QWEN | change))
    assert refusal(path) == (
        f"{path}: is a Hugging Face config.json of {named}, not a scenario; write model: config.json in a scenario "
        "beside it"
    )


def test_names_lead_to_keys_that_a_family_has() -> None:
    keys = [set(family(name).Shape.__dataclass_fields__) for name in families()]
    for theirs, ours in NAMES.items():
        assert all(any(word in each for each in keys) for word in ours), theirs
        assert all(theirs not in each for each in keys), theirs


def test_a_sweep_is_no_scenario_and_a_scenario_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("scenario: ../v3.yaml\naxes: {seed: [1]}\ncolumns: {x: y}\n")
    assert refusal(tmp_path / "s.yaml") == (
        f"{tmp_path}/s.yaml: is a sweep, not a scenario; run it with: python -m sim sweep FILE"
    )
