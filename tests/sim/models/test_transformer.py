"""Dense transformers: sizes and FLOPs to the last digit, kernels against closed forms, memory by hand, whole runs."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.document import DocumentError
from hwmodels.op import Attention, Gemm, Memory
from reports.page import render
from sim import assembly, simulation
from sim.layout import plan
from sim.models import transformer
from sim.models.family import weights
from sim.models.layer import COMPUTE, Site, Unit
from sim.models.precision import RECIPES
from sim.models.transformer.shape import TransformerShape
from sim.scenario import SCENARIOS, load
from sim.validation import sizes

LLAMA = str(SCENARIOS / "llama3_70b.yaml")
V70 = load(LLAMA).model
SMALL = TransformerShape("transformer", "small", 1000, 256, 3, "a test", 8, 2, 32, False, 512)
LAYER = Unit("attention+dense", 0, block=True)


def site(shape=V70, recipe="bf16", sequences=1, length=4096):
    return Site(shape, RECIPES[recipe], sequences, length, 0, 0, 0.0, 0.0, 0, 1, 1)


def kernels(where, unit, directions="FBW"):
    return [k for d in directions for part in transformer.parts(where, unit, d) for k in part.kernels]


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_parameters_of_llama3_70b():
    """70,553,706,496, as the published weights have."""
    assert weights(V70, transformer.units(V70)).total == 70_553_706_496
    layer = transformer.weights(V70, LAYER)
    assert layer.linear == 8192 * (8192 + 2 * 1024) + 8192 * 8192 + 3 * 8192 * 28672
    assert layer.other == 2 * 8192 and layer.experts == 0


def test_cache_of_llama3_70b():
    """80 layers x keys and values of 8 heads x 128 elements x 2 bytes."""
    assert transformer.cache(V70) == 327_680


def test_flop_of_llama3_70b_by_hand():
    """6 a weight but for the embedding and the norms; attention 4 x pairs x 8192 a layer forward, thrice in all."""
    multiplying = 70_553_706_496 - 128256 * 8192 - (2 * 80 + 1) * 8192
    for causal, pairs in ((True, 2048), (False, 4096)):
        assert transformer.flop(V70, 4096, causal) == 6 * multiplying + 3 * 80 * 4 * pairs * 8192


def test_validation_answers_for_a_dense_model():
    found = {name: answer.value for name, answer in sizes.answers(load(LLAMA)).items()}
    assert found["parameters"] == found["active"] == pytest.approx(70.553706496)
    assert found["kv cache"] == pytest.approx(327.68) and found["mtp"] == found["mtp active"] == 0


def test_a_tied_head_is_held_once():
    """Where one rank has both ends; elsewhere the last stage has a copy of the table."""
    assert transformer.weights(V70, Unit("head", -1)).shared == 0
    tied = replace(V70, tied=True)
    assert weights(tied, transformer.units(tied)).total == 70_553_706_496 - 128256 * 8192
    from sim.layout import optimizer

    for schedule, copies in (("dualpipev", 0), ("1f1b", 1)):
        words = ["model.tied=true", f"schedule={schedule}", "parallel.pipeline=8", "outputs=[result]"]
        laid = plan.lay_out(load(LLAMA, words))
        machine = assembly.machine(laid)
        held = sum(optimizer.stage_parameters(laid, machine, s).total for s in range(laid.program.stages))
        assert held == weights(tied, machine.units).total + copies * 128256 * 8192


# --- kernels ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(1, 4), hidden=st.sampled_from([128, 256]), width=st.sampled_from([64, 128]),
    shared=st.sampled_from([1, 2, 8]), queries=st.sampled_from([8, 16]), intermediate=st.sampled_from([384, 1024]),
    sequences=st.integers(1, 3), length=st.sampled_from([128, 512]), recipe=st.sampled_from(sorted(RECIPES)),
)  # fmt: skip
def test_flop_of_all_kernels_are_those_of_the_formula(
    layers, hidden, width, shared, queries, intermediate, sequences, length, recipe
):
    """F, B and W of a micro-batch add to the formula times its tokens, causal; attention's backward multiplies Q and K
    once more, which no publisher counts."""
    shape = TransformerShape(
        "transformer", "any", 1000, hidden, layers, "a test", queries, shared, width, False, intermediate
    )
    where = site(shape, recipe, sequences, length)
    found = sum(k.op.flop() for unit in transformer.units(shape) for k in kernels(where, unit))
    again = layers * sequences * 2.0 * queries * (length * length / 2) * width
    assert found - again == pytest.approx(where.tokens * transformer.flop(shape, length, True), rel=1e-12)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_parts_of_a_layer(recipe):
    """On one stream, meeting nobody, in an order that their places keep."""
    for direction, names in (("F", ["attn", "mlp"]), ("B", ["mlp", "attn"]), ("W", ["mlp", "attn"])):
        found = transformer.parts(site(recipe=recipe), LAYER, direction)
        assert [part.name for part in found] == names
        assert [part.place for part in found] == sorted({part.place for part in found})
        assert all(part.meets == "" and {k.lane for k in part.kernels} == {COMPUTE} for part in found)


def test_products_of_a_layer():
    found = [k.op for k in kernels(site(), LAYER) if isinstance(k.op, Gemm)]
    assert found == [
        Gemm(4096, 10240, 8192, "fprop", "bf16"), Gemm(4096, 8192, 8192, "fprop", "bf16"),
        Gemm(4096, 57344, 8192, "fprop", "bf16"), Gemm(4096, 8192, 28672, "fprop", "bf16"),
        Gemm(4096, 28672, 8192, "dgrad", "bf16"), Gemm(4096, 8192, 57344, "dgrad", "bf16"),
        Gemm(4096, 8192, 8192, "dgrad", "bf16"), Gemm(4096, 8192, 10240, "dgrad", "bf16"),
        Gemm(8192, 28672, 4096, "wgrad", "bf16"), Gemm(57344, 8192, 4096, "wgrad", "bf16"),
        Gemm(8192, 8192, 4096, "wgrad", "bf16"), Gemm(10240, 8192, 4096, "wgrad", "bf16"),
    ]  # fmt: skip


def test_attention_shares_keys_and_values():
    first, second = (k.op for k in kernels(site(), LAYER) if isinstance(k.op, Attention))
    assert (first, second.direction) == (Attention("forward", 1, 64, 4096, 128, 128, kv_heads=8), "backward")
    alike = replace(V70, kv_heads=64)
    assert kernels(site(alike), LAYER, "F")[4].op == Attention("forward", 1, 64, 4096, 128, 128)


def test_bf16_has_no_casts():
    kinds = {k.op.kind for unit in transformer.units(SMALL) for k in kernels(site(SMALL), unit)
             if isinstance(k.op, Memory)}  # fmt: skip
    assert not {kind for kind in kinds if kind.startswith(("cast", "recast", "dequantize", "scale", "store", "weight"))}


def test_heads_that_do_not_divide_are_told():
    with pytest.raises(DocumentError, match=r"model\.heads 64 cannot be divided by model\.kv_heads 7; legal: 1, 2, 4"):
        load(LLAMA, ["model.kv_heads=7"])


# --- memory -----------------------------------------------------------------------------------------------------------


def test_what_a_layer_keeps():
    """By hand, BF16: inputs of two norms, of qkv, gate-up (hidden each) and down; q, k, v; the output; gate and up; and
    an FP32 log-sum-exp a head."""
    elements = 4 * 8192 + 28672 + (8192 + 2 * 1024) + 8192 + 2 * 28672
    found = transformer.kept(site(), LAYER)
    assert (found.token, found.row) == (0, 0)
    assert found.fixed == 4096 * (2 * elements + 4 * 64)


def test_what_a_layer_keeps_in_fp8():
    """Inputs of products, gate and up in E4M3 with a scale a 128; the output in E5M6 (12 bits) likewise."""
    scaled = 1 + 4 / 128
    expected = (
        2 * 2 * 8192 + scaled * (2 * 8192 + 28672) + 2 * 10240 + 8192 * (1.5 + 4 / 128) + 4 * 64 + scaled * 2 * 28672
    )
    assert transformer.kept(site(recipe="fp8"), LAYER).fixed == 4096 * expected


def test_what_waits_for_weight_gradients():
    """Both sides of four products, in BF16."""
    sides = (8192 + 10240) + (8192 + 8192) + (8192 + 2 * 28672) + (28672 + 8192)
    assert transformer.kept_for_weight(site(), LAYER).fixed == 4096 * 2 * sides


def test_ends_and_workspace():
    head = 4096 * 2 * (8192 + 128256)
    for measure in (transformer.kept, transformer.kept_for_weight):
        assert measure(site(), Unit("head", -1)).fixed == head
        assert measure(site(), Unit("embedding", -1)).fixed == 0
    assert transformer.workspace(site()) == 4096 * 2 * 3 * 28672, "gradients of gate, up and activation"
    narrow = replace(V70, intermediate=1024)
    assert transformer.workspace(site(narrow)) == 4096 * (2 * (10240 + 8192) + 4 * 8192)


# --- runs -------------------------------------------------------------------------------------------------------------

FAULTS = "faults=[{kind: gpu, at: 3, slower: 1.5}, {kind: link, at: 40, slower: 3}]"
RUNS = {
    "as it is": [], "fp8": ["precision=fp8"], "zb1p": ["schedule=zb1p"], "gpipe": ["schedule=gpipe"],
    "dualpipe": ["schedule=dualpipe"], "dualpipev": ["schedule=dualpipev", "parallel.pipeline=8"],
    "interleaved": ["schedule={name: interleaved, chunks: 5}"], "faults": [FAULTS], "jitter": ["jitter=0.02"],
    "collisions": ["cluster.fabric=mpft", "cluster.routing=ecmp"], "h800": ["cluster.node=h800x8"],
    "roofline": ["pricing=roofline"], "unfolded": ["fold=false"],
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_runs_conserve_time(name):
    """Phases and bubbles of every position fill the step, and the waterfall adds to it."""
    result = simulation.run(load(LLAMA, [*RUNS[name], "batch.sequences=512", "outputs=[result]"]))
    told = result.summary
    step, phases = told["step_time_s"], told["phases_per_rank"]
    for position in range(len(phases["forward"])):
        assert sum(phases[phase][position] for phase in phases) == pytest.approx(step, rel=1e-6)
    assert sum(bar.seconds for bar in result.waterfall) == pytest.approx(step, rel=1e-6)
    assert 0 < told["mfu"]["causal"] < told["mfu"]["non_causal"] < 1.1
    assert told["exposed_communication_s"] == 0 and told["overlap_fraction"] is None
    assert sum(stage.parameters for stage in result.stages) == 70_553_706_496


@pytest.mark.parametrize("detail", ["op", "chunk"])
def test_details_agree(detail):
    words = ["batch.sequences=512", "outputs=[result]"]
    coarse, fine = (simulation.run(load(LLAMA, [*words, *more]), False).summary for more in ([], [f"detail={detail}"]))
    assert coarse["step_time_s"] == fine["step_time_s"]


def test_memory_is_by_its_own_formulas():
    """Position 0 of 1F1B holds 16 micro-batches of five layers; weights, gradients and a shard of the states beside."""
    result = simulation.run(load(LLAMA, ["outputs=[result]"]), False)
    assert result.feasible == (True, "")
    parts = result.summary["peak_memory_bytes"][0]
    assert set(parts) == {"total", "weights", "gradients", "optimizer states", "workspace", "activations"}
    held = 5 * (transformer.weights(V70, LAYER).total) + 128256 * 8192
    assert parts["activations"] == 16 * 5 * transformer.kept(site(), LAYER).fixed
    assert (parts["weights"], parts["gradients"]) == (2 * held, 4 * held)
    assert parts["optimizer states"] == held * (4 + 2 * 2) / 16


def test_no_sms_are_held_and_no_words_of_experts_said():
    result = simulation.run(load(LLAMA, ["batch.sequences=256"]))
    assert result.spans.sms.max() == 132
    assert {row["name"] for row in result.summary["communication"]} == {
        "pipeline message", "gradient reduce-scatter, dense", "parameter all-gather, dense",
    }  # fmt: skip
    told = re.sub(r"<(script|style|pre)\b.*?</\1>", "", render(result), flags=re.DOTALL)  # keys of a scenario are all's
    assert "Memory" in told and "Communication" in told
    assert not [word for word in ("xpert", "xchange", "ispatch", "Exposed") if word in told]


def test_a_family_with_experts_may_have_a_model_without():
    """DeepSeek with dense layers alone: nothing is exchanged, no SMs are held, and there is nobody to route to."""
    words = ["model.dense_layers=27", "outputs=[result]", "batch.sequences=1024"]
    lite = str(SCENARIOS / "v2_lite.yaml")
    assert assembly.machine(plan.lay_out(load(lite, words))).pricer.compute_sms == 132
    told = simulation.run(load(lite, words), False).summary
    assert told["step_time_s"] > 0 and told["overlap_fraction"] is None
    with pytest.raises(DocumentError, match="sampled routing needs experts; legal: balanced"):
        load(lite, [*words, "routing=sampled"])


@pytest.mark.parametrize(("word", "line"), [
    ("parallel.expert=8", "parallel.expert=8: found 8; legal: 1 (Llama-3 70B has no experts)"),
    ("routing=sampled", "routing=sampled: routing.kind: sampled routing needs experts; legal: balanced (Llama-3"),
    ("routing.redundant_experts=8", "routing.redundant_experts=8: found 8; legal: 0 (Llama-3 70B has no experts)"),
])  # fmt: skip
def test_what_needs_experts_is_refused(word, line):
    with pytest.raises(DocumentError) as caught:
        load(LLAMA, [word])
    assert str(caught.value).startswith(f"<command line> {line}")
