"""A model from Hugging Face's config.json, or from a YAML file beside the scenario."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

import sim
from hwmodels.document import DocumentError
from hwmodels.refused import Refused
from sim import simulation
from sim.analysis.notes import notes
from sim.experiments.unfelt import unfelt
from sim.models import config
from sim.models.config import ARCHITECTURES, model_of
from sim.models.family import family, main_units, weights
from sim.scenario import SCENARIOS, from_mapping, load, models

CONFIGS = Path(__file__).parents[4] / "shared" / "cases" / "configs"
GIVEN = sorted(path.stem for path in CONFIGS.glob("*.json") if path.stem != "counts")
BUFFERS = {
    "DeepSeek-V3": 58 * 256, "DeepSeek-V3.2": 58 * 256, "Kimi-K2-Instruct": 60 * 384, "GLM-5": 75 * 256,
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 23 * 128,
}  # fmt: skip
"""Biases that correct sigmoid gates: parameters here, buffers in transformers, whose count lacks them."""
SHIPPED = {
    "Qwen3-0.6B": "qwen3_0_6b", "Qwen3-8B": "qwen3_8b", "Qwen3-32B": "qwen3_32b", "Qwen3-30B-A3B": "qwen3_30b_a3b",
    "Qwen3-235B-A22B": "qwen3_235b_a22b", "DeepSeek-V3": "deepseek_v3", "Meta-Llama-3.1-8B": "llama3_8b",
    "Meta-Llama-3.1-70B": "llama3_70b", "Meta-Llama-3.1-405B": "llama3_405b", "Mixtral-8x7B-v0.1": "mixtral_8x7b",
    "Llama-4-Scout-17B-16E-Instruct": "llama4_scout", "Kimi-K2-Instruct": "kimi_k2", "gpt-oss-20b": "gpt_oss_20b",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "nemotron3_nano_30b_a3b",
}  # fmt: skip
"""Configurations -> the size that ships."""
SCENARIO = {
    "cluster": {"node": "h200x8", "nodes": 16}, "schedule": "1f1b", "precision": "bf16", "outputs": ["result"],
    "parallel": {"pipeline": 4}, "batch": {"micro_batches": 8, "sequence_length": 4096},
}  # fmt: skip
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "head_dim": None, "rope_scaling": None,
    "sliding_window": None, "tie_word_embeddings": True,
}  # fmt: skip
"""Llama-3.2 1B (huggingface.co/meta-llama/Llama-3.2-1B, config.json), with null for none."""


def written(folder, model, name="scenario.yaml", **files):
    """A scenario in a folder, and other files beside it."""
    for file, content in files.items():
        path = folder / file.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content), encoding="utf-8")
    (folder / name).write_text(yaml.safe_dump({**SCENARIO, "model": model}), encoding="utf-8")
    return str(folder / name)


def total(shape):
    return weights(shape, main_units(family(shape.family).units(shape))).total


@pytest.mark.skipif(not CONFIGS.exists(), reason="published configurations are not here")
@pytest.mark.parametrize("name", GIVEN)
def test_counts_of_given_configurations(name, tmp_path):
    """As transformers counts them, but for its buffers and for what no family models, which is named."""
    shape = load(written(tmp_path, str(CONFIGS / f"{name}.json"))).model
    counted = json.loads((CONFIGS / "counts.json").read_text())[name]
    assert total(shape) + shape.unmodelled_parameters == counted + BUFFERS.get(name, 0)
    assert bool(shape.unmodelled) == (name in ("DeepSeek-V3.2", "GLM-5"))


@pytest.mark.skipif(not CONFIGS.exists(), reason="published configurations are not here")
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_sizes_are_what_their_configurations_say(name, tmp_path):
    given = load(written(tmp_path, str(CONFIGS / f"{name}.json"))).model
    ours = load(written(tmp_path, SHIPPED[name])).model
    sides = []
    for shape in (given, ours):
        layers = [shape.kind(i) for i in range(shape.layers)] if shape.family == "transformer" else []
        sides.append({**asdict(shape), "pattern": layers, "name": "", "source": ""})
    assert sides[0] == sides[1]


@pytest.mark.skipif(not CONFIGS.exists(), reason="published configurations are not here")
def test_what_is_not_modelled_is_one_line(tmp_path):
    scenario = load(written(tmp_path, str(CONFIGS / "DeepSeek-V3.2.json")))
    (line,) = notes(scenario, {}, [])
    assert line == (
        "model: DeepSeek-V3.2 has a sparse indexer that is not modelled (851,524,864 parameters, 0.13% of all)"
    )


def test_a_config_beside_the_scenario_runs(tmp_path):
    """Relative to the scenario's folder, called as its folder; null is as good as nothing."""
    path = written(tmp_path, "Llama-3.2-1B/config.json", **{"Llama-3.2-1B__config.json": LLAMA})
    scenario = load(path)
    assert scenario.model.name == "Llama-3.2-1B" and scenario.model.head_width == 64
    assert total(scenario.model) == 1_235_814_400  # transformers 5.24 on the meta device
    assert simulation.run(scenario, False).summary["step_time_s"] > 0


