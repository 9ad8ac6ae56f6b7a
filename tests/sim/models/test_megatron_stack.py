"""Megatron Core with TransformerEngine: what is fused, what each recipe casts and keeps, who exchanges what."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory, small
from hwmodels.refused import Refused
from hwmodels.units import US_NS
from sim.assembly import machine
from sim.layout.plan import lay_out
from sim.models.family import weights
from sim.models.layer import Unit
from sim.models.lowering import ByBlocks, lowering
from sim.models.recompute import Recompute
from sim.models.stacks.stack import DEEPSEEK, DISPATCHERS, TRANSFORMER_ENGINE, Stack
from sim.scenario import from_mapping, models

BLACKWELL = ("mxfp8", "nvfp4")


def on(model="llama3_8b", precision="bf16", node="h100x8", expert=1, **changes):
    scenario = {
        "cluster": {"node": node, "nodes": 1}, "model": model, "precision": precision, "stack": "megatron",
        "parallel": {"expert": expert}, "schedule": "1f1b", "outputs": ["result"],
        "batch": {"sequences": 8, "sequence_length": 2048 if model == "gpt3_175b" else 4096}, **changes,
    }  # fmt: skip
    return machine(lay_out(from_mapping(scenario)))


@cache
def shipped(name, stack):
    """Any model on one node of B200s, made once for all that is asked of it."""
    return on(name, stack=stack, node="b200x8")


def kinds(own):
    """One unit of each kind: layers differ by their number alone."""
    return {unit._replace(layer=0): unit for unit in own.units}.values()


def kernels(own, unit, direction):
    return [kernel for part in own.parts(unit, direction) for kernel in part.kernels]


def block(own, routed=False):
    return next(unit for unit in own.units if unit.block and unit.routed == routed)


def test_a_dense_layer_is_fused():
    own = on()
    names = [kernel.name for kernel in kernels(own, block(own), "F")]
    assert names == [
        "input_norm", "qkv", "query_copy", "rope_q", "rope_k", "memset", "seed", "sdpa", "proj", "residual",
        "mlp_norm", "fc1", "swiglu", "fc2", "residual",
    ]  # fmt: skip
    assert [k.name for k in kernels(own, block(own), "W")] == ["fc2_wgrad", "fc1_wgrad", "proj_wgrad", "qkv_wgrad"]
    assert all(k.op.result == "fp32" for k in kernels(own, block(own), "W"))


def test_gradients_that_no_product_adds_are_added_by_small_kernels():
    """Of norms, behind the kernel that finishes each: products add those of their weights themselves."""
    names = [kernel.name for kernel in kernels(on(), block(on()), "B")]
    added = [name for name in names if name.endswith("_added")]
    assert added == ["mlp_norm_bwd_added", "input_norm_bwd_added"]
    assert all(names[names.index(name) - 1] == name.replace("_added", "_finish") for name in added)


def test_attention_in_single_operations_asks_for_no_seed():
    plain = on(stack={"name": "megatron", "attention": "unfused"})
    assert "seed" not in [kernel.name for kernel in kernels(plain, block(plain), "F")]


def test_plain_rope_is_its_single_operations():
    """24 bytes an element of queries and keys forward, 34 backward, where the fused kernel moves 4 each way."""
    plain, own = on(stack={"name": "megatron", "rope": "plain"}), on()
    elements = own.site.tokens * (4096 + 1024)
    for direction, each in (("F", 24), ("B", 34)):
        turned = [
            sum(k.op.bytes() for k in kernels(one, block(one), direction) if k.name.startswith("rope_"))
            for one in (own, plain)
        ]
        assert turned == [4 * elements, each * elements]
    with pytest.raises(Refused, match=r"stack\.rope: complex rope is torch's; legal: own, plain"):
        on(stack={"name": "megatron", "rope": "complex"})


CASTS = {
    "bf16": (0, 0, 0), "fp8_delayed": (2, 4, 2), "fp8_current": (4, 4, 0), "fp8_block": (4, 4, 0), "mxfp8": (4, 4, 0),
    "nvfp4": (4, 4, 0),
}  # fmt: skip
"""Recipe -> casts of a dense layer forward (norms write theirs where they can) and backward, and transposes there."""
FIRST = ("fp8_current", "nvfp4")


@pytest.mark.parametrize("precision", TRANSFORMER_ENGINE)
def test_each_recipe_casts_what_its_documents_say(precision):
    own = on(precision=precision, node="b200x8" if precision in BLACKWELL else "h100x8")
    forward, backward = (kernels(own, block(own), direction) for direction in "FB")
    cast = [sum(k.name.startswith("cast_") for k in row) for row in (forward, backward)]
    turned = sum(k.name.startswith("transpose_") for k in backward)
    assert (*cast, turned) == CASTS[precision]
    found = 2 * (precision == "fp8_current")  # by norms
    assert sum(k.name.startswith("amax_") for k in forward + backward) == sum(cast) * (precision in FIRST) - found
    formats = {k.op.precision for k in forward + backward if isinstance(k.op, Gemm)}
    assert formats == {own.recipe.linear}


def test_blackwell_reads_a_tensor_of_one_scale_both_ways():
    hopper, blackwell = (on(precision="fp8_delayed", node=node) for node in ("h100x8", "b200x8"))
    assert not any(k.name.startswith("transpose_") for k in kernels(blackwell, block(blackwell), "B"))
    written = [
        next(k.op for k in kernels(own, block(own), "B") if k.name == "cast_dy_fc2") for own in (hopper, blackwell)
    ]
    assert written[0].write == 2 * written[1].write


@pytest.mark.parametrize("precision", BLACKWELL)
def test_formats_that_a_device_lacks_are_refused(precision):
    with pytest.raises(Exception, match=f"has no {precision} peak; legal: bf16, fp8_delayed, fp8_current, fp8_block"):
        on(precision=precision)


def formed(model, precision="mxfp8", node="gb200x72", **stack):
    return on(model, precision=precision, node={"base": node, "gpus": 8}, stack={"name": "megatron", **stack})


@pytest.mark.parametrize(("precision", "format_"), [("mxfp8", "mxfp8"), ("fp8_current", "fp8"), ("nvfp4", "fp8")])
def test_attention_multiplies_in_the_recipes_fp8_where_the_stack_says_so(precision, format_):
    plain, own = (formed("llama3_8b", precision, attention_precision=word) for word in ("bf16", "fp8"))
    for direction in "FB":
        (op,) = [k.op for k in kernels(own, block(own), direction) if isinstance(k.op, Attention)]
        (bf16,) = [k.op for k in kernels(plain, block(plain), direction) if isinstance(k.op, Attention)]
        assert (op.precision, op._replace(precision="bf16")) == (format_, bf16)
    more = {d: [k for k in kernels(own, block(own), d) if k.name.startswith("sdpa_")] for d in "FB"}
    read = sum(k.op.rows * k.op.read for k in more["F"] if k.name.startswith("sdpa_cast") and "order" not in k.name)
    assert read == 4096 * 2 * (32 + 8 + 8) * 128  # queries, keys and values
    assert any("dout" in k.name for k in more["B"])
    assert not any(k.name.startswith("sdpa_cast") for k in kernels(plain, block(plain), "F"))


def test_attention_in_fp8_keeps_its_inputs_quantised():
    plain, block_, tensor = (
        formed("llama3_8b", precision, attention_precision=word)
        for precision, word in (("mxfp8", "bf16"), ("mxfp8", "fp8"), ("fp8_current", "fp8"))
    )
    kept = [each.lowering.kept(each.site, block(each)).fixed for each in (plain, block_, tensor)]
    turned = 4096 * 2 * (32 + 8) * 128  # queries and keys lay in the product's output and in copies
    assert kept[0] - kept[1] == pytest.approx(turned - 4096 * (32 + 16) * 128 / 16)
    other = formed("llama3_8b", "fp8_current")
    assert other.lowering.kept(other.site, block(other)).fixed - kept[2] == turned + 4096 * (32 + 16) * 128


def test_attention_in_fp8_is_refused_where_no_kernel_does_it():
    with pytest.raises(Refused, match=r"stack\.attention_precision: attention goes by the scales of an FP8 or FP4"):
        formed("llama3_8b", "bf16", attention_precision="fp8")
    with pytest.raises(Refused, match=r"stack\.attention_precision: flash2 attention has no such kernels"):
        formed("llama3_8b", attention_precision="fp8", attention="flash2")
    with pytest.raises(Refused, match=r"stack\.attention_precision: no such kernels are known on A100"):
        formed("llama3_8b", "fp8_current", node="a100x8", attention_precision="fp8")


def test_logits_multiply_in_mxfp8_where_the_stack_says_so():
    plain, own = (formed("llama3_8b", output_layer=word) for word in ("bf16", "mxfp8"))
    head = next(unit for unit in own.units if unit.kind == "head")
    for direction, count in (("F", 1), ("B", 1), ("W", 1)):
        formats = [k.op.precision for k in kernels(own, head, direction) if isinstance(k.op, Gemm)]
        assert formats == ["mxfp8"] * count
        assert [k.op.precision for k in kernels(plain, head, direction) if isinstance(k.op, Gemm)] == ["bf16"] * count
    casts = [k.op for d in "FB" for k in kernels(own, head, d) if k.name.startswith("cast_")]
    assert [op.rows * op.read for op in casts] == [4096 * 2 * 4096, 4096 * 2 * 128256]  # input; logits' gradient
    ways = [sum(k.op.rows for k in each.lowering.update(each.site, each.units) if k.name == "cast_weights")
            for each in (plain, own)]  # fmt: skip
    assert ways[1] - ways[0] == 4096 * 128256
    with pytest.raises(Refused, match=r"stack\.output_layer: logits are multiplied so in mxfp8 alone; legal: bf16"):
        formed("llama3_8b", "fp8_current", output_layer="mxfp8")


def test_what_predicts_further_tokens_multiplies_in_bf16_where_the_stack_says_so():
    own = formed("deepseek_v3", bf16_prediction=True)
    assert {unit.beside: unit.precise for unit in own.units} == {False: False, True: True}
    both = formed("deepseek_v3", bf16_prediction=True, bf16_first=1)
    assert [unit.layer for unit in both.units if unit.precise and not unit.beside] == [0]
    with pytest.raises(Refused, match=r"stack\.bf16_prediction: all layers multiply in BF16"):
        formed("deepseek_v3", "bf16", bf16_prediction=True)


def ends(first, last, precision="nvfp4"):
    return on(precision=precision, node="b200x8", stack={"name": "megatron", "bf16_first": first, "bf16_last": last})


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 4), (2, 0), (1, 30)])
def test_layers_at_the_ends_multiply_in_bf16_where_the_stack_says_so(first, last):
    own = ends(first, last)
    layers = [unit for unit in own.units if unit.block]
    formats = [next(k.op.precision for k in kernels(own, u, "F") if isinstance(k.op, Gemm)) for u in layers]
    assert formats == ["bf16"] * first + ["nvfp4"] * (32 - first - last) + ["bf16"] * last


def test_layers_in_bf16_are_the_models_own_in_every_pipeline():
    pipeline = {"parallel": {"pipeline": 4}, "placement": "even", "batch": {"sequences": 8, "sequence_length": 4096}}
    none, some = (
        on(precision="nvfp4", node="b200x8", stack={"name": "megatron", "bf16_last": last}, **pipeline)
        for last in (0, 8)
    )
    same, slower = none.stages[0], none.stages[3]
    assert some.stages[0] == same and all(unit.precise for unit in some.stages[3] if unit.block)
    assert some.unit_ns(some.stages[3][0]) > none.unit_ns(slower[0])


def test_layers_in_bf16_keep_more_and_are_refused_where_there_are_none():
    own = ends(0, 5)
    layers = [unit for unit in own.units if unit.block]
    with pytest.raises(Refused, match=r"stack\.bf16_last: all layers multiply in BF16; legal: 0, or another precision"):
        ends(0, 1, "bf16")
    with pytest.raises(Refused, match=r"stack\.bf16_first: the model has 32 layers; legal: 0 to 32"):
        ends(33, 0)
    assert own.lowering.kept(own.site, layers[0]).fixed < own.lowering.kept(own.site, layers[-1]).fixed


def test_what_is_kept_is_what_operations_need():
    own = on()
    h, kv, w, heads, deviation = 4096, 1024, 14336, 32, 4
    attention = 2 * (2 * h + (h + 2 * kv) + (h + kv) + h) + 4 * heads + deviation
    assert own.lowering.kept(own.site, block(own)).fixed == 4096 * (attention + 2 * (2 * h + 3 * w) + deviation)
    fp8 = on(precision="fp8_delayed")
    saved = own.lowering.kept(own.site, block(own)).fixed - fp8.lowering.kept(fp8.site, block(fp8)).fixed
    # inputs of qkv, fc1 and fc2 are in a byte; a copy of proj's is beside attention's output
    assert saved == 4096 * (2 * h + w - h)


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_dispatchers_send_what_they_say(dispatcher):
    own = on("qwen3_30b_a3b", expert=8, stack={"name": "megatron", "dispatcher": dispatcher})
    unit = block(own, routed=True)
    (sent,) = [k.op for k in kernels(own, unit, "F") if isinstance(k.op, AllToAll) and k.name == "dispatch(F)"]
    rows = 8 if dispatcher == "alltoall" else own.site.ranks_reached
    likely = 4 * 128 if dispatcher == "hybridep" else 0  # probabilities of all experts
    assert sent.bytes() == pytest.approx(4096 * rows * (2 * 2048 + likely))
    names = {k.name for k in kernels(own, unit, "F")}
    assert ("permute_row_map" in names) == (dispatcher != "hybridep")  # it knows where rows go
    assert ("sort_rows" in names) == ("probabilities(F)" in names) == (dispatcher == "alltoall")
    alone = on("qwen3_30b_a3b")
    assert not any(isinstance(k.op, AllToAll) for k in kernels(alone, block(alone, routed=True), "F"))


def flop(kernels_):
    return sum(k.op.flop() for k in kernels_ if isinstance(k.op, Gemm | GroupedGemm))


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize("stack", ["torch", "megatron"])
def test_every_model_lowers_to_as_many_flops_as_on_deepseeks_stack(name, stack):
    """Forward and weight gradients; backward, but for what DeepSeek's recipe computes again."""
    own = shipped(name, stack)
    there = lowering(own.family, DEEPSEEK)
    site = own.site._replace(stack=DEEPSEEK, recompute=Recompute("none"))
    for unit in kinds(own):
        ours, theirs = ({d: flop(k for p in parts(unit, d) for k in p.kernels) for d in "FBW"} for parts in (
            own.parts, lambda unit, direction: there.parts(site, unit, direction)))  # fmt: skip
        rows = own.site.rows / (own.site.tokens * (own.mixture.chosen if own.mixture else 1) or 1)
        if unit.routed and stack == "torch":  # torch pads no rows
            assert sum(ours.values()) <= sum(theirs.values()) <= sum(ours.values()) * max(1.0, rows)
        else:
            assert sum(ours.values()) == pytest.approx(sum(theirs.values()), rel=1e-3)


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize("stack", ["torch", "megatron"])
def test_every_model_keeps_something_and_has_all_its_parameters_in_tensors(name, stack):
    own = shipped(name, stack)
    assert isinstance(own.lowering, ByBlocks)
    for unit in kinds(own):
        assert own.lowering.kept(own.site, unit).at(own.site) > 0
        made = own.family.made(own.site.shape, unit)
        held, counted = sum(own.lowering.stack.tensors(own.site, made)), weights(own.site.shape, [unit])
        assert held == counted.total + counted.shared * (unit.beside and unit.kind != "projection")


