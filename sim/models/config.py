"""Hugging Face's config.json as a model: by its architecture, our keys from theirs.

Sources: the model classes of huggingface/transformers 5.24 (src/transformers/models), whose defaults stand where a
file gives null or nothing. What an architecture has and no family here models is named under `unmodelled`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hwmodels.document import unknown
from hwmodels.refused import Refused
from sim.models.form import FEW

Config = Mapping[str, Any]
Model = dict[str, Any]


def is_config(content: Any) -> bool:
    """Whether a document is a config.json and no model of ours."""
    return isinstance(content, Mapping) and "family" not in content and "architectures" in content


def model_of(content: Config, name: str) -> Model:
    """Our keys and values for a config.json. name: of the model. Raises Refused for an architecture that is not
    known, a key that it lacks, and a layer that it has and we do not."""
    architectures = content["architectures"]
    first = architectures[0] if isinstance(architectures, list) and architectures else architectures
    if not isinstance(first, str) or first not in ARCHITECTURES:
        raise Refused(unknown(first, "architecture", ARCHITECTURES))
    config = _Given({**content, **_Given(content).read("text_config", {})})
    model = {"name": name, **_common(config), **ARCHITECTURES[first](config), "source": f"config.json of {first}"}
    if not model.get("dense_layers") and "dense" not in model.get("pattern", "dense"):
        model.pop("intermediate", None)  # some give one that no layer has
    return model


WORDS: Mapping[type, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a list", dict: "a mapping",
}  # fmt: skip
"""Kind of value -> what it is called."""
LARGEST = 1 << 62
"""Of numbers that are read."""


class _Given(dict[str, Any]):
    """A config.json in which null is as good as nothing."""

    def read(self, key: str, default: Any = None, kind: type = int) -> Any:
        """The value of a key, or the default where none is given. It is of the default's kind, or of `kind` where there
        is no default. Raises Refused for one of another kind, and where there is neither."""
        value = self.get(key)
        if value is None and default is None:
            raise Refused(f"config.json has no {key}; write it there")
        return default if value is None else _of_kind(key, value, kind if default is None else type(default))

    def count(self, key: str, default: int | None = None) -> int:
        """Of things that are listed, or that others are divided by: 1 to FEW."""
        value: int = self.read(key, default)
        if not 1 <= value <= FEW:
            raise Refused(f"config.json: {key}: expected a whole number from 1 to {FEW}; found {value}")
        return value

    def layers(self, key: str) -> list[Any]:
        """What a list says of each layer; nothing where there is no list. Raises Refused for one of other layers."""
        value, layers = self.read(key, []), self.count("num_hidden_layers")
        if value and len(value) != layers:
            raise Refused(f"config.json: {key}: has {len(value)} layers; legal: {layers} (num_hidden_layers)")
        return list(value)


def _of_kind(key: str, value: Any, kind: type) -> Any:
    """A value that is of a kind, or as good as: 4096.0 is whole, 1 is true. Raises Refused."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
    if kind is int and number and value == value // 1:
        return int(value)
    if number if kind is float else kind is not int and isinstance(value, kind):
        return value
    if kind is bool and number and value in (0, 1):
        return bool(value)
    raise Refused(f"config.json: {key}: expected {WORDS[kind]}; found {value!r}")


def _common(c: _Given) -> Model:
    """What every architecture gives under the same names, or GPT-2's and MPT's."""
    sizes = ("vocab_size",), ("hidden_size", "n_embd", "d_model"), ("num_hidden_layers", "n_layer", "n_layers")
    values = (c.read(next((name for name in names if name in c), names[0])) for names in sizes)
    return dict(zip(("vocabulary", "hidden", "layers"), values, strict=True))


# --- transformer ------------------------------------------------------------------------------------------------------