def test_a_config_may_be_changed(tmp_path):
    path = written(tmp_path, {"base": "tiny.json", "layers": 12}, **{"tiny.json": LLAMA})
    assert load(path).model.layers == 12
    assert load(path, ["model.layers=8", "model.tied=false"]).model.layers == 8
    assert load(written(tmp_path, "tiny.json", "other.yaml"), ["model.layers=8"]).model.layers == 8


def test_what_was_resolved_says_the_same_again(tmp_path):
    """Without the file: the resolved scenario has the dimensions written out, and no key that such a model lacks."""
    scenario = load(written(tmp_path, "tiny.json", **{"tiny.json": LLAMA}))
    again = sim.scenario.from_mapping(scenario.resolved)
    assert again.model == scenario.model and again.scenario_hash == scenario.scenario_hash
    assert "mamba_heads" not in scenario.resolved["model"]


def test_a_model_in_a_yaml_beside_the_scenario(tmp_path):
    """It may build on a shipped one."""
    path = written(tmp_path, "my.yaml", **{"my.yaml": {"base": "llama3_8b", "name": "Mine", "layers": 16}})
    assert (load(path).model.name, load(path).model.layers) == ("Mine", 16)
    whole = yaml.safe_load((SCENARIOS / "models" / "qwen3_8b.yaml").read_text())
    assert load(written(tmp_path, "sub/its.yaml", **{"sub__its.yaml": whole})).model.name == "Qwen3 8B"


def refused(path):
    with pytest.raises(DocumentError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_architecture_is_one_line(tmp_path):
    line = refused(written(tmp_path, "a.json", **{"a.json": {**LLAMA, "architectures": ["LlamoForCausalLM"]}}))
    assert line.startswith("a.json:1:1: model: unknown architecture 'LlamoForCausalLM', did you mean")
    assert all(name in line for name in ARCHITECTURES)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"hidden_size": None}, "config.json has no hidden_size; write it there"),
        ({"hidden_act": "tanh"}, "activation tanh is not modelled; legal: silu, gelu, relu2"),
        ({"hidden_size": "2048"}, "config.json: hidden_size: expected a whole number; found '2048'"),
        ({"num_attention_heads": 0}, "num_attention_heads: expected a whole number from 1 to 4096; found 0"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types: has 3 layers; legal: 16 (num_hidden_layers)"),
        ({"text_config": [1]}, "config.json: text_config: expected a mapping; found [1]"),
        ({"architectures": [["LlamaForCausalLM"]]}, f"legal: {', '.join(sorted(ARCHITECTURES))}"),
    ],
)
def test_what_a_config_lacks_is_one_line(tmp_path, change, line):
    assert refused(written(tmp_path, "a.json", **{"a.json": {**LLAMA, **change}})).endswith(line)