@pytest.mark.parametrize(("stack", "norm"), [("torch", 2 * 6144 + 4), ("megatron", 2 * 6144 + 4)])
def test_norms_behind_both_halves_keep_their_inputs(stack, norm):
    """Grok's layers: 6,144 BF16 elements and an FP32 inverse deviation a token, each."""
    base = {"base": "grok_1", "post_norms": False}
    with_norms, without = (on(model, stack=stack, node="b200x8") for model in ("grok_1", base))
    unit = block(with_norms, routed=True)
    more, less = (own.lowering.kept(own.site, unit).at(own.site) for own in (with_norms, without))
    assert more - less == 4096 * 2 * norm


@pytest.mark.parametrize("stack", ["torch", "megatron"])
def test_sequences_beyond_learned_positions_are_refused(stack):
    batch = {"sequences": 8, "sequence_length": 4096}
    with pytest.raises(Refused, match="4096 is beyond the positions that GPT-3 175B learned; legal: 1 to 2048"):
        on("gpt3_175b", stack=stack, node="b200x8", batch=batch).unit_ns(Unit("embedding", -1))


def test_weights_are_cast_once_a_step():
    own = on(precision="fp8_block")
    assert isinstance(own.lowering, ByBlocks)
    casts = [k for k in own.lowering.update(own.site, [block(own)]) if k.name == "cast_weights"]
    assert sum(k.op.rows for k in casts if isinstance(k.op, Memory)) == weights(own.site.shape, [block(own)]).linear
    assert not any(k.name == "cast_weights" for k in on().lowering.update(on().site, [block(own)]))


