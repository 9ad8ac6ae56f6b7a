"""The dimensions of a model in Megatron-LM's arguments, as an inline model of the family transformer.

Defaults are those of megatron/training/arguments.py in NVIDIA/Megatron-LM, core_v0.15.0 (a default that came later, or
from another file, says which).
"""

from collections.abc import Mapping
from enum import Enum
from math import ceil
from typing import Any

from hwmodels.refused import Refused
from sim.models.config import shortest
from sim.scenario.launchers.patterns import LAYERS, LETTERS, listed
from sim.scenario.launchers.settings import Settings

HINT = "; write it, or name a known model with --model"
GPT2 = 50257
"""Tokens of GPT-2's vocabulary (GPT2BPETokenizer), whose files a script gives by path."""
TIKTOKEN = 1 << 17
"""Of a TikTokenizer where --vocab-size says nothing (megatron/training/tokenizer/tokenizer.py)."""
DIVISIBLE = 128
"""--make-vocab-size-divisible-by."""


class Kind(Enum):
    """Whose defaults hold: those of arguments, or of Megatron Core's own configuration (TransformerConfig), with the
    vocabulary padded or as it is."""

    ARGUMENTS, PADDED, PLAIN = range(3)


def model(s: Settings, name: str, vocabulary: int, tensor: int, kind: Kind) -> dict[str, Any]:
    """The keys of a model. vocabulary: tokens, 0: as the file says; tensor: ranks that share a layer. kind: whose
    defaults. Raises Refused for what is missing."""
    hidden = s.needed("hidden_size", HINT)
    heads = s.needed("num_attention_heads", HINT)
    kinds = _kinds(s)
    narrow = int(4 * hidden * 2 / 3) // 64 * 64 if s.flag("swiglu") and kind is Kind.ARGUMENTS else 4 * hidden
    wide = s.whole("ffn_hidden_size", narrow)
    keys: dict[str, Any] = {
        "family": "transformer", "name": name, "vocabulary": _vocabulary(s, vocabulary, tensor, kind), "hidden": hidden,
        "layers": len(kinds), "heads": heads, "kv_heads": _kv_heads(s, heads, kind),
        "head_width": s.whole("kv_channels", max(1, hidden // heads)),
        "tied": not s.flag("untie_embeddings_and_output_weights"),
    }  # fmt: skip
    if any("dense" in kind for kind in kinds):
        keys["intermediate"] = wide
    keys |= _pattern(kinds)
    keys["activation"] = _activation(s)
    keys |= _norms(s) | _biases(s) | _positions(s, keys["head_width"]) | _window(s, kinds) | _latent(s)
    keys |= _mamba(s, kinds, hidden) | _experts(s, kinds, wide)
    if depth := s.whole("mtp_num_layers", 0, least=0):
        keys["mtp_depth"] = depth
    return {**keys, "source": f"imported from {s.file}"}


def layers(s: Settings) -> int:
    """Layers of the model, by any of their names."""
    hybrid = "hybrid_layer_pattern" if "hybrid_layer_pattern" in s else "hybrid_override_pattern"
    if hybrid in s and (letters := _letters(s, hybrid)):
        s.read |= {"num_layers"}
        return len(letters)
    return s.needed("num_layers", HINT, "encoder_num_layers", "decoder_num_layers")


def _letters(s: Settings, name: str) -> list[str]:
    """Layers of a hybrid pattern; what follows a / is a prediction module, and | parts stages."""
    text = s.word(name).strip("'\"")
    main, _, ahead = text.partition("/")
    if ahead:
        s.note(name, "prediction modules of a hybrid are not modelled; left out")
    letters = [letter for letter in main if letter != "|"]
    if wrong := next((letter for letter in letters if letter not in LETTERS), ""):
        raise s.refusal(name, f"has a layer {wrong!r}; legal: {' '.join(LETTERS)}")
    return [LETTERS[letter] for letter in letters]


def _kinds(s: Settings) -> list[str]:
    """What each layer is, in the words of a pattern."""
    count = layers(s)
    if count > LAYERS:
        raise s.refusal("num_layers", f"expected a whole number from 1 to {LAYERS}; found {count}")
    for name in ("hybrid_layer_pattern", "hybrid_override_pattern"):
        if name in s:
            return _letters(s, name)
    mixers = _mixers(s, count)
    networks = _networks(s, count)
    return [f"{mixer}+{network}" for mixer, network in zip(mixers, networks, strict=True)]


def _mixers(s: Settings, count: int) -> list[str]:
    if s.flag("multi_latent_attention"):
        return ["latent"] * count
    window = ["window"] * count if s.values("window_size") else ["attention"] * count
    if window[0] == "window" and "window_attn_skip_freq" in s:
        # is_layer_window_attention in megatron/core/transformer/utils.py
        local = _every(s, "window_attn_skip_freq", count)
        window = [w if near else "attention" for w, near in zip(window, local, strict=True)]
    if "no_rope_freq" in s:
        turned = _every(s, "no_rope_freq", count)
        window = [w if rotates else "unrotated" for w, rotates in zip(window, turned, strict=True)]
    return window


def _every(s: Settings, name: str, count: int) -> list[bool]:
    """A layer's truth by a list of 1s and 0s, or by a number n: false in every nth. no_rope_freq says 1 for a layer
    without rope in a list: its truth is turned."""
    flipped = name == "no_rope_freq"
    if (items := listed(text := " ".join(map(str, s.values(name))))) is not None:
        if len(items) != count:
            raise s.refusal(name, f"has {len(items)} layers of {count}")
        return [bool(item) != flipped for item in items]
    step = s.whole(name)
    return [(i + 1) % step != 0 for i in range(count)] if text else [True] * count


def _networks(s: Settings, count: int) -> list[str]:
    """dense or moe, a layer: --moe-layer-freq is a list, or n for a mixture in every nth from the first."""
    if not _routed(s):
        return ["dense"] * count
    text = " ".join(map(str, s.values("moe_layer_freq"))) or "1"
    if (items := listed(text)) is None:
        step = s.whole("moe_layer_freq", 1)
        items = [int(i % step == 0) for i in range(count)]
    if len(items) != count:
        raise s.refusal("moe_layer_freq", f"has {len(items)} layers of {count}")
    return ["moe" if item else "dense" for item in items]


def _routed(s: Settings) -> int:
    return s.whole("num_experts", 0, least=0)


def _pattern(kinds: list[str]) -> dict[str, Any]:
    """The shortest pattern; leading dense layers are counted by themselves."""
    last = kinds[-1]
    lead = next((i for i, kind in enumerate(kinds) if kind != last.replace("moe", "dense")), len(kinds))
    if "moe" in last and 0 < lead < len(kinds) and set(kinds[lead:]) == {last}:
        return {"pattern": last, "dense_layers": lead}
    pattern = shortest(kinds)
    return {} if pattern == "attention+dense" else {"pattern": pattern}


def _kv_heads(s: Settings, heads: int, kind: Kind) -> int:
    """Groups only count beside --group-query-attention, where they are 1 unless said; in a configuration, alone."""
    whole = kind is not Kind.ARGUMENTS
    groups = s.whole("num_query_groups", heads if whole else 1)
    if s.flag("group_query_attention") or whole:
        return groups
    if "num_query_groups" in s:
        s.note("num_query_groups", "counts only beside --group-query-attention")
    return heads


def _vocabulary(s: Settings, given: int, tensor: int, of: Kind) -> int:
    """Tokens, padded as Megatron does to a multiple of --make-vocab-size-divisible-by x tensor parallelism."""
    multiple = s.whole("make_vocab_size_divisible_by", DIVISIBLE) * tensor
    s.flag("should_pad_vocab")
    multiple = multiple if of is not Kind.PLAIN else 1
    kind = s.word("tokenizer_type")
    usual = {"GPT2BPETokenizer": GPT2, "TikTokenizer": TIKTOKEN}.get(kind, 0)
    said, padded = s.whole("vocab_size", usual, least=0), s.whole("padded_vocab_size", 0, least=0)
    if padded and not given:
        return padded
    if given and "vocab_size" in s:
        s.note("vocab_size", f"stands aside for --vocabulary {given}")
    size = given or said
    if not size:
        raise Refused(f"{s.named('vocab_size')} is not in it, only a tokenizer; add --vocabulary N, its tokens", s.file)
    size += kind == "NullTokenizer" and not given and of is Kind.ARGUMENTS  # its end of a document
    return ceil(size / multiple) * multiple


def _activation(s: Settings) -> str:
    if s.flag("swiglu"):
        return "swiglu"
    if s.flag("squared_relu"):
        return "relu2"
    return "geglu" if s.flag("quick_geglu") else "gelu"


def _norms(s: Settings) -> dict[str, Any]:
    """--normalization is LayerNorm unless said. A norm of queries and keys is of the same kind; here it is RMSNorm."""
    norm = s.word("normalization", "LayerNorm", ("layernorm", "rmsnorm", "layernorm1p"))
    keys: dict[str, Any] = {"norm": "rms" if norm == "rmsnorm" else "layer"}
    if s.flag("multi_latent_attention"):
        s.read.add("qk_layernorm")  # those of the compressed queries and keys, which latent attention has
    elif s.flag("qk_layernorm"):
        keys["qk_norm"] = "rms"
        if keys["norm"] != "rms":
            s.note("qk_layernorm", "queries and keys are normalised by RMSNorm here, not LayerNorm")
    elif s.flag("qk_l2_norm"):
        keys["qk_norm"] = "l2"
    return keys


def _biases(s: Settings) -> dict[str, Any]:
    """Linear layers have biases unless --disable-bias-linear."""
    has = not s.flag("disable_bias_linear")
    keys = {"mlp_bias": has, "qkv_bias": has or s.flag("add_qkv_bias"), "output_bias": has}
    if _routed(s):
        clamp = s.number("activation_func_clamp_value", 0.0) > 0
        keys |= {"expert_bias": has, "expert_clamp": clamp, "gate_bias": s.flag("moe_router_enable_expert_bias")}
    return {key: True for key, value in keys.items() if value}


def _positions(s: Settings, width: int) -> dict[str, Any]:
    """--position-embedding-type is learned_absolute unless said."""
    legal = ("learned_absolute", "rope", "yarn", "mrope", "relative", "none")
    kind = s.word("position_embedding_type", "learned_absolute", legal)
    turned = s.number("rotary_percent", 1.0)
    longest = s.whole("max_position_embeddings", 0, least=0)
    without = s.flag("no_position_embedding")
    if s.flag("use_rotary_position_embeddings") or kind in ("rope", "yarn", "mrope"):
        return {"rotary": int(width * turned)} if turned < 1 else {}
    if kind == "learned_absolute" and not without:
        return {"rotary": 0, "positions": longest or s.whole("seq_length", 0, least=0)}
    if kind == "relative":
        s.note("position_embedding_type", "relative positions are not modelled; left out")
    return {"rotary": 0}


def _window(s: Settings, kinds: list[str]) -> dict[str, Any]:
    """Keys that a query sees in window layers: itself and those before it in (left, right)."""
    keys: dict[str, Any] = {}
    if any(kind.startswith("window") for kind in kinds):
        first = str(s.values("window_size")[0]).strip("([ ")
        left = first.replace(",", " ").split()[0] if first else ""
        if not left.isdigit() or not 0 < int(left[:12]) < 1 << 20:
            raise s.refusal("window_size", f"expected keys before and after a query, e.g. 127,0; found {left!r}")
        keys["window"] = int(left) + 1
    kind = s.word("softmax_type", "vanilla", ("vanilla", "learnable", "off-by-one"))
    return keys | ({} if kind == "vanilla" else {"sinks": True})


def _latent(s: Settings) -> dict[str, Any]:
    """Widths of multi-latent attention, by the defaults of its arguments."""
    if not s.flag("multi_latent_attention"):
        return {}
    return {
        "q_rank": s.whole("q_lora_rank", 0, least=0), "kv_rank": s.whole("kv_lora_rank", 32),
        "qk_nope": s.whole("qk_head_dim", 128), "qk_rope": s.whole("qk_pos_emb_head_dim", 64),
        "v_head": s.whole("v_head_dim", 128),
    }  # fmt: skip


def _mamba(s: Settings, kinds: list[str], hidden: int) -> dict[str, Any]:
    """Mamba layers: twice the width of the model in heads of 64 unless said (megatron/core/ssm/mamba_mixer.py)."""
    if "mamba" not in kinds:
        return {}
    width = s.whole("mamba_head_dim", 64)
    return {
        "mamba_heads": s.whole("mamba_num_heads", max(1, 2 * hidden // width)), "mamba_width": width,
        "mamba_groups": s.whole("mamba_num_groups", 8), "mamba_state": s.whole("mamba_state_dim", 128),
    }  # fmt: skip


def _experts(s: Settings, kinds: list[str], wide: int) -> dict[str, Any]:
    if not any("moe" in kind for kind in kinds):
        return {}
    if not _routed(s):
        raise s.refusal("num_experts", "is missing beside layers with experts")
    keys: Mapping[str, Any] = {
        "experts": _routed(s), "experts_per_token": s.whole("moe_router_topk", 2),
        "expert_intermediate": s.whole("moe_ffn_hidden_size", wide),
        "shared_intermediate": s.whole("moe_shared_expert_intermediate_size", 0, least=0),
        "expert_latent": s.whole("moe_latent_size", 0, least=0),
        "score": s.word("moe_router_score_function", "softmax", ("softmax", "sigmoid")),
        "groups": s.whole("moe_router_num_groups", 1), "groups_per_token": s.whole("moe_router_group_topk", 1),
        "capacity": s.number("moe_expert_capacity_factor", 0.0),
    }  # fmt: skip
    unsaid = {"shared_intermediate": 0, "expert_latent": 0, "score": "softmax", "groups": 1, "groups_per_token": 1,
              "capacity": 0.0}  # fmt: skip
    return {key: value for key, value in keys.items() if key not in unsaid or value != unsaid[key]}