ODD = (
    None, True, 0, -1, 3, 2.5, 4096.0, 1e308, float("nan"), float("inf"), 10**400, "", "x", [], [1], ["x"] * 8,
    {"x": 1},
)  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_value_of_any_key_is_read_or_refused_in_a_line(architecture, monkeypatch):
    """The keys of an architecture are those that its reader asks for."""
    asked, read = set(), config._Given.read

    def recorded(self, key, *rest, **more):
        asked.add(key)
        return read(self, key, *rest, **more)

    monkeypatch.setattr(config._Given, "read", recorded)
    whole = {"architectures": [architecture]}
    while line := _refusal(whole):
        key = line.removeprefix("config.json has no ").split(";")[0]
        whole[key] = "M-*EM-*E" if key == "hybrid_override_pattern" else 8
    for key in sorted(asked | {"architectures"}):
        for value in ODD:
            assert "\n" not in _refusal({**whole, key: value})


def _refusal(content):
    try:
        model_of(content, "a model")
    except Refused as refused:
        return str(refused)
    return ""


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    assert refused(written(tmp_path, "absent.json")).startswith("absent.json: cannot be read")


def test_files_that_build_on_each_other_are_one_line(tmp_path):
    files = {"a.yaml": {"base": "b.yaml"}, "b.yaml": {"base": "a.yaml", "layers": 3}}
    assert refused(written(tmp_path, "a.yaml", **files)).endswith("base goes in a circle: a.yaml -> b.yaml -> a.yaml")


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "MPTForCausalLM"])
def test_other_names_of_dimensions(name):
    """GPT-2 XL: 1,557,611,200 parameters; MPT-7B as it ships."""
    if name == "GPT2LMHeadModel":
        c = {"n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": 1024, "vocab_size": 50257}
        count = 1_557_611_200
    else:
        c = {"d_model": 4096, "n_layers": 32, "n_heads": 32, "vocab_size": 50432, "expansion_ratio": 4, "no_bias": True}
        count = 6_649_286_656
    model = model_of({"architectures": [name], **c}, "a model")
    assert total(family("transformer").Shape(**model)) == count


def test_sizes_that_ship_are_named_by_list_and_schema():
    assert {"llama3_8b", "qwen3_30b_a3b", "gpt_oss_120b", "nemotron_h_56b", "grok_1"} <= set(models())


def test_a_capacity_acts_on_drawn_loads_alone(tmp_path):
    """Balanced loads are at the mean, which a line says; drawn ones are cut, and the step is no longer."""
    model = {"base": "qwen3_30b_a3b", "layers": 8, "capacity": 1.0}
    path = written(tmp_path, model)
    words = ["parallel.expert=8", "routing=skewed", "routing.max_vio=2"]
    (line,) = unfelt(load(path, words[:1]))
    assert line.startswith("model.capacity changes nothing: balanced routing gives each expert its mean, so nothing is")
    assert not list(unfelt(load(path, words)))
    unasked = replace(load(path, words[:1]), asked=())
    assert [line for line in notes(unasked, {}, []) if "so nothing is dropped" in line]
    cut, free = (
        simulation.run(load(path, [*words, *more]), False).summary["step_time_s"] for more in ([], ["model.capacity=0"])
    )
    assert cut < free


def test_experts_in_a_latent_space(tmp_path):
    """Nemotron-3 Super's configuration (huggingface.co/nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16) is what ships."""
    pattern = "MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME"
    published = {
        "architectures": ["NemotronHForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 88, "vocab_size": 131072,
        "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 5376,
        "hybrid_override_pattern": pattern, "n_routed_experts": 512, "n_shared_experts": 1, "num_experts_per_tok": 22,
        "moe_intermediate_size": 2688, "moe_shared_expert_intermediate_size": 5376, "moe_latent_size": 1024,
        "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128, "conv_kernel": 4,
        "chunk_size": 128, "tie_word_embeddings": False, "n_group": 1, "topk_group": 1,
    }  # fmt: skip
    shape = load(written(tmp_path, "config.json", **{"config.json".replace(".", "_dot_"): published})).model
    shipped = from_mapping({**SCENARIO, "model": "nemotron3_super_120b_a12b"}).model
    assert shape.expert_latent == shipped.expert_latent == 1024 and total(shape) == total(shipped)