def test_an_update_copies_and_clips_gradients_and_copies_parameters():
    """Bytes of a parameter: FP32 gradients are scaled (8) and parameters copied (6); BF16 ones are copied too (6); with
    moments in BF16 the optimizer copies itself, and gradients stay BF16 (4). Of a part: as many times less."""
    for states, expected in (
        ({}, {"clip": 8, "model_parameters": 6}),
        ({"gradients": "bf16"}, {"main_gradients": 6, "clip": 8, "model_parameters": 6}),
        ({"gradients": "bf16", "moments": "bf16"}, {"clip": 4}),
    ):
        own = on(states=states)
        whole, half = (own.lowering.update(own.site, [block(own)], part) for part in (1.0, 0.5))
        count = sum(own.lowering.tensors(own.site, block(own)))
        assert {k.name: k.op.bytes() for k in whole} == {name: size * count for name, size in expected.items()}
        assert sum(k.op.bytes() for k in half) == pytest.approx(sum(k.op.bytes() for k in whole) / 2)


def test_parameters_kept_in_fp8_are_cast_where_they_are_updated():
    """From FP32, behind a pass for the largest values where a tensor's is asked anew; GPUs that read rows alone
    transpose what products read, once a step."""
    for precision, node, transposed, passes in (
        ("fp8_current", "h100x8", 2, 4), ("fp8_delayed", "h100x8", 2, 0), ("fp8_current", "b200x8", 0, 4),
    ):  # fmt: skip
        own = on(precision=precision, node=node, states={"parameters": "fp8"})
        launched = own.lowering.update(own.site, [block(own)])
        count, linear = (sum(own.lowering.tensors(own.site, block(own))), weights(own.site.shape, [block(own)]).linear)
        moved = {name: sum(k.op.bytes() for k in launched if k.name == name) for name in {k.name for k in launched}}
        assert moved["model_parameters"] == (passes + 5) * count and "cast_weights" not in moved
        assert moved.get("transpose_weights", 0) == transposed * linear


