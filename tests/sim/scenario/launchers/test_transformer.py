"""Dimensions of models in Megatron-LM's arguments."""

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.models.config import shortest
from sim.scenario.launchers.patterns import listed
from sim.scenario.launchers.stages import lighter_ends
from tests.sim.scenario.launchers.launched import arguments


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ("--swiglu", {"activation": "swiglu", "intermediate": 2688}),  # 64 x int(4 h 2/3 / 64)
        ("--squared-relu --ffn-hidden-size 5000", {"activation": "relu2", "intermediate": 5000}),
        ("--quick-geglu", {"activation": "geglu"}),
        ("--group-query-attention --num-query-groups 4", {"kv_heads": 4}),
        ("--num-query-groups 4", {"kv_heads": 16}),
        ("--kv-channels 128", {"head_width": 128}),
        ("--disable-bias-linear --normalization RMSNorm", {"norm": "rms", "mlp_bias": None, "qkv_bias": None}),
        ("--disable-bias-linear --add-qkv-bias", {"qkv_bias": True, "output_bias": None}),
        ("--position-embedding-type rope --rotary-percent 0.5", {"rotary": 32, "positions": None}),
        ("--position-embedding-type rope", {"rotary": None, "positions": None}),
        ("--position-embedding-type none", {"rotary": 0, "positions": None}),
        ("--untie-embeddings-and-output-weights", {"tied": False}),
        ("--tensor-model-parallel-size 8", {"vocabulary": 32768}),
        ("--make-vocab-size-divisible-by 1", {"vocabulary": 32001}),
        ("--padded-vocab-size 40000", {"vocabulary": 40000}),
        ("--qk-layernorm --normalization RMSNorm", {"qk_norm": "rms"}),
        ("--qk-l2-norm", {"qk_norm": "l2"}),
        ("--mtp-num-layers 1", {"mtp_depth": 1}),
        ("--softmax-type learnable", {"sinks": True}),
        ("--window-size 127,0", {"pattern": "window+dense", "window": 128}),
        ("--window-size (127,0) --window-attn-skip-freq 2", {"pattern": "window+dense attention+dense", "window": 128}),
        ("--no-rope-freq 4", {"pattern": "attention+dense attention+dense attention+dense unrotated+dense"}),
        ("--multi-latent-attention --q-lora-rank 96", {"pattern": "latent+dense", "q_rank": 96, "kv_rank": 32,
                                                       "qk_nope": 128, "qk_rope": 64, "v_head": 128}),
        ("--num-experts 4", {"pattern": "attention+moe", "experts": 4, "experts_per_token": 2,
                             "expert_intermediate": 4096, "intermediate": None, "expert_bias": True}),
        ("--num-experts 4 --moe-latent-size 256", {"expert_latent": 256}),
        ("--num-experts 4 --moe-layer-freq 2", {"pattern": "attention+moe attention+dense", "intermediate": 4096}),
        ("--num-experts 4 --moe-layer-freq ([0]*3+[1]*5)", {"pattern": "attention+moe", "dense_layers": 3}),
        ("--num-experts 4 --moe-expert-capacity-factor 1.5", {"capacity": 1.5}),
        ("--hybrid-override-pattern MM-*-", {"pattern": "mamba mamba dense attention dense", "layers": 5,
                                             "mamba_heads": 32, "mamba_width": 64, "mamba_state": 128}),
    ],
)  # fmt: skip
def test_arguments_say_dimensions(tmp_path: Path, more: str, keys: dict[str, Any]) -> None:
    model = arguments(tmp_path, more).scenario["model"]
    assert {key: model.get(key) for key in keys} == keys


@given(st.lists(st.tuples(st.lists(st.sampled_from([0, 1]), min_size=1, max_size=4), st.integers(1, 5)), min_size=1))
def test_lists_are_what_python_says(parts: list[tuple[list[int], int]]) -> None:
    text = "(" + "+".join(f"{items}*{times}" for items, times in parts) + ")"
    assert listed(text) == (eval(text) if len(text) <= 400 else None)


@pytest.mark.parametrize("text", ["4", "[0]*99999", "[x]", "[1", "__import__('os')", "[[1]]", "[1]*[2]", "", "[9]*-1"])
def test_what_is_no_list_has_no_items(text: str) -> None:
    assert listed(text) is None


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=12))
def test_the_shortest_pattern_repeats_to_the_words(words: list[str]) -> None:
    short = shortest(words).split()
    assert [short[i % len(short)] for i in range(len(words))] == words
    assert len(short) == 1 or len(list(groupby(words))) > 1


@given(st.integers(8, 200), st.integers(2, 8), st.integers(0, 2), st.integers(0, 2))
def test_lighter_ends_hold_all_layers(layers: int, stages: int, first: int, last: int) -> None:
    counts = lighter_ends(layers, stages, first, last)
    assert sum(counts) == layers and len(counts) == stages
    loads = [counts[0] + first, *counts[1:-1], counts[-1] + last]
    assert max(loads) - min(loads) <= 1
