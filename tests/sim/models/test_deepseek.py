"""The DeepSeek family: units, parts and kernels against the published profile and against closed forms."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory
from sim.models import deepseek
from sim.models.deepseek.parameters import attention_parameters
from sim.models.layer import COMMUNICATION, COMPUTE, WEIGHT, Site, Unit
from sim.models.precision import RECIPES
from sim.scenario import from_mapping

FACTS = Path(__file__).parents[4] / "shared" / "facts" / "h800_dualpipe_trace.json"
MOE, DENSE = Unit("moe", 3), Unit("dense", 0)
ROWS = 4096 * 8 + 4 * 64
"""Expert rows of the balanced V3 site: eight experts a token, half a tile of padding for each of 4 local experts."""


def model(name, **changes):
    scenario = from_mapping(
        {
            "cluster": {"node": "h800x8", "nodes": 16}, "model": {"base": name, **changes}, "schedule": "1f1b",
            "precision": "bf16", "batch": {"micro_batches": 1},
        }
    )  # fmt: skip
    return scenario.model


def site(shape=None, recipe="fp8", tokens=4096, experts=4, group=64, nodes=8, rows=ROWS, received=30671):
    return Site(shape or V3, RECIPES[recipe], 1, tokens, received, rows, 3.965, 7.488, experts, group, nodes)


V3 = model("deepseek_v3")


def part_of(name, where=None, unit=MOE):
    found = {p.label: p for d in "FBW" for p in deepseek.parts(where or site(), unit, d)}
    return found[name]


def flop(part):
    return sum(k.op.flop() for k in part.kernels)


def test_units_of_v3():
    """Embedding, 3 dense and 58 MoE layers, head; and one prediction module: projection, MoE layer, head."""
    units = deepseek.units(V3)
    assert [u.kind for u in units] == ["embedding", *["dense"] * 3, *["moe"] * 58, "head", "projection", "moe", "head"]
    assert [u.layer for u in units] == [-1, *range(61), -1, 61, 61, 61]


@pytest.mark.parametrize(("name", "layers"), [("deepseek_v2", 60), ("deepseek_v2_lite", 27)])
def test_units_without_prediction_module(name, layers):
    units = deepseek.units(model(name))
    assert [u.kind for u in units] == ["embedding", "dense", *["moe"] * (layers - 1), "head"]


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("attn(F)", 69), ("mlp(F)", 19), ("mlp(B)", 29), ("mlp(W)", 12), ("attn(B)", 101), ("attn(W)", 5),
        ("dispatch(F)", 3), ("combine(B)", 3), ("dispatch(B)", 2), ("combine(F)", 2),
    ],
)  # fmt: skip
def test_kernels_of_the_profile(name, kernels):
    """Launches of a MoE layer in the published H800 profile; the gate's 37 and 26 tiny kernels count each."""
    assert sum(k.op.kernels for k in part_of(name).kernels) == kernels


def test_tiny_kernels_of_the_gate():
    gate = {d: [k for k in part_of(f"attn({d})").kernels if k.name.startswith("routing")] for d in "FB"}
    assert [(k.op.kernels, isinstance(k.op, Memory)) for k in gate["F"] + gate["B"]] == [(37, True), (26, True)]


def test_order_of_parts():
    """What needs what, and which parts are exchanges."""
    order = {d: [(p.label, p.meets) for p in deepseek.parts(site(), MOE, d)] for d in "FBW"}
    met = "expert"
    assert order["F"] == [("attn(F)", ""), ("dispatch(F)", met), ("mlp(F)", ""), ("combine(F)", met)]
    assert order["B"] == [("combine(B)", met), ("mlp(B)", ""), ("dispatch(B)", met), ("attn(B)", "")]
    assert order["W"] == [("mlp(W)", ""), ("attn(W)", "")]
    assert [p.label for p in deepseek.parts(site(), DENSE, "F")] == ["attn(F)", "mlp(F)"]


def test_lanes():
    """Exchanges on the communication stream, every second expert's weight gradient on the second stream."""
    for d in "FBW":
        for part in deepseek.parts(site(), MOE, d):
            lanes = {k.lane for k in part.kernels}
            expected = {COMMUNICATION} if part.meets else {COMPUTE, WEIGHT} if part.label == "mlp(W)" else {COMPUTE}
            assert lanes == expected, part.label
    experts = [k for k in part_of("mlp(W)").kernels if "_e" in k.name and "wgrad_e" in k.name]
    assert [k.lane for k in experts] == [COMPUTE, WEIGHT] * 4