def test_the_host_launches_unless_graphs_do():
    assert Stack("megatron").launches and not Stack("megatron", cuda_graphs=True).launches
    assert on(stack={"name": "megatron", "cuda_graphs": True}).pricer.host is None and on().pricer.host


def test_gradients_of_biases_that_are_added_outside_of_products_are_summed_by_themselves():
    own, plain = on("gpt3_175b"), on()
    sums = [k for k in kernels(own, block(own), "W") if k.name.endswith("_bias_grad")]
    t, h = own.site.tokens, own.site.shape.hidden
    assert [(k.name, k.op.rows, k.op.bytes()) for k in sums] == [
        ("fc2_bias_grad", t, 2 * t * h), ("fc1_bias_grad", t, 8 * t * h), ("proj_bias_grad", t, 2 * t * h)
    ]  # fmt: skip
    assert not any("bias" in k.name for k in kernels(plain, block(plain), "W"))


def loss(own):
    head = next(unit for unit in own.units if unit.kind == "head")
    return [k for d in "FB" for k in kernels(own, head, d) if not isinstance(k.op, Gemm) and "norm" not in k.name]


@pytest.mark.parametrize("tensor", [1, 4])
def test_megatrons_own_cross_entropy_is_in_fp32(tensor):
    theirs, own = (
        on(stack={"name": "megatron", "cross_entropy": name}, parallel={"tensor": tensor})
        for name in ("transformer_engine", "native")
    )
    bytes_of = [sum(k.op.bytes() for k in loss(each) if isinstance(k.op, Memory)) for each in (theirs, own)]
    logits = own.site.tokens * own.site.shape.vocabulary
    assert bytes_of == [10 * logits, 32 * logits]
    assert sum(k.name.startswith("reduce_") for k in loss(own)) == 2 * (tensor > 1)
    head = next(unit for unit in own.units if unit.kind == "head")
    kept = [each.lowering.kept(each.site, head).at(each.site) for each in (theirs, own)]
    assert kept[1] - kept[0] == 2 * logits


