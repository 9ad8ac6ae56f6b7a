"""Names of Hugging Face's config.json and ours, for a refusal that says what to write: no reader of such files."""

from collections.abc import Collection, Mapping
from typing import Any

NAMES: dict[str, tuple[str, ...]] = {
    "vocab_size": ("vocabulary",), "hidden_size": ("hidden",), "num_hidden_layers": ("layers",),
    "first_k_dense_replace": ("dense_layers",), "intermediate_size": ("dense_intermediate", "intermediate"),
    "moe_intermediate_size": ("expert_intermediate",), "n_routed_experts": ("experts",), "num_experts": ("experts",),
    "num_local_experts": ("experts",), "n_shared_experts": ("shared_experts",),
    "num_experts_per_tok": ("experts_per_token",), "n_group": ("groups",), "topk_group": ("groups_per_token",),
    "routed_scaling_factor": ("route_scale",), "scoring_func": ("score",), "num_attention_heads": ("heads",),
    "num_key_value_heads": ("kv_heads",), "head_dim": ("head_width",), "qk_nope_head_dim": ("qk_nope",),
    "qk_rope_head_dim": ("qk_rope",), "v_head_dim": ("v_head",), "q_lora_rank": ("q_rank",),
    "kv_lora_rank": ("kv_rank",), "num_nextn_predict_layers": ("mtp_depth",), "tie_word_embeddings": ("tied",),
}  # fmt: skip
"""Name in config.json -> keys that mean the same, of which a family has at most one (transformers, 5.0)."""

KINDS = ("model_type", "architectures")
"""What a config.json says of its architecture."""


def name(content: Any) -> str:
    """The architecture that a config.json names, such as "deepseek_v3 (DeepseekV3ForCausalLM)", or ""."""
    if not isinstance(content, Mapping) or not any(key in content for key in KINDS):
        return ""
    listed = content.get("architectures")
    classes = ", ".join(map(str, listed)) if isinstance(listed, list) else str(listed or "")
    kind = str(content.get("model_type") or "")
    return f"{kind} ({classes})" if kind and classes else kind or classes or "no name"


def remark(content: Any, legal: Collection[str]) -> tuple[str, str]:
    """The first key of `content` that has Hugging Face's name, and a line on what to write for all; ("", "") for none.

    legal: keys of the model's family, or none where it says no family.
    """
    if not isinstance(content, Mapping):
        return "", ""
    theirs = [key for key in content if key not in legal and (key in NAMES or key in KINDS)]
    if not theirs:
        return "", ""
    ours = {key: next((word for word in NAMES.get(key, ()) if word in legal), "") for key in theirs}
    pairs = ", ".join(f"{key} -> {word}" for key, word in ours.items() if word)
    kind = f" of {architecture}" if (architecture := name(content)) else ""
    if not pairs:
        return theirs[0], f"has names of a Hugging Face config.json{kind}; write a family and its keys instead"
    rest = [key for key in theirs if not ours[key]]
    more = f"; without a key here: {', '.join(rest)}" if rest else ""
    return theirs[0], f"has names of a Hugging Face config.json{kind}; write {pairs}{more}"
