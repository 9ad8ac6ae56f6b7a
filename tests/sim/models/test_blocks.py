"""Blocks of transformers: kernels against the formula, what is kept by hand, scans in closed form, odd words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.document import DocumentError
from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory
from sim.models import deepseek, transformer
from sim.models.family import main_units, weights
from sim.models.layer import COMMUNICATION, COMPUTE, EXPERT, WEIGHT, Site, Unit
from sim.models.precision import RECIPES
from sim.models.stacks.deepseek import mamba
from sim.models.transformer.shape import TransformerShape
from sim.scenario import from_mapping
from tests.sim.models.test_sizes import SHAPES

V3_AS_PATTERN = {
    "family": "transformer", "name": "DeepSeek-V3", "vocabulary": 129280, "hidden": 7168, "layers": 61, "tied": False,
    "pattern": "latent+moe", "dense_layers": 3, "intermediate": 18432, "heads": 128, "kv_heads": 128,
    "head_width": 192, "q_rank": 1536, "kv_rank": 512, "qk_nope": 128, "qk_rope": 64, "v_head": 128, "experts": 256,
    "experts_per_token": 8, "expert_intermediate": 2048, "shared_intermediate": 2048, "gate_bias": True,
    "score": "sigmoid", "groups": 8, "groups_per_token": 4, "mtp_depth": 1, "source": "arXiv:2412.19437 sec 4.2",
}  # fmt: skip
"""The same model in the words of the other family."""


def site(shape, recipe="bf16", sequences=1, length=4096, local=16, group=8):
    """A rank to whose experts as many rows come as its tokens choose, without padding."""
    tokens = sequences * length
    chosen = max(1, shape.experts_per_token)
    return Site(shape, RECIPES[recipe], sequences, length, tokens * 4, tokens * chosen, 1.0, 4.0, local, group, 1)


def kernels(where, unit, directions="FBW"):
    return [k for d in directions for part in transformer.parts(where, unit, d) for k in part.kernels]


def products(found):
    return [k for k in found if isinstance(k.op, Gemm | GroupedGemm | Attention)]


PATTERNS = (
    "attention+dense", "window+moe attention+moe", "chunk+dense unrotated+moe", "latent+moe", "latent+dense",
    "attention dense", "attention moe",
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    pattern=st.sampled_from(PATTERNS), layers=st.integers(1, 4), shared=st.sampled_from([0, 256]),
    activation=st.sampled_from(["swiglu", "relu2", "gelu", "geglu"]), recipe=st.sampled_from(sorted(RECIPES)),
    biased=st.booleans(), normed=st.sampled_from(["none", "rms", "l2"]), chosen=st.integers(1, 3),
    length=st.sampled_from([256, 768]), sequences=st.integers(1, 2), q_rank=st.sampled_from([0, 64]),
)  # fmt: skip
def test_flop_of_all_kernels_are_those_of_the_formula(
    pattern, layers, shared, activation, recipe, biased, normed, chosen, length, sequences, q_rank
):
    """F, B and W add to the formula times the tokens, causal, but for what no publisher counts: the gate, products that
    a kernel or a recompute does again."""
    shape = TransformerShape(
        "transformer", "any", 1000, 256, layers, "a test", 8, 2, 32, False, intermediate=384, pattern=pattern,
        activation=activation, qkv_bias=biased, mlp_bias=biased, expert_bias=biased, qk_norm=normed, window=128,
        chunk=256, experts=16, experts_per_token=chosen, expert_intermediate=128, shared_intermediate=shared,
        q_rank=q_rank, kv_rank=64, qk_nope=32, qk_rope=16, v_head=32,
    )  # fmt: skip
    where = site(shape, recipe, sequences, length)
    found = [k for unit in transformer.units(shape) for k in products(kernels(where, unit))]
    again = sum(k.op.flop() for k in found if "recompute" in k.name or k.name.startswith("gate_") or k.name == "gate")
    for k in found:  # the attention kernel's backward multiplies queries and keys once more
        if isinstance(k.op, Attention) and k.op.direction == "backward":
            forward = k.op._replace(direction="forward").flop()
            again += forward * k.op.qk / (k.op.qk + k.op.v)
    whole = sum(k.op.flop() for k in found)
    assert whole - again == pytest.approx(where.tokens * transformer.flop(shape, length, True), rel=1e-12)


def test_v3_in_the_words_of_the_pattern():
    """DeepSeek-V3 as a transformer of blocks: parameters of each unit, kept bytes, cache and kernels of attention and
    experts are those of its own family."""
    shape = from_mapping({"cluster": {"node": "h800x8", "nodes": 16}, "model": V3_AS_PATTERN, "schedule": "1f1b",
                          "precision": "fp8", "batch": {"micro_batches": 1}}).model  # fmt: skip
    own = SHAPES["deepseek_v3"]
    pairs = list(zip(transformer.units(shape), deepseek.units(own), strict=True))
    assert [transformer.weights(shape, a) for a, _ in pairs] == [deepseek.weights(own, b) for _, b in pairs]
    assert transformer.cache(shape) == deepseek.cache(own) and transformer.mixture(shape) == deepseek.mixture(own)
    here, there = (Site(s, RECIPES["fp8"], 1, 4096, 30671, 33024, 3.965, 7.488, 4, 64, 8) for s in (shape, own))
    a, b = next((a, b) for a, b in pairs if b.kind == "moe")
    assert transformer.kept(here, a) == deepseek.kept(there, b)
    assert transformer.kept_for_weight(here, a) == deepseek.kept_for_weight(there, b)
    for direction in "FBW":
        for mine, its in zip(transformer.parts(here, a, direction), deepseek.parts(there, b, direction), strict=True):
            assert mine.name == its.name and mine.meets == its.meets
            rest = tuple(k for k in its.kernels if not k.name.startswith("residual_scale"))
            assert sorted(mine.kernels, key=str) == sorted(rest, key=str)


def test_parts_of_layers():
    """One mixer, one network, or both; exchanges on their own stream, experts' weight gradients on two."""
    hybrid, qwen = SHAPES["nemotron3_nano_30b_a3b"], SHAPES["qwen3_30b_a3b"]
    names = {
        (shape.name, kind, d): [part.name for part in transformer.parts(site(shape), Unit(kind, 0, True), d)]
        for shape, kind in ((hybrid, "mamba"), (hybrid, "attention"), (hybrid, "moe"), (qwen, "attention+moe"))
        for d in "FBW"
    }
    of = {(kind, d): found for (_, kind, d), found in names.items()}
    assert of["mamba", "F"] == of["mamba", "W"] == ["mamba"] and of["attention", "B"] == ["attn"]
    assert of["moe", "F"] == ["gate", "dispatch", "mlp", "combine"] and of["moe", "W"] == ["mlp"]
    assert of["moe", "B"] == ["combine", "mlp", "dispatch", "gate"]
    assert of["attention+moe", "F"] == ["attn", "dispatch", "mlp", "combine"]
    for direction in "FBW":
        for part in transformer.parts(site(qwen), Unit("attention+moe", 0, True), direction):
            lanes = {k.lane for k in part.kernels}
            exchanged = any(isinstance(k.op, AllToAll) for k in part.kernels)
            assert (part.meets == EXPERT) == exchanged == (lanes == {COMMUNICATION})
            assert part.meets or lanes == ({COMPUTE, WEIGHT} if part.label == "mlp(W)" else {COMPUTE})


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_places_keep_the_order_of_parts(name):
    """In a round of an overlapped pair the parts of a half come in the order in which they depend on each other."""
    shape = SHAPES[name]
    own = transformer if shape.family == "transformer" else deepseek
    where = Site(shape, RECIPES["bf16"], 1, 2048, 8192, 8192, 1.0, 2.0, 4, 8, 1)
    for unit in dict.fromkeys(u._replace(layer=0) for u in own.units(shape)):
        for direction in "FBW":
            places = [part.place for part in own.parts(where, unit, direction)]
            assert places == sorted(set(places))