def test_plain_rope_of_latents_turns_and_joins_in_single_operations():
    """128 heads of 128 and 64: pairs in halves, and what GQA's rope does, of queries' and of one key's elements; then
    queries, keys and values each in one tensor. Backward the products' gradients lie in one tensor each."""
    fused, plain = (on(model="deepseek_v3", stack={"name": "megatron", "rope": rope}) for rope in ("own", "plain"))
    own = {d: [k for k in kernels(plain, block(plain), d) if k.name.startswith("rope_")] for d in "FB"}
    assert {k.name for k in kernels(fused, block(fused), "F") if "rope" in k.name} == {"rope_q", "rope_kv"}
    t, turned = plain.site.tokens, 128 * 64
    names = [[k.name for k in own[d]] for d in "FB"]
    assert [each.count("rope_q") for each in names] == [7, 0] and names[1].count("rope_q_bwd") == 14
    sizes = {k.name: k.op.bytes() for d in "FB" for k in own[d] if "join" in k.name or "copy" in k.name}
    assert sizes["rope_q_join"] == sizes["rope_q_join_bwd"] == 4 * t * 128 * 192
    assert sizes["rope_k_join"] == 2 * t * (128 * 128 + 64 + 128 * 192) and sizes["rope_v_copy"] == 4 * t * 128 * 128
    assert sizes["rope_kv_join_bwd"] == 4 * t * 128 * 256
    assert sum(k.op.bytes() for k in own["F"] if k.name == "rope_q") == (4 + 2 + 4 + 4 + 4 + 6 + 4) * t * turned