def linear(part, kinds=(Gemm, GroupedGemm)):
    """FLOPs of the linear layers of a part, recomputed products left out."""
    return sum(k.op.flop() for k in part.kernels if isinstance(k.op, kinds) and "recompute" not in k.name)


def test_forward_linear_flop():
    """A MoE layer's matrices, 2 FLOP a weight and row: attention 187.1 M, gate, shared expert, 8 routed ones."""
    rows = {"attn": 187105280 + 256 * 7168 + 3 * 7168 * 2048, "routed": 3 * 7168 * 2048}
    expected = 2.0 * (4096 * rows["attn"] + ROWS * rows["routed"])
    assert linear(part_of("attn(F)")) + linear(part_of("mlp(F)")) == expected


@pytest.mark.skipif(not FACTS.exists(), reason="the analysis of the published profile is not here")
def test_flop_of_the_published_profile():
    """4.795 TFLOP a layer forward, at 8 experts a token without padding; 67.43 TFLOP the pair of four layers."""
    facts = json.loads(FACTS.read_text())["flops"]
    exact = site(rows=4096 * 8)
    forward = linear(part_of("attn(F)", exact)) + linear(part_of("mlp(F)", exact))
    assert forward / 1e12 == pytest.approx(facts["linear_fwd_TF_per_layer"], rel=2e-3)
    kernels = [*part_of("attn(F)").kernels, *part_of("attn(B)").kernels]
    flash = [k.op.flop() for k in kernels if isinstance(k.op, Attention)]
    assert flash == pytest.approx([facts["attn_fwd_TF"] * 1e12, facts["attn_bwd_TF"] * 1e12])
    backward = sum(linear(part_of(name, exact)) for name in ("mlp(B)", "attn(B)", "mlp(W)", "attn(W)"))
    pair = 4 * (forward + backward + sum(flash))
    assert pair / 1e12 == pytest.approx(facts["pair_model_TF"], rel=2e-3)


@pytest.mark.parametrize("recipe", ["fp8", "bf16"])
@pytest.mark.parametrize("unit", [MOE, DENSE, Unit("projection", 61), Unit("head", -1)])
def test_backward_is_twice_forward(recipe, unit):
    """Linear layers: as many FLOPs for input gradients and for weight gradients as forward."""
    where = site(recipe=recipe)
    each = {d: sum(linear(p) for p in deepseek.parts(where, unit, d)) for d in "FBW"}
    if unit.kind == "moe":  # the gate's weight gradient runs with the input gradients
        gate = 2.0 * 4096 * 256 * 7168
        each["B"], each["W"] = each["B"] - gate, each["W"] + gate
    assert each["F"] == each["B"] == each["W"] > 0


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["deepseek_v3", "deepseek_v2", "deepseek_v2_lite"]), tokens=st.sampled_from([128, 512, 4096]),
    hidden=st.sampled_from([1024, 2048]), heads=st.integers(1, 64), recipe=st.sampled_from(["fp8", "bf16"]),
    local=st.integers(1, 8),
)  # fmt: skip
def test_flop_follow_parameters(name, tokens, hidden, heads, recipe, local):
    """2 FLOP a weight and row in every family member: attention, gate and shared experts on all tokens, routed experts
    on the rows that arrive."""
    shape = SHAPES[name].__class__(**{**vars(SHAPES[name]), "hidden": hidden, "heads": heads})
    where = site(shape, recipe, tokens, local, rows=tokens * 3)
    expert = 3 * hidden * shape.expert_intermediate
    dense = attention_parameters(shape).linear + shape.experts * hidden + shape.shared_experts * expert
    found = linear(part_of("attn(F)", where)) + linear(part_of("mlp(F)", where))
    assert found == 2.0 * tokens * dense + 2.0 * where.rows * expert


SHAPES = {name: model(name) for name in ("deepseek_v3", "deepseek_v2", "deepseek_v2_lite")}