def test_what_models_have_shows_in_their_kernels():
    """Norms of queries and keys, rope, windows, biases, ungated networks, shared experts, norms behind: only there."""

    def names(model, kind):
        return {k.name for k in kernels(site(SHAPES[model]), Unit(kind, 0, True))}

    assert {"q_norm", "k_norm_bwd", "rope_q"} <= names("qwen3_8b", "attention+dense")
    assert not {"q_norm", "rope_q", "gateup"} & names("mpt_7b", "attention+dense")
    assert {"up", "gelu", "gelu_bwd", "qkv_bias_grad", "down_bias_grad"} <= names("gpt3_175b", "attention+dense")
    assert {"routed_up", "shared_up", "relu2_cast_routed"} <= names("nemotron3_nano_30b_a3b", "moe")
    assert not {n for n in names("qwen3_30b_a3b", "attention+moe") if "shared" in n}
    assert {"sinks_grad", "routed_gateup_bias_grad"} <= names("gpt_oss_20b", "window+moe")
    assert {"post_norm", "post_norm_bwd"} <= names("grok_1", "attention+moe")
    windows = [k.op.window for k in kernels(site(SHAPES["gpt_oss_20b"]), Unit("window+moe", 0, True))
               if isinstance(k.op, Attention)]  # fmt: skip
    assert windows == [128, 128]
    assert "rope_q" not in names("llama4_scout", "unrotated+moe") and "q_norm" in names("llama4_scout", "chunk+moe")
    learned = {k.name for k in kernels(site(SHAPES["gpt3_175b"], length=2048), Unit("embedding", -1))}
    assert learned == {"embedding", "embedding_bwd", "positions", "positions_bwd"}