@pytest.mark.parametrize("tensor", [1, 4])
def test_an_unfused_cross_entropy_goes_over_all_logits_operation_by_operation(tensor):
    plain, own = (
        on(stack={"name": "megatron", "cross_entropy": name}, parallel={"tensor": tensor})
        for name in ("plain", "native")
    )
    logits = own.site.tokens * own.site.shape.vocabulary
    over = [k.op for k in loss(plain) if isinstance(k.op, Memory) and k.op.rows > 1]
    by_row = ("strided", 4.68)
    kinds = [("convert", 6), ("reduce", 4), by_row, ("elementwise", 8), ("reduce", 4), by_row, by_row, ("convert", 6)]
    assert [(op.kind, pytest.approx(op.bytes() / logits)) for op in over] == kinds
    assert sum(k.name.startswith("reduce_") for k in loss(plain)) == 3 * (tensor > 1)
    assert sum(k.op == small("tiny") for k in loss(plain)) == 18
    head = next(unit for unit in own.units if unit.kind == "head")
    kept = [each.lowering.kept(each.site, head).at(each.site) for each in (plain, own)]
    assert kept[0] == kept[1]


def test_only_megatron_has_its_own_cross_entropy():
    with pytest.raises(Refused, match=r"stack.cross_entropy: torch runs without it; it goes with: megatron"):
        on(stack={"name": "torch", "cross_entropy": "native"})


