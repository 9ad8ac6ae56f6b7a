"""Closed forms: parameters, FLOPs a token, KV cache, and what activations weigh."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.op import Gemm
from sim.models import deepseek
from sim.models.activations import Kept, landing_bytes
from sim.models.deepseek.parameters import attention_parameters
from sim.models.family import main_units, weights
from sim.models.layer import Site, Unit
from sim.models.precision import RECIPES
from sim.models.weights import Parameters, weight_bytes
from sim.scenario import from_mapping


def model(name):
    return from_mapping(
        {
            "cluster": {"node": "h800x8", "nodes": 16}, "model": name, "schedule": "1f1b", "precision": "bf16",
            "batch": {"micro_batches": 1},
        }
    ).model  # fmt: skip


V3, V2, LITE = (model(name) for name in ("deepseek_v3", "deepseek_v2", "deepseek_v2_lite"))
MAIN = {s.name: weights(s, main_units(deepseek.units(s))) for s in (V3, V2, LITE)}
EXPERT = 3 * 7168 * 2048
ATTENTION = 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 32768 + 16384 * 7168


def test_attention_of_v3():
    found = attention_parameters(V3)
    assert found.linear == ATTENTION == 187105280
    assert found.other == 1536 + 512 + 2 * 7168


def test_v3_to_the_last_parameter():
    """671.03 B by hand: embedding, head, final norm; 61 attentions; 3 dense and 58 mixtures of 256 + 1 experts."""
    norms = 1536 + 512 + 2 * 7168
    expected = (
        2 * 129280 * 7168 + 7168
        + 61 * (ATTENTION + norms)
        + 3 * (3 * 7168 * 18432)
        + 58 * (257 * EXPERT + 256 * 7168 + 256)
    )  # fmt: skip
    assert MAIN[V3.name].total == expected
    assert expected / 1e9 == pytest.approx(671.03, abs=0.005)


@pytest.mark.parametrize(
    ("shape", "total", "active"),
    [(V3, 671.03, 37.55), (V2, 235.7, 21.4), (LITE, 15.7, 2.66)],
)
def test_published_sizes(shape, total, active):
    """V3 671.03 B and 37.55 B; V2 236 B and 21 B, V2-Lite 15.7 B (arXiv:2405.04434), to the digits printed."""
    main = MAIN[shape.name]
    assert main.total / 1e9 == pytest.approx(total, abs=0.05)
    assert main.active(deepseek.mixture(shape)) / 1e9 == pytest.approx(active, abs=0.05)


def test_prediction_module():
    """11.6 B of its own (embedding and head are shared): projection, a MoE layer, three norms."""
    own = weights(V3, [unit for unit in deepseek.units(V3) if unit.beside]).total
    layer = ATTENTION + 1536 + 512 + 2 * 7168 + 257 * EXPERT + 256 * 7168 + 256
    assert own == 2 * 7168 * 7168 + 2 * 7168 + layer + 7168
    assert own / 1e9 == pytest.approx(11.61, abs=0.005)


def test_flop_a_token():
    """V3 250 GFLOP causal, V2 155 (arXiv 2505.09343 table 2), at 4,096 tokens; V3 to four digits from its table 4."""
    by = {(s.name, causal): deepseek.flop(s, 4096, causal) / 1e9
          for s in (V3, V2) for causal in (True, False)}  # fmt: skip
    assert by[V3.name, True] == pytest.approx(249.81, abs=0.005)
    assert by[V3.name, False] == pytest.approx(280.51, abs=0.005)
    for causal, mfu in ((True, 0.3894), (False, 0.4373)):
        published = mfu * 989e12 * 2048 * 19.926 / (15360 * 4096)
        assert by[V3.name, causal] * 1e9 == pytest.approx(published, rel=2e-4)
    assert by[V2.name, True] == pytest.approx(155, abs=0.5)


def test_flop_by_hand():
    """6 a weight that multiplies; attention 2 x heads x pairs x (192 + 128) a layer forward, thrice in all."""
    gates, norms = 58 * (256 * 7168 + 256), 61 * (1536 + 512 + 2 * 7168) + 7168
    multiplying = 37552297472 - 129280 * 7168 - gates - norms
    attention = 3 * 61 * 2 * 128 * 4096 * (192 + 128)
    assert deepseek.flop(V3, 4096, False) == 6 * multiplying + attention
    assert deepseek.flop(V3, 4096, True) == 6 * multiplying + attention / 2


def test_kv_cache():
    """61 layers x (512 + 64) x 2 bytes = 70.272 KB a token."""
    assert deepseek.cache(V3) == 70272
    assert deepseek.cache(V2) == 60 * 576 * 2
    assert deepseek.cache(LITE) == 27 * 576 * 2


@given(st.lists(st.tuples(*[st.integers(0, 10**12)] * 5), min_size=1, max_size=5))
def test_parameters_add(rows):
    total = sum((Parameters(*row) for row in rows), Parameters())
    assert total.total == sum(a + b + c - d for a, b, c, d, _ in rows)


def site(recipe="fp8", tokens=4096, rows=33024, received=30671):
    return Site(V3, RECIPES[recipe], 1, tokens, received, rows, 4.0, 7.5, 4, 64, 8)


def test_weight_bytes():
    """FP8 with an FP32 scale a 128 x 128 block; norms and gate in BF16; a 64th of the experts."""
    layer = deepseek.weights(V3, Unit("moe", 3))
    linear, other = ATTENTION + EXPERT + 4 * EXPERT, 256 * 7168 + 256 + 1536 + 512 + 2 * 7168
    assert weight_bytes(layer, 1 / 64, RECIPES["fp8"]) == linear * (1 + 4 / 16384) + 2 * other
    assert weight_bytes(layer, 1 / 64, RECIPES["bf16"]) == 2 * (linear + other)


def test_activations_of_a_moe_layer():
    """By hand: two residuals and the latents in BF16, attention output in E5M6 with scales, log-sum-exp, received
    tokens, and the gate-up products of shared and routed experts in FP8 with scales."""
    scaled = 1 + 4 / 128
    expected = (
        4096 * (2 * 2 * 7168 + 2 * (1536 + 512 + 64) + 16384 * (1.5 + 4 / 128) + 4 * 128)
        + 30671 * 7168 * scaled
        + 33024 * 4096 * scaled
        + 4096 * 4096 * scaled
    )
    found = deepseek.kept(site(), Unit("moe", 3))
    assert found.at(site()) == expected
    assert (found.token, found.row) == (7168 * scaled, 4096 * scaled)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["embedding", "dense", "moe", "projection", "head"]), recipe=st.sampled_from(sorted(RECIPES)),
    tokens=st.sampled_from([128, 1024, 4096]), times=st.integers(2, 5),
)  # fmt: skip
def test_activations_grow_with_tokens(kind, recipe, tokens, times):
    """Everything kept is rows: proportional to tokens."""
    unit = Unit(kind, 3)
    one = site(recipe, tokens, tokens * 8, tokens * 7)
    many = site(recipe, tokens * times, tokens * times * 8, tokens * times * 7)
    for measure in (deepseek.kept, deepseek.kept_for_weight):
        assert measure(many, unit).at(many) == pytest.approx(times * measure(one, unit).at(one))


@pytest.mark.parametrize("unit", [Unit("dense", 0), Unit("moe", 3), Unit("projection", 61)])
def test_fp8_keeps_less(unit):
    narrow, wide = site("fp8"), site("bf16")
    assert deepseek.kept(narrow, unit).at(narrow) <= deepseek.kept(wide, unit).at(wide)
    assert deepseek.kept_for_weight(narrow, unit).at(narrow) < deepseek.kept_for_weight(wide, unit).at(wide)


@pytest.mark.parametrize("unit", [Unit("dense", 0), Unit("moe", 3), Unit("projection", 61)], ids=lambda u: u.kind)
@pytest.mark.parametrize("shape", [V3, V2, LITE], ids=lambda s: s.name)
def test_a_split_weight_gradient_keeps_both_sides_of_each_product(shape, unit):
    """A product [m, rows] x [rows, n] reads m + n values a row, in FP8 with a scale for 128 of them. Of experts, sides
    as wide as the model come with the tokens received; the others are rows of experts."""
    rows, scaled = 33024, 1 + 4 / 128
    where = Site(shape, RECIPES["fp8"], 1, 4096, 30671, rows, 4.0, 7.5, 4, 64, 8)
    kernels = [kernel.op for part in deepseek.parts(where, unit, "W") for kernel in part.kernels]
    products = [op for op in kernels if isinstance(op, Gemm) and op.precision == "fp8"]
    sides = [(side, op.k) for op in products for side in (op.m, op.n)]
    assert products and {k for _, k in sides} <= {4096, rows // 4}  # one product for each of four experts
    found = deepseek.kept_for_weight(where, unit)
    assert found.fixed == sum(side * k for side, k in sides if k == 4096) * scaled
    for each, wide in ((found.token, True), (found.row, False)):
        read = sum(side * k for side, k in sides if k != 4096 and (side == shape.hidden) == wide)
        assert each == read / rows * scaled


def test_a_projection_keeps_its_two_inputs():
    """The hidden state and the embedding of the next token, in BF16 before their norms."""
    assert deepseek.kept(site(), Unit("projection", 61)).at(site()) == 2 * 4096 * 7168 * 2


def test_shared_tensors_weigh_nothing_where_they_are_used_again():
    """Of V3: the prediction module brings neither a second embedding nor a second head."""
    assert weight_bytes(Parameters(other=100, shared=30), 1.0, RECIPES["bf16"]) == 2 * 70
    units = deepseek.units(V3)
    one, both = (sum((deepseek.weights(V3, u) for u in some), Parameters()) for some in (main_units(units), units))
    more = weight_bytes(both, 1.0, RECIPES["bf16"]) - weight_bytes(one, 1.0, RECIPES["bf16"])
    assert more == 2 * weights(V3, [unit for unit in units if unit.beside]).total


def test_exchange_buffers():
    assert landing_bytes(site()) == 7168 + 224 + 14336
    assert landing_bytes(site("bf16")) == 2 * 14336


def test_what_is_kept_follows_the_load():
    found = Kept(100.0, 3.0, 0.5)
    assert found.bytes(10, 20) == 140 and found.bytes(0, 0) == 100
    assert found.at(site(rows=2, received=1)) == 104
