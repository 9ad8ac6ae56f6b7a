"""Tiny models for the tests of this folder, and the same weights in Hugging Face's modules."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from numerics.layers.attention import LatentAttention
from numerics.layers.block import Block
from numerics.layers.config import Config, Precision, Yarn
from numerics.layers.experts import MixtureOfExperts
from numerics.layers.model import Model
from numerics.reference import compare
from sim.models.deepseek.shape import DeepSeekShape

V3 = DeepSeekShape(
    family="deepseek", name="tiny V3", vocabulary=61, hidden=128, layers=3, dense_layers=1, dense_intermediate=160,
    expert_intermediate=64, experts=8, shared_experts=1, experts_per_token=3, groups=4, groups_per_token=2,
    route_scale=2.5, score="sigmoid", heads=4, qk_nope=16, qk_rope=8, v_head=12, q_rank=48, kv_rank=32, mtp_depth=0,
    source="made up, so that no two widths are equal",
)  # fmt: skip
V2 = replace(V3, name="tiny V2", score="softmax", shared_experts=2, route_scale=16.0)
V2_LITE = replace(V2, name="tiny V2-Lite", q_rank=0, groups=1, groups_per_token=1, route_scale=1.0)
TRAINED = replace(
    V3, name="tiny, to train", vocabulary=32, layers=2, experts=4, groups=2, experts_per_token=2, mtp_depth=1
)
Pair = tuple[str, Tensor, Tensor]
YARN = Yarn(factor=8.0, original_length=64, mscale=1.0)
STD = 0.08
"""Of weights: large enough that every part moves the output of so small a model."""


def config(shape: DeepSeekShape = V3, precision: Precision = Precision.FP32, **more: object) -> Config:
    return Config(shape, precision, **{"init_std": STD, "balance": 0.0, **more})


def model(shape: DeepSeekShape = V3, precision: Precision = Precision.FP32, seed: int = 0, **more: object) -> Model:
    torch.manual_seed(seed)
    return disturb(Model(config(shape, precision, **more)))


def disturb(module: nn.Module) -> nn.Module:
    """Norm weights away from 1 and gate biases away from 0, so that leaving one out shows."""
    with torch.no_grad():
        for name, p in [*module.named_parameters(), *module.named_buffers()]:
            if p.dim() == 1 and name.endswith("weight"):
                p.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                p.normal_(0.0, 0.1)
    return module


def tokens(shape: DeepSeekShape, batch: int = 2, length: int = 24, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.vocabulary, (batch, length), generator=generator)


def far(found: Tensor, expected: Tensor) -> float:
    """Largest difference, in units of the largest expected magnitude."""
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


def hold(found: Tensor, expected: Tensor, tolerance: float, name: str = "layer", gain: float = 0.02) -> None:
    """Gate of chains of products: the whole at `tolerance` and `gain`; each row and column at three times that.

    A row's error comes through some hundred activations or tokens in common, so it does not average over its elements
    as `compare.gate` supposes of one product. A zeroed row and a 3 % scale still fail (test_layers_experts).
    """
    found, expected = found.detach(), expected.detach()
    error, factor = compare.relative_error(found, expected), compare.gain(found, expected)
    assert error < tolerance and abs(factor) < min(gain, tolerance), (name, error, factor)
    compare.gate(found, expected, 3 * tolerance, gain_tolerance=3 * gain, name=name)


def huggingface_config(shape: DeepSeekShape, yarn: Yarn | None = None) -> object:
    """transformers' configuration of the same model; V2's where scores are softmax."""
    from transformers import DeepseekV2Config, DeepseekV3Config

    rope = {"rope_type": "default", "rope_theta": 10000.0}
    if yarn is not None:
        rope = {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": yarn.factor, "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow, "mscale": yarn.mscale, "mscale_all_dim": yarn.mscale,
            "original_max_position_embeddings": yarn.original_length,
        }  # fmt: skip
    fields = {
        "vocab_size": shape.vocabulary, "hidden_size": shape.hidden,
        "intermediate_size": shape.dense_intermediate, "moe_intermediate_size": shape.expert_intermediate,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads, "n_shared_experts": shape.shared_experts,
        "n_routed_experts": shape.experts, "routed_scaling_factor": shape.route_scale,
        "kv_lora_rank": shape.kv_rank, "q_lora_rank": shape.q_rank or None, "qk_rope_head_dim": shape.qk_rope,
        "v_head_dim": shape.v_head, "qk_nope_head_dim": shape.qk_nope, "n_group": shape.groups,
        "topk_group": shape.groups_per_token, "num_experts_per_tok": shape.experts_per_token,
        "first_k_dense_replace": shape.dense_layers, "norm_topk_prob": shape.score == "sigmoid",
        "rope_parameters": rope, "attn_implementation": "eager", "max_position_embeddings": 512,
    }  # fmt: skip
    if shape.score == "sigmoid":
        return DeepseekV3Config(**fields)
    return DeepseekV2Config(**fields, topk_method="group_limited_greedy" if shape.groups > 1 else "greedy")


def attention_names(ours: LatentAttention) -> dict[str, str]:
    """Our parameters of attention -> transformers'."""
    names = {"kv_down.weight": "kv_a_proj_with_mqa.weight", "kv_norm.weight": "kv_a_layernorm.weight",
             "kv_up.weight": "kv_b_proj.weight", "out.weight": "o_proj.weight"}  # fmt: skip
    if ours.q_down is None:
        return names | {"q_up.weight": "q_proj.weight"}
    return names | {"q_down.weight": "q_a_proj.weight", "q_norm.weight": "q_a_layernorm.weight",
                    "q_up.weight": "q_b_proj.weight"}  # fmt: skip