def of(name, precision, direction, **stack):
    own = on(precision=precision, node="b200x8", stack={"name": "megatron", **stack})
    return [k for k in kernels(own, block(own), direction) if k.name.startswith(name)]


def test_cudnns_norms_cast_mxfp8_and_find_no_largest_value():
    """TransformerEngine's leave the cast to a kernel of its own, and find the largest value for current scaling."""
    norm = {whose: of("input_norm", "mxfp8", "F", norms=whose)[0].op for whose in ("transformer_engine", "cudnn")}
    assert norm["transformer_engine"].write == norm["transformer_engine"].read == 2 * 4096
    assert norm["cudnn"].write == 2 * (4096 + 4096 / 32)  # rows and columns, a scale for 32
    assert [len(of("cast_", "mxfp8", "F", norms=whose)) for whose in norm] == [4, 2]
    assert [len(of("amax_", "fp8_current", "F", norms=whose)) for whose in norm] == [2, 4]
    assert all(of("input_norm", "fp8_delayed", "F", norms=whose)[0].op.write == 4096 for whose in norm)


@pytest.mark.parametrize(("precision", "scale"), [("mxfp8", 1 / 32), ("nvfp4", 1 / 16)])
def test_scales_are_put_in_order_by_kernels_before_products(precision, scale):
    """Of fc1 [4096 tokens, 4096] x [28672, 4096]: of its weights alone, or of both sides; gradients of weights have
    none. fp8 has one scale a tensor and nothing to put in order."""
    for direction, tail in (("F", ""), ("B", "_dgrad"), ("W", "_wgrad")):
        both, weights, none = (
            [k.op.bytes() for k in of(f"order_fc1{tail}", precision, direction, scales=which)]
            for which in ("both", "weights", "none")
        )
        weight, wide, narrow = (2 * scale * n for n in (28672 * 4096, 4096 * 28672, 4096 * 4096))
        assert none == [] and weights == ([] if direction == "W" else [weight])
        assert both == {"F": [narrow, weight], "B": [wide, weight], "W": [wide, narrow]}[direction]
    with pytest.raises(Refused, match=r"stack\.scales: no scales of blocks to put in order; legal with: mxfp8, nvfp4"):
        of("order_", "fp8_current", "F", scales="both")


def test_two_casts_of_nvfp4_read_a_tensor_twice():
    joined, apart = (of("cast_", "nvfp4", "F", casts=each) for each in ("joined", "apart"))
    assert len(apart) == 2 * len(joined)
    assert sum(k.op.rows * k.op.read for k in apart) == 2 * sum(k.op.rows * k.op.read for k in joined)
    assert sum(k.op.rows * k.op.write for k in apart) == sum(k.op.rows * k.op.write for k in joined)
    with pytest.raises(Refused, match=r"stack\.casts: one kernel casts rows and columns but in nvfp4"):
        of("cast_", "mxfp8", "F", casts="apart")


def scanning(sequences=1, **changes):
    """A rank of eight with one sequence in each micro-batch, or more."""
    batch = {"sequences": 8 * sequences, "sequence_length": 4096, "micro_batch": sequences}
    own = on("nemotron_h_8b", batch=batch, **changes)
    return own, next(unit for unit in own.units if unit.kind == "mamba")


def test_a_scan_has_its_norm_behind_and_its_gate_inside():
    """mamba_mixer.py and ssd_combined.py: forward writes and reads the gated output between scan and norm; backward has
    a kernel for the gate's gradient, [z, y, dy, and what the norm took] to [dz, dy]."""
    own, unit = scanning()
    names = [k.name for k in kernels(own, unit, "F")]
    assert names == [
        "input_norm", "in_proj", "conv1d",
        *[n for n in names if n.startswith(("chunk_c", "chunk_st", "state_", "bmm_"))],
        "chunk_scan", "scan_norm", "out_proj", "residual",
    ]  # fmt: skip
    back = {k.name: k.op for k in kernels(own, unit, "B")}
    inner, tokens = 8192, 4096
    assert back["chunk_scan_bwd_dz"].bytes() == 2 * tokens * inner * 6
    assert list(back).index("scan_norm_bwd") < list(back).index("chunk_scan_bwd_dz") < list(back).index("conv1d_bwd")