def test_what_is_recomputed():
    """Norms, q and kv up-projections, rope and SwiGLU run again in backward; attention and expert products do not."""
    names = [k.name for p in ("mlp(B)", "attn(B)") for k in part_of(p).kernels]
    assert [n for n in names if n.endswith("_recompute") and isinstance(n, str)] == [
        "rmsnorm2_recompute", "cast_x_recompute", "q_a_norm_recompute", "kv_a_norm_recompute", "q_b_recompute",
        "kv_b_recompute", "rmsnorm1_recompute",
    ]  # fmt: skip
    assert {"rope_q", "rope_k", "swiglu_recompute_castT_shared", "swiglu_fwd_bwd_routed"} <= set(names)
    assert not {"flash_fwd", "routed_gateup", "routed_down", "o_proj"} & set(names)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("dispatch(F)", 7168 + 224 + 72), ("combine(B)", 7168 + 224 + 8), ("combine(F)", 14336 + 40),
        ("dispatch(B)", 14336 + 40),
    ],
)  # fmt: skip
def test_what_travels(name, row):
    """FP8 rows with a scale for each 128 elements and metadata, or BF16 rows; over 8 nodes 7/8 leave the node."""
    (op,) = (k.op for k in part_of(name).kernels if isinstance(k.op, AllToAll))
    assert op.row_bytes == row
    assert op.wire_bytes() == pytest.approx(4096 * 3.965 * row * 7 / 8)
    assert (op.group, op.group_nodes, op.beside) == (64, 8, name)


@pytest.mark.skipif(not FACTS.exists(), reason="the analysis of the published profile is not here")
def test_bytes_of_the_published_exchanges():
    comm = json.loads(FACTS.read_text())["comm"]
    for name, key in (
        ("dispatch(F)", "dispatchF=dispatch_fp8"), ("combine(B)", "combineB=dispatch_fp8_cached"),
        ("combine(F)", "combineF=combine_bf16"), ("dispatch(B)", "dispatchB=combine_bf16"),
    ):  # fmt: skip
        (op,) = (k.op for k in part_of(name).kernels if isinstance(k.op, AllToAll))
        assert op.wire_bytes() / 1e6 == pytest.approx(comm[key]["wire_MB"], rel=1e-3)
        assert op.logical_bytes() / 1e6 == pytest.approx(comm[key]["logical_MB"], rel=1e-3)


def test_bf16_has_no_casts():
    """Without quantisation no kernel exists only to feed FP8 products, and BF16 rows travel both ways."""
    where = site(recipe="bf16")
    for unit in (MOE, DENSE, Unit("projection", 61)):
        for d in "FBW":
            for part in deepseek.parts(where, unit, d):
                for k in part.kernels:
                    kind = k.op.kind if isinstance(k.op, Memory) else ""
                    assert not kind.startswith(("cast", "recast", "dequantize", "scale", "store", "weight_t")), k.name
                    assert getattr(k.op, "precision", "bf16") == "bf16", k.name
    exchanges = [k for name in ("dispatch(F)", "combine(B)", "dispatch(B)", "combine(F)")
                 for k in part_of(name, where).kernels if isinstance(k.op, AllToAll)]  # fmt: skip
    assert [k.op.row_bytes - 14336 for k in exchanges] == [72, 8, 40, 40]


def test_gate_and_head_stay_in_bf16():
    for name, where in (("gate", part_of("attn(F)")), ("head", deepseek.parts(site(), Unit("head", -1), "F")[0])):
        (op,) = (k.op for k in where.kernels if k.name == name)
        assert op.precision == "bf16"


def test_without_compressed_query():
    """V2-Lite has no q_a: one product from the hidden state to the queries, once forward, once again in backward."""
    where = site(SHAPES["deepseek_v2_lite"])
    names = [k.name for k in part_of("attn(F)", where).kernels]
    assert "q_b" in names and not {"q_a", "q_a_norm"} & set(names)
    assert [k.name for k in part_of("attn(W)", where).kernels] == [
        "o_proj_wgrad", "kv_b_wgrad", "q_b_wgrad", "kv_a_wgrad",
    ]  # fmt: skip


def test_rest():
    """Embedding: a look-up forward, a scatter backward, no weight-gradient product; the head is a product each way."""
    assert [len(deepseek.parts(site(), Unit("embedding", -1), d)) for d in "FBW"] == [1, 1, 0]
    head = 2.0 * 4096 * 129280 * 7168
    assert [flop(deepseek.parts(site(), Unit("head", -1), d)[0]) for d in "FBW"] == [head] * 3
    projection = 2.0 * 4096 * 7168 * 2 * 7168
    assert [flop(deepseek.parts(site(), Unit("projection", 61), d)[0]) for d in "FBW"] == [projection] * 3