def _attending(c: _Given, bias: bool = False, tied: bool = False) -> Model:
    """Heads and the ends. bias, tied: the architecture's defaults."""
    heads = c.count("num_attention_heads")
    width = c.read("head_dim", c.read("hidden_size") // heads)
    has = c.read("attention_bias", bias)
    turned = {"rotary": int(width * share)} if (share := c.read("partial_rotary_factor", 1.0)) < 1 else {}
    return {
        "family": "transformer", "heads": heads, "kv_heads": c.read("num_key_value_heads", heads), "head_width": width,
        "tied": c.read("tie_word_embeddings", tied), "qkv_bias": has, "output_bias": has, **turned,
    }  # fmt: skip


def shortest(words: Sequence[str]) -> str:
    """The shortest list of words that repeats to these."""
    size = next(n for n in range(1, len(words) + 1) if all(w == words[i % n] for i, w in enumerate(words)))
    return " ".join(words[:size])


def _mixers(c: _Given, sliding: bool = True) -> tuple[list[str], Model]:
    """The mixer of each layer, and the window; sliding: whether layers have one where no list says which."""
    layers, window = c.count("num_hidden_layers"), c.read("sliding_window", 0)
    listed = c.layers("layer_types") or ["sliding_attention" if sliding else "full_attention"] * layers
    if not window or not c.read("use_sliding_window", True):
        return ["attention"] * layers, {}
    mixers = ["window" if word == "sliding_attention" else "attention" for word in listed]
    return mixers, {"window": window} if "window" in mixers else {}


def _dense(c: _Given) -> Model:
    """Llama and Mistral."""
    mixers, window = _mixers(c)
    words = [f"{mixer}+dense" for mixer in mixers]
    return {
        **_attending(c), **window, "pattern": shortest(words), "intermediate": c.read("intermediate_size"),
        "mlp_bias": c.read("mlp_bias", False), "activation": _activation(c.read("hidden_act", "silu"), gated=True),
    }  # fmt: skip


def _activation(word: str, gated: bool) -> str:
    known = {("silu", True): "swiglu", ("gelu", True): "geglu", ("gelu", False): "gelu", ("relu2", False): "relu2"}
    near = "gelu" if word.startswith("gelu") else word
    if (near, gated) not in known:
        raise Refused(f"activation {word} is not modelled; legal: silu, gelu, relu2")
    return known[near, gated]


def _qwen2(c: _Given) -> Model:
    mixers, window = _mixers(c, sliding=False)
    if not c.read("use_sliding_window", False):
        mixers, window = ["attention"] * len(mixers), {}
    pattern = shortest([f"{mixer}+dense" for mixer in mixers])
    return {**_dense(c), "window": 0, **window, "pattern": pattern, "qkv_bias": True, "output_bias": False}


def _qwen3(c: _Given) -> Model:
    has = c.read("attention_bias", False)
    return {**_qwen2(c), "qkv_bias": has, "output_bias": has, "qk_norm": "rms"}


def _routed(c: _Given, experts: str, width: str, **more: Any) -> Model:
    """Experts by the names that an architecture has for them."""
    return {
        "experts": c.read(experts), "experts_per_token": c.read("num_experts_per_tok"),
        "expert_intermediate": c.read(width), **more,
    }  # fmt: skip


def _qwen3_moe(c: _Given) -> Model:
    step, dense = c.count("decoder_sparse_step", 1), c.read("mlp_only_layers", [])
    words = [
        "attention+dense" if i in dense or (i + 1) % step else "attention+moe"
        for i in range(c.count("num_hidden_layers"))
    ]
    return {**_qwen3(c), "pattern": shortest(words), **_routed(c, "num_experts", "moe_intermediate_size")}


def _mixtral(c: _Given) -> Model:
    mixers, window = _mixers(c)
    pattern = shortest([f"{mixer}+moe" for mixer in mixers])
    return {**_attending(c), **window, "pattern": pattern, **_routed(c, "num_local_experts", "intermediate_size")}


def _gpt_oss(c: _Given) -> Model:
    mixers, window = _mixers(c)
    pattern = shortest([f"{mixer}+moe" for mixer in mixers])
    routed = _routed(c, "num_local_experts", "intermediate_size", expert_bias=True, expert_clamp=True, gate_bias=True)
    return {**_attending(c, bias=True), **window, "pattern": pattern, "sinks": True, **routed}


def _llama4(c: _Given) -> Model:
    step, chunk = c.count("interleave_moe_layer_step", 1), c.read("attention_chunk_size", 0)
    layers, unrotated = c.count("num_hidden_layers"), c.count("no_rope_layer_interval", 4)
    turned = c.layers("no_rope_layers") or [int((i + 1) % unrotated != 0) for i in range(layers)]
    moe = c.read("moe_layers", []) or range(step - 1, layers, step)
    local = "chunk" if chunk else "attention"
    words = [f"{local if turned[i] else 'unrotated'}+{'moe' if i in moe else 'dense'}" for i in range(layers)]
    routed = _routed(c, "num_local_experts", "intermediate_size", shared_intermediate=c.read("intermediate_size"))
    return {
        **_attending(c), "pattern": shortest(words), "chunk": chunk, "intermediate": c.read("intermediate_size_mlp"),
        "qk_norm": "l2" if c.read("use_qk_norm", True) else "none", **routed, "score": "sigmoid",
    }  # fmt: skip


def _grouped(c: _Given) -> Model:
    """How a sigmoid gate with a correcting bias limits a token to groups (DeepSeek-V3's, also in others)."""
    return {
        "score": "sigmoid", "gate_bias": True, "groups": c.read("n_group", 1),
        "groups_per_token": c.read("topk_group", 1),
    }  # fmt: skip


def _glm4_moe(c: _Given) -> Model:
    shared = c.read("n_shared_experts", 0) * c.read("moe_intermediate_size")
    return {
        **_attending(_Given({"partial_rotary_factor": 0.5, **c})), "output_bias": False,
        "pattern": "attention+moe", "dense_layers": c.read("first_k_dense_replace", 1),
        "intermediate": c.read("intermediate_size"), "qk_norm": "rms" if c.read("use_qk_norm", False) else "none",
        **_routed(c, "n_routed_experts", "moe_intermediate_size", shared_intermediate=shared), **_grouped(c),
        "mtp_depth": c.read("num_nextn_predict_layers", 0),
    }  # fmt: skip


def _nemotron(c: _Given) -> Model:
    c = _Given({"partial_rotary_factor": 0.5, **c})
    activation = _activation(c.read("hidden_act", "relu2"), gated=False)
    return {
        **_attending(c), "intermediate": c.read("intermediate_size"), "activation": activation,
        "mlp_bias": c.read("mlp_bias", False), "norm": "layer",
    }  # fmt: skip


_LETTERS = {"M": "mamba", "-": "dense", "*": "attention", "E": "moe"}


def _spelled(letters: str) -> list[str]:
    """Layers by their letters. Raises Refused."""
    odd = next((letter for letter in letters if letter not in _LETTERS), "")
    if odd or not letters:
        known = ", ".join(f"{letter} ({word})" for letter, word in _LETTERS.items())
        raise Refused(f"config.json: hybrid_override_pattern: found {odd!r}; legal: {known}")
    return [_LETTERS[letter] for letter in letters]


def _nemotron_h(c: _Given) -> Model:
    listed = c.layers("layers_block_type") or _spelled(c.read("hybrid_override_pattern", kind=str))
    words = ["dense" if word == "mlp" else str(word) for word in listed]
    routed: Model = {}
    if "moe" in words:
        shared = c.read("n_shared_experts", 1) * c.read("moe_shared_expert_intermediate_size")
        routed = _routed(c, "n_routed_experts", "moe_intermediate_size", shared_intermediate=shared) | _grouped(c)
        routed |= {"expert_latent": width} if (width := c.read("moe_latent_size", 0)) else {}
    return {
        **_attending(c), "rotary": 0, "pattern": shortest(words), "intermediate": c.read("intermediate_size"),
        "activation": _activation(c.read("mlp_hidden_act", "relu2"), gated=False),
        "mlp_bias": c.read("mlp_bias", False), **routed, "mamba_heads": c.read("mamba_num_heads"),
        "mamba_width": c.read("mamba_head_dim"), "mamba_groups": c.read("n_groups", 8),
        "mamba_state": c.read("ssm_state_size"), "mamba_conv": c.read("conv_kernel", 4),
        "mamba_chunk": c.read("chunk_size", 128),
    }  # fmt: skip


def _mpt(c: _Given) -> Model:
    heads, hidden, bias = c.count("n_heads"), c.read("d_model"), not c.read("no_bias", True)
    shared = _Given(c.read("attn_config", {})).read("kv_n_heads", heads)
    return {
        "family": "transformer", "heads": heads, "kv_heads": shared, "head_width": hidden // heads, "rotary": 0,
        "tied": c.read("tie_word_embeddings", True), "intermediate": int(c.read("expansion_ratio", 4.0) * hidden),
        "activation": "gelu", "norm": "layer" if bias else "layer_unbiased", "mlp_bias": bias, "qkv_bias": bias,
        "output_bias": bias,
    }  # fmt: skip


def _gpt2(c: _Given) -> Model:
    heads, hidden = c.count("n_head"), c.read("n_embd")
    return {
        "family": "transformer", "heads": heads, "kv_heads": heads, "head_width": hidden // heads, "rotary": 0,
        "tied": c.read("tie_word_embeddings", True), "intermediate": c.read("n_inner", 4 * hidden),
        "positions": c.read("n_positions"), "activation": "gelu", "norm": "layer",
        **dict.fromkeys(("mlp_bias", "qkv_bias", "output_bias"), True),
    }  # fmt: skip


# --- deepseek ---------------------------------------------------------------------------------------------------------


def _deepseek(c: _Given) -> Model:
    """V2, V3 and their likes."""
    if (every := c.read("moe_layer_freq", 1)) != 1:
        raise Refused(f"moe_layer_freq {every} is not modelled in the deepseek family; legal: 1")
    limited = c.read("topk_method", "noaux_tc") != "greedy"
    return {
        "family": "deepseek", "dense_layers": c.read("first_k_dense_replace", 0),
        "dense_intermediate": c.read("intermediate_size"), "expert_intermediate": c.read("moe_intermediate_size"),
        "experts": c.read("n_routed_experts"), "shared_experts": c.read("n_shared_experts", 0),
        "experts_per_token": c.read("num_experts_per_tok"), "groups": c.read("n_group", 1) if limited else 1,
        "groups_per_token": c.read("topk_group", 1) if limited else 1,
        "route_scale": float(c.read("routed_scaling_factor", 1.0)), "score": c.read("scoring_func", "softmax"),
        "heads": c.read("num_attention_heads"), "qk_nope": c.read("qk_nope_head_dim"),
        "qk_rope": c.read("qk_rope_head_dim"), "v_head": c.read("v_head_dim"), "q_rank": c.read("q_lora_rank", 0),
        "kv_rank": c.read("kv_lora_rank"), "mtp_depth": c.read("num_nextn_predict_layers", 0),
    }  # fmt: skip


def _sparse(c: _Given) -> Model:
    """DeepSeek-V3.2 and GLM-5: latent attention over the keys that an indexer picks. The indexer is left out, and
    attention is over all keys, as in the dense stage of such a model's training.

    Its parameters: products of the compressed query, of the hidden state to one key and to a weight a head, and a
    LayerNorm of the key (arXiv:2512.02556 sec 2.1).
    """
    heads, width = c.read("index_n_heads"), c.read("index_head_dim")
    layer = c.read("q_lora_rank") * heads * width + c.read("hidden_size") * (width + heads) + 2 * width
    left_out = {"unmodelled": "a sparse indexer", "unmodelled_parameters": layer * c.read("num_hidden_layers")}
    return {**_deepseek(c), "score": c.read("scoring_func", "sigmoid"), **left_out}


ARCHITECTURES: dict[str, Callable[[_Given], Model]] = {
    "LlamaForCausalLM": _dense, "MistralForCausalLM": _dense, "Qwen2ForCausalLM": _qwen2, "Qwen3ForCausalLM": _qwen3,
    "Qwen3MoeForCausalLM": _qwen3_moe, "MixtralForCausalLM": _mixtral, "GptOssForCausalLM": _gpt_oss,
    "Llama4ForConditionalGeneration": _llama4, "Llama4ForCausalLM": _llama4, "Glm4MoeForCausalLM": _glm4_moe,
    "NemotronForCausalLM": _nemotron, "NemotronHForCausalLM": _nemotron_h, "MPTForCausalLM": _mpt,
    "MptForCausalLM": _mpt, "GPT2LMHeadModel": _gpt2, "DeepseekV2ForCausalLM": _deepseek,
    "DeepseekV3ForCausalLM": _deepseek, "DeepseekV32ForCausalLM": _sparse, "GlmMoeDsaForCausalLM": _sparse,
}  # fmt: skip
"""Architectures that are read. Tests hold their counts against transformers' own."""