def test_projections_around_a_scan_multiply_in_the_recipes_format():
    own, unit = scanning(precision="mxfp8", cluster={"node": "b200x8", "nodes": 1})
    for direction, names in (("F", ("in_proj", "out_proj")), ("B", ("in_proj_dgrad", "out_proj_dgrad"))):
        ops = {kernel.name: kernel.op for kernel in kernels(own, unit, direction)}
        assert [ops[name].precision for name in names] == ["mxfp8"] * 2


TIMED = json.loads(Path("numerics/card/timed/mamba.json").read_text())


def test_torch_sums_what_a_scans_backward_leaves_in_parts():
    """20 operations of torch in a backward (one copies), three of them of B's, C's and their products' gradients."""
    own, unit = scanning()
    names = [kernel.name for kernel in kernels(own, unit, "B")]
    of_torch = [e for e in TIMED["calls"][0]["backward"] if not e["kernel"].startswith("_")]
    assert sum(name.startswith(("sum_d", "scan_small")) for name in names) == sum(e["launches"] for e in of_torch)


@pytest.mark.parametrize("call", TIMED["calls"], ids=lambda call: call["name"])
def test_a_scan_takes_what_it_took_on_a_card(call):
    """Kernels of one call forward and one backward: each timed once a launch, with the bytes that its row has; their
    prices from the other rows come within a fifth of the whole."""
    sizes = {"mamba_heads": call["heads"], "mamba_width": call["width"], "mamba_groups": call["groups"],
             "mamba_state": call["state"], "mamba_chunk": call["chunk"]}  # fmt: skip
    model = {"base": "nemotron_h_8b", **sizes}
    batch = {"sequences": 8 * call["batch"], "sequence_length": call["tokens"], "micro_batch": call["batch"]}
    own = on(model, node="h200x8", batch=batch)
    unit = next(unit for unit in own.units if unit.kind == "mamba")
    made = [k for way in "FB" for k in kernels(own, unit, way) if getattr(k.op, "kind", "").startswith("scan_")]
    rows = [row for row in TIMED["rows"] if row["call"] == call["name"]]
    assert {(k.op.kind, k.op.rows, k.op.read, k.op.write) for k in made} == {
        (row["kind"], row["rows"], row["read"], row["write"]) for row in rows
    }
    launches = [e for way in ("forward", "backward") for e in call[way] if e["kernel"].startswith("_")]
    assert len(made) == sum(e["launches"] for e in launches)
    took = sum(e["us_each"] * e["launches"] for e in launches)
    held = replace(own.pricer, mode="fitted")
    assert sum(held.price(k.op).ns for k in made) / US_NS == pytest.approx(took, rel=0.2)


def test_a_scan_of_several_sequences_is_turned_both_ways():
    one, many = scanning(), scanning(2)
    for direction, names in (("F", ["scan_in", "scan_out"]), ("B", ["dscan_out", "dscan_in"])):
        alone, several = (kernels(*each, direction) for each in (one, many))
        assert [k.name for k in several if k.name not in {k.name for k in alone}] == names
        turned = sum(k.op.bytes() for k in several if k.name in names)
        assert turned == 2 * 2 * 8192 * (2 * 8192 + 2 * 8 * 128 + 128 + 8192)


def test_a_scan_keeps_what_its_norm_and_its_last_product_take():
    """Residual and input of the first product, what that makes, and the scan's output; the norm's input and output."""
    own, unit = scanning()
    columns = 2 * 8192 + 2 * 8 * 128 + 128
    assert own.lowering.kept(own.site, unit).fixed == 4096 * 2 * (2 * 4096 + columns + 3 * 8192)