def mixture_names(ours: MixtureOfExperts) -> dict[str, str | tuple[str, str]]:
    """Our tensors of a mixture layer -> transformers'; two names are joined by rows."""
    names: dict[str, str | tuple[str, str]] = {
        "gate.weight": "gate.weight", "gate_up": "experts.gate_up_proj", "down": "experts.down_proj",
        "shared.gate_up": ("shared_experts.gate_proj.weight", "shared_experts.up_proj.weight"),
        "shared.down": "shared_experts.down_proj.weight",
    }  # fmt: skip
    if ours.gate.bias is not None:
        names["gate.bias"] = "gate.e_score_correction_bias"
    return names


def block_names(ours: Block) -> dict[str, str | tuple[str, str]]:
    """Our tensors of a transformer layer -> transformers'."""
    names: dict[str, str | tuple[str, str]] = {
        "attention_norm.weight": "input_layernorm.weight", "ffn_norm.weight": "post_attention_layernorm.weight",
    }  # fmt: skip
    names |= {f"attention.{a}": f"self_attn.{b}" for a, b in attention_names(ours.attention).items()}
    if isinstance(ours.ffn, MixtureOfExperts):
        return names | {f"ffn.{a}": _prefixed("mlp.", b) for a, b in mixture_names(ours.ffn).items()}
    return names | {"ffn.gate_up": ("mlp.gate_proj.weight", "mlp.up_proj.weight"), "ffn.down": "mlp.down_proj.weight"}


def model_names(ours: Model) -> dict[str, str | tuple[str, str]]:
    """Our tensors of a whole model -> those of transformers' causal language model."""
    names: dict[str, str | tuple[str, str]] = {
        "embedding": "model.embed_tokens.weight", "norm.weight": "model.norm.weight",
        "head.project.weight": "lm_head.weight",
    }  # fmt: skip
    for i, block in enumerate(ours.blocks):
        names |= {f"blocks.{i}.{a}": _prefixed(f"model.layers.{i}.", b) for a, b in block_names(block).items()}
    return names


def copy_into(theirs: nn.Module, ours: nn.Module, names: dict[str, str | tuple[str, str]]) -> None:
    """Give transformers' module our weights. Fails where a tensor of either side is left over or does not fit."""
    mine, yours = ours.state_dict(), theirs.state_dict()
    assert set(mine) == set(names)
    targets = [one for name in names.values() for one in ((name,) if isinstance(name, str) else name)]
    assert set(yours) == set(targets), set(yours) ^ set(targets)
    with torch.no_grad():
        for name, other in names.items():
            parts = [mine[name]] if isinstance(other, str) else mine[name].chunk(2)
            for part, target in zip(parts, (other,) if isinstance(other, str) else other, strict=True):
                assert yours[target].shape == part.shape, (name, target)
                yours[target].copy_(part)


def gradients(theirs: nn.Module, ours: nn.Module, names: dict[str, str | tuple[str, str]]) -> Iterator[Pair]:
    """Name, our gradient and theirs, of each of our parameters."""
    yours = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        other = names[name]
        whole = yours[other].grad if isinstance(other, str) else torch.cat([yours[o].grad for o in other])
        yield name, p.grad, whole


def _prefixed(prefix: str, name: str | tuple[str, str]) -> str | tuple[str, str]:
    return prefix + name if isinstance(name, str) else (prefix + name[0], prefix + name[1])