def test_partial_rope_turns_part_of_a_head():
    (turned,) = (k.op for k in kernels(site(SHAPES["nemotron4_15b"]), Unit("attention+dense", 0, True), "F")
                 if k.name == "rope_q")  # fmt: skip
    assert turned == Memory("rope", 4096, 2.0 * 48 * 64, 2.0 * 48 * 64)


def test_chunks_are_short_sequences():
    """20,480 tokens are two chunks of 8,192 and one of 4,096, by two launches."""
    ops = [k.op for k in kernels(site(SHAPES["llama4_scout"], length=20480), Unit("chunk+moe", 0, True), "F")
           if isinstance(k.op, Attention)]  # fmt: skip
    assert [(op.batch, op.sequence) for op in ops] == [(2, 8192), (1, 4096)]


# --- Mamba-2 ----------------------------------------------------------------------------------------------------------


def test_scan_in_closed_form():
    """Bytes of a token, forward: x, B, C and y in BF16, decays and states in FP32 (handed on in BF16), products of C
    and B in FP32; backward makes the states again, in FP32, and as many gradients."""
    m, where = SHAPES["nemotron3_nano_30b_a3b"].mamba, site(SHAPES["nemotron3_nano_30b_a3b"])
    h, p, g, n, q = 64, 64, 8, 128, 128
    x, b, cb, state, head = 2 * h * p, 2 * g * n, 4 * g * q, 2 * h * p * n / q, 4 * h
    scans = [k.op.bytes() for k in mamba.forward(where, m) if getattr(k.op, "kind", "").startswith("scan_")]
    states = [2.5 * head, x + b + 2 * head + 2 * state, 3 * state, 2 * b + cb]
    assert scans == [4096 * each for each in [*states, cb + 2 * x + 2 * head + b + state]]
    again = [k.op.bytes() for k in mamba.backward(where, m) if getattr(k.op, "kind", "").startswith("scan_")][4:]
    of_states = [b + x + head + 2 * state, 6 * state]
    of_inputs = [3 * x + b + cb + state + 3 * head, x + state + 3 * b + 3 * head, x + state + 3 * b + 2 * head]
    of_products = [2 * x + 2 * head + cb, *[cb + 4 * b] * 2]
    assert again == [4096 * each for each in [*of_states, *of_inputs, *of_products, 2 * x + cb + 3 * head, 3 * head]]
    products = [k.op for d in (mamba.forward, mamba.backward, mamba.weight) for k in d(where, m)
                if isinstance(k.op, Gemm)]  # fmt: skip
    columns = 2 * 4096 + 2 * 8 * 128 + 64
    assert sum(op.flop() for op in products) == 6.0 * 4096 * (2688 * columns + 4096 * 2688)


def test_a_short_sequence_has_a_whole_chunks_states():
    m = SHAPES["nemotron_h_8b"].mamba
    few, many = (next(k.op for k in mamba.forward(site(SHAPES["nemotron_h_8b"], length=length), m)
                      if k.name == "state_passing") for length in (100, 128))  # fmt: skip
    assert few.bytes() == pytest.approx(many.bytes())


# --- memory -----------------------------------------------------------------------------------------------------------


def test_what_a_mixture_keeps_by_hand():
    """Qwen3-30B-A3B in BF16. A token: residual twice, input of qkv, q k v, q and k before their norms, the output, a
    log-sum-exp a head. A row received: itself. An expert row: gate and up."""
    qkv = (32 + 2 * 4) * 128
    fixed = 2 * 2048 + 2048 + qkv + (32 + 4) * 128 + 4096
    found = transformer.kept(site(SHAPES["qwen3_30b_a3b"]), Unit("attention+moe", 0, True, True))
    assert (found.fixed, found.token, found.row) == (4096 * (2 * fixed + 4 * 32), 2 * 2048, 2 * 2 * 768)


def test_what_a_scan_keeps_by_hand():
    """Nemotron-H 8B in BF16: residual and input of the first product, what that makes, and the scan's output."""
    columns = 2 * 8192 + 2 * 8 * 128 + 128
    found = transformer.kept(site(SHAPES["nemotron_h_8b"]), Unit("mamba", 0, True))
    assert found.fixed == 4096 * 2 * (2 * 4096 + columns + 8192) and (found.token, found.row) == (0, 0)


@pytest.mark.parametrize("name", sorted(n for n, s in SHAPES.items() if s.family == "transformer"))
def test_a_layer_of_two_halves_keeps_what_they_keep(name):
    """Until the input gradient and until a split weight gradient; but for norms behind them, which are of the layer."""
    shape = SHAPES[name]
    where = site(shape)
    for unit in {u.kind: u for u in main_units(transformer.units(shape)) if u.block and "+" in u.kind}.values():
        for measure in (transformer.kept, transformer.kept_for_weight):
            mixer, network = (measure(where, unit._replace(kind=half)) for half in unit.kind.split("+"))
            assert measure(where, unit) == mixer + network


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(sorted(n for n, s in SHAPES.items() if s.family == "transformer")),
       tokens=st.lists(st.integers(1, 64), min_size=2, max_size=2, unique=True).map(sorted))  # fmt: skip
def test_more_tokens_keep_more(name, tokens):
    shape = SHAPES[name]
    few, many = (site(shape, length=128 * n) for n in tokens)
    for unit in {u.kind: u for u in transformer.units(shape) if u.block}.values():
        for measure in (transformer.kept, transformer.kept_for_weight):
            assert measure(few, unit).at(few) < measure(many, unit).at(many)
    assert transformer.workspace(few) < transformer.workspace(many)


# --- odd dimensions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"pattern": "attention+moa"}, r"model\.pattern: found 'attention\+moa' among its words; legal: a mixer \("),
        ({"pattern": "moe+attention"}, "found 'moe.attention' among its words"), ({"pattern": ""}, "found ''"),
        ({"pattern": "mamba"}, r"model\.mamba_heads: missing; mamba layers \(model\.pattern\) need it"),
        ({"pattern": "window+dense"}, r"model\.window: missing; window layers"),
        ({"rotary": 256}, r"model\.rotary: 256 elements of 128 \(model\.head_width\)"),
        ({"dense_layers": 99}, "99 dense layers of 32"), ({"activation": "silu"}, "'silu', did you mean 'swiglu'"),
        ({"pattern": "attention+moe"}, r"model\.experts: missing; moe layers \(model\.pattern\) need it"),
        ({"pattern": "attention+moe", "experts": 8, "experts_per_token": 9, "expert_intermediate": 512},
         r"9 is too many; legal: 1 to 8 \(model\.experts\)"),
        ({"pattern": "attention+moe", "experts": 8, "experts_per_token": 2, "expert_intermediate": 512,
          "capacity": 0.5}, r"model\.capacity: 0\.5 drops tokens where experts are alike"),
    ],
)  # fmt: skip
def test_odd_dimensions_are_told(changes, line):
    scenario = {"cluster": {"node": "h200x8", "nodes": 16}, "model": {"base": "llama3_8b", **changes},
                "schedule": "1f1b", "precision": "bf16", "batch": {"micro_batches": 1}}  # fmt: skip
    with pytest.raises(DocumentError, match=line):
        from_mapping(scenario)


def test_prediction_modules_share_table_and_head():
    shape = SHAPES["glm_4_5_air"]
    beside = [unit for unit in transformer.units(shape) if unit.beside]
    assert [unit.kind for unit in beside] == ["projection", "attention+moe", "head"]
    block = transformer.weights(shape, beside[1]).total
    assert weights(shape, beside).total == block + 2 * 4096 * 4096 + 3 * 4096
