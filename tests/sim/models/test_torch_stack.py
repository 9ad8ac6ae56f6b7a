"""Kernels of the torch stack: as many of each class as in profiled steps, and what all stacks must agree on."""

import json
from collections import Counter
from pathlib import Path

import pytest

from hwmodels.op import Attention, Collective, Gemm, GroupedGemm, Memory
from hwmodels.refused import Refused
from sim.assembly import machine
from sim.layout.plan import lay_out
from sim.models.family import weights
from sim.models.lowering import ByBlocks, lowering
from sim.models.stacks.stack import DEEPSEEK
from sim.models.stacks.torch.compiled import attention, feed_forward
from sim.models.stacks.torch.kernels import SPLIT_K, product
from sim.models.stacks.torch.optimizer import BLOCKS, CHUNK, launches
from sim.scenario import from_mapping
from sim.validation.torch_steps import kernels, runs, scenario
from tests.oracles.launches import counted

TRACES = json.loads((Path(__file__).parents[2] / "fixtures/torch_launches.json").read_text())
"""Launches by class in four profiled steps (H200, torch 2.11.0+cu130), counted in shared/cases/traces."""


def on(run, **changes):
    return machine(lay_out(from_mapping(scenario(run) | changes)))


DIFFERENCES = {"compiled": {"fused": 1}}
"""More launches here than in a trace: Inductor made one of five norm gradients there in two kernels, not in three."""
RUNS = runs()


@pytest.mark.parametrize("name", sorted(TRACES))
def test_a_step_launches_as_many_kernels_of_each_class_as_the_profiled_one(name):
    launched = counted(kernels(on(TRACES[name]["model"])))
    for label, more in DIFFERENCES.get(name, {}).items():
        launched[label] -= more
    assert launched == TRACES[name]["launches"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["name"])
def test_a_measured_step_has_as_many_launches(run):
    assert sum(counted(kernels(on(run))).values()) == run["kernels"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["name"])
def test_parameters_are_the_measured_ones_in_tensors_too(run):
    own = on(run)
    shape, units = own.site.shape, own.units
    assert weights(shape, units).total == run["params"]
    blocks = own.lowering
    assert isinstance(blocks, ByBlocks)
    assert (
        sum(size for unit in units for size in blocks.stack.tensors(own.site, blocks.family.made(shape, unit)))
        == run["params"]
    )


def products(kernels_):
    """FLOPs of products, scores of experts and heads' aside."""
    return sum(kernel.op.flop() for kernel in kernels_ if isinstance(kernel.op, Gemm | GroupedGemm))


@pytest.mark.parametrize("pattern", ["attention+dense", "latent+dense"])
def test_products_do_as_much_on_all_stacks(pattern):
    run = dict(RUNS[0]) if pattern == "attention+dense" else next(run for run in RUNS if run.get("mla"))
    own = on(run)
    for unit in own.units:
        for direction in "FBW":
            here, there = (
                products(
                    k for part in lower.parts(own.site._replace(stack=stack), unit, direction) for k in part.kernels
                )
                for lower, stack in ((own.lowering, own.site.stack), (lowering(own.family, DEEPSEEK), DEEPSEEK))
            )
            if direction == "B" and "latent" in pattern:  # DeepSeek's recipe computes up-projections again
                assert here <= there
            else:
                assert here == there


def test_full_recomputation_runs_the_forward_up_to_the_last_product_again():
    own = on(RUNS[0] | {"ckpt": True})
    unit = next(unit for unit in own.units if unit.block)
    forward = [k for part in own.parts(unit, "F") for k in part.kernels]
    again = [k for part in own.parts(unit, "B") if part.name.endswith(" again") for k in part.kernels]
    assert again == forward[: len(again)]
    assert [k.name for k in forward[len(again) :]] == ["memset", "down", "residual"]


def test_what_is_kept_is_what_operations_need():
    own = on(RUNS[0])
    unit = next(unit for unit in own.units if unit.block)
    h, kv, w, heads, wide = 4096, 1024, 14336, 32, 4
    attention = 2 * (2 * h + h + 2 * kv + 2 * h) + wide + wide * heads
    assert own.lowering.kept(own.site, unit).fixed == 4096 * (attention + 2 * (2 * h + 4 * w) + wide)
    full = on(RUNS[0] | {"ckpt": True})
    (checkpoint, *_) = [each for each in full.units if each.block]
    assert full.lowering.kept(full.site, checkpoint).fixed == 4096 * 2 * h
    whole = own.lowering.kept(own.site, unit)
    held = full.lowering.regained(full.site, checkpoint) + full.lowering.kept(full.site, checkpoint)
    assert held == whole + own.lowering.regained(own.site, unit)
    compiled = on(RUNS[0] | {"compiled": True})
    assert compiled.lowering.kept(compiled.site, unit).fixed == 4096 * (attention + 2 * (2 * h + 2 * w) + wide)


@pytest.mark.parametrize("sizes", [[CHUNK * BLOCKS], [1] * 36, [CHUNK * (BLOCKS + 1), 5], [7] * 37])
def test_launches_of_the_update_hold_all_elements(sizes):
    assert sum(launches(sizes, 4)) == sum(sizes)
    assert len(list(launches(sizes, 4))) == (
        1 if sum(-(-s // CHUNK) for s in sizes) <= BLOCKS and len(sizes) <= 36 else 2
    )


@pytest.mark.parametrize(
    ("m", "n", "k", "split"),
    [
        (64, 2048, 4096, True), (64, 2048, 2048, False), (128, 2048, 4096, False), (8, 4096, 8192, True),
        (8192, 8, 4096, False), (512, 2048, 8192, False), (512, 2048, 16384, True), (4096, 4096, 32768, False),
    ],
)  # fmt: skip
def test_the_depth_of_a_product_of_few_tiles_is_split(m, n, k, split):
    assert (product("p", m, n, k)[-1].name == SPLIT_K) == split


def test_rows_that_no_token_has_named_are_updated_by_launches_of_their_own():
    def kinds(**changes):
        own = on(RUNS[0], **changes)
        found = [kernel.op for kernel in kernels(own) if kernel.name == "adam"]
        return Counter(op.kind for op in found), sum(own.pricer.price(op).ns for op in found)

    fresh, fresh_ns = kinds(optimizer={"unseen": 0.96})
    seen, seen_ns = kinds(optimizer={})
    assert set(seen) == {"adam"} and sum(fresh.values()) == seen["adam"]
    assert fresh["adam_unseen"] == round(0.96 * 128256 * 4096 / (CHUNK * BLOCKS))
    assert fresh_ns - seen_ns == pytest.approx(fresh["adam_unseen"] * (206_900 - 113_000), rel=0.02)
    tied = on(RUNS[0], optimizer={"unseen": 0.96}, model=scenario(RUNS[0])["model"] | {"tied": True})
    assert "adam_unseen" not in {kernel.op.kind for kernel in kernels(tied) if kernel.name == "adam"}


def test_a_mixture_over_several_ranks_exchanges_rows():
    run = next(run for run in RUNS if "experts" in run)
    own = on(
        run, cluster={"node": "h200x8", "nodes": 1}, parallel={"expert": 8}, batch={"sequences": 16, "micro_batch": 2}
    )
    unit = next(unit for unit in own.units if unit.routed)
    assert [part.name for part in own.parts(unit, "F")] == ["attn", "dispatch", "mlp", "combine"]
    assert {part.name for part in own.parts(unit, "F") if part.meets} == {"dispatch", "combine"}


def test_float8_casts_each_operand_between_compiled_kernels():
    bf16, float8 = on(RUNS[0] | {"compiled": True}), on(RUNS[0] | {"compiled": True}, precision="fp8_current")
    unit = next(unit for unit in float8.units if unit.block)
    # seven weights, and the four tensors that seven products read; backward seven gradients of outputs, both ways, two
    # of them in one kernel with the activation, which is transposed there too
    for direction, casts, turned in (("F", 7 + 4, 0), ("B", 6, 7), ("W", 0, 3)):
        here, there = ([k for p in own.parts(unit, direction) for k in p.kernels] for own in (float8, bf16))
        assert products(here) == products(there)
        assert sum(k.name.startswith("cast_") for k in here) == casts
        assert sum(k.name.startswith("transpose_") for k in here) == turned
        assert {k.op.precision for k in here if isinstance(k.op, Gemm)} == {"fp8"}
        both = [k.op for k in here if getattr(k.op, "kind", "") == "cast_both"]
        assert [op.read == op.write for op in both] == [True] * (5 * (direction == "B"))
        assert not any(k.name.startswith("swiglu") for k in here)
    gated = [k.op for d in "FB" for p in float8.parts(unit, d) for k in p.kernels
             if getattr(k.op, "kind", "").startswith("gated_")]  # fmt: skip
    w, t = float8.lowering.family.made(float8.site.shape, unit).dense.width, float8.site.tokens
    assert [(op.rows, op.read / w, op.write / w) for op in gated] == [(t, 4, 0), (t, 4, 1), (t, 6, 0), (t, 6, 5)]
    head = float8.units[-1]
    assert float8.parts(head, "F") == bf16.parts(head, "F")
    assert float8.lowering.kept(float8.site, unit) == bf16.lowering.kept(bf16.site, unit)


@pytest.mark.parametrize("overlap", [False, True])
def test_float8_is_cast_before_it_is_gathered_by_each_rank_its_own(overlap):
    """Over 8 ranks: gathers carry a byte an element, and what is gathered was cast in an eighth of the tokens; weights
    are cast once, though products run in chunks."""
    run = RUNS[0] | {"compiled": True}
    changes = {"cluster": {"node": "h200x8", "nodes": 1}, "parallel": {"tensor": 8}, "overlap": {"tensor": overlap}}
    bf16, float8 = (on(run, **changes, precision=name) for name in ("bf16", "fp8_current"))
    unit = next(unit for unit in float8.units if unit.block)
    here, there = ([k for p in own.parts(unit, "F") for k in p.kernels] for own in (float8, bf16))
    sizes = [[k.op.size for k in each if isinstance(k.op, Collective) and k.op.kind == "all_gather"]
             for each in (here, there)]  # fmt: skip
    assert len(sizes[0]) == 2 and [2 * size for size in sizes[0]] == sizes[1]
    rows = {k.name: k.op.rows for k in here if k.name.startswith("cast_")}
    assert rows["cast_x_attn"] == rows["cast_x_mlp"] == float8.site.tokens // 8
    assert sum(k.name == "cast_w_q" for k in here) == 1


@pytest.mark.parametrize("precision", ["fp8_current", "fp8_rowwise", "mxfp8"])
def test_no_operand_of_a_product_that_is_not_made_again_is_cast_again(precision):
    """Of a checkpointed layer the last product is left out, and with it the casts of its input and weights."""
    changes = {"cluster": {"node": "b200x8", "nodes": 1}, "batch": {"sequences": 8, "sequence_length": 4096}}
    own = on(RUNS[0] | {"compiled": True}, precision=precision, recompute="full", **changes)
    kernels = [k for p in own.parts(next(u for u in own.units if u.block), "B") for k in p.kernels if "again" in p.name]
    names = [k.name for k in kernels]
    assert names[-1] == ("up" if precision == "fp8_current" else "swiglu")
    assert not [name for name in names if name.endswith("down")] and "cast_w_up" in names


def by_rows(**changes):
    """Kernels of a layer by direction, of a whole one or over 8 ranks; and the rank's tokens."""
    own = on(RUNS[0] | {"compiled": True}, precision="fp8_rowwise", **changes)
    unit = next(unit for unit in own.units if unit.block)
    return {d: [k for p in own.parts(unit, d) for k in p.kernels] for d in "FBW"}, own


def kinds(kernels, *names):
    return Counter(k.op.kind for k in kernels if isinstance(k.op, Memory) and k.op.kind.startswith(names))


def test_float8_by_rows_casts_rows_and_columns_apart_and_scales_gradients_behind():
    """Rows of 7 weights and 4 tensors forward; backward 7 gradients both ways and columns of weights; behind, columns
    of the 4 tensors. No tensor is transposed in FP8. Backward scales each product, those of one input together."""
    kernels, own = by_rows()
    scaled = {d: kinds(kernels[d], "scaled_") for d in "FBW"}
    assert scaled == {
        "F": {"scaled_rows": 11}, "B": {"scaled_both": 7, "scaled_columns": 7, "scaled_gradient": 4},
        "W": {"scaled_columns": 4, "scaled_gradient": 7},
    }  # fmt: skip
    assert not any(k.name.startswith("transpose_") for d in "FBW" for k in kernels[d])
    t, h = own.site.tokens, own.site.shape.hidden
    rows = {k.name: (k.op.rows, k.op.read) for k in kernels["B"] if k.name.endswith("_scaled")}
    assert rows["dx_attn_scaled"] == (3 * t, 2 * h) and rows["dx_mlp_scaled"] == (2 * t, 2 * h)
    assert rows["o_dgrad_scaled"] == (t, 2 * h)


@pytest.mark.parametrize("overlap", [False, True])
def test_float8_by_rows_gathers_bf16_and_casts_all_tokens_behind(overlap):
    changes = {"cluster": {"node": "h200x8", "nodes": 1}, "parallel": {"tensor": 8}, "overlap": {"tensor": overlap}}
    kernels, own = by_rows(**changes)
    gathers = [k.op.size for k in kernels["F"] if isinstance(k.op, Collective) and k.op.kind == "all_gather"]
    assert gathers == [own.site.tokens * own.site.shape.hidden * 2] * 2
    assert {k.op.rows for k in kernels["F"] if k.name in ("cast_x_attn", "cast_x_mlp")} == {own.site.tokens}
    # chunks run beside reduce-scatters of forward alone, whose products nothing stands behind
    beside = {d: [k.op.kind for k in kernels[d] if isinstance(k.op, Collective) and k.ahead] for d in "FB"}
    assert beside == {"F": ["reduce_scatter"] * 2 * overlap, "B": []}


FLOAT8 = json.loads((Path(__file__).parents[3] / "numerics/card/timed/float8.json").read_text())


@pytest.mark.parametrize("module", ["8b tp8 net", "8b tp8 attn"])
def test_a_layer_by_rows_takes_what_the_whole_module_took_on_a_card(module):
    """Compiled modules of torchao on an H200, forward and backward; the sum of a module was no price's input. Norms,
    rope and what goes between ranks were not in it."""
    took = next(b["us"] for b in FLOAT8["blocks"] if b["module"] == module and b["recipe"] == "rowwise")
    batch = {"sequences": 12, "sequence_length": 8192, "micro_batch": 12}
    changes = {"model": "llama3_8b", "batch": batch, "cluster": {"node": "h200x8", "nodes": 1}}
    _, own = by_rows(**changes, parallel={"tensor": 8})
    made = own.lowering.family.made(own.site.shape, next(unit for unit in own.units if unit.block))
    block, passes = (made.dense, feed_forward) if module.endswith("net") else (made.mixer, attention)
    kernels = [k for each in (passes.forward, passes.backward, passes.weight) for k in each(own.site, block)]
    around = ("norm", "gather", "scatter", "rope", "tensor")
    there = [k for k in kernels if not any(word in k.name for word in around)]
    assert sum(own.pricer.price(k.op).ns for k in there) / 1000 == pytest.approx(took, rel=0.03)


def test_what_waits_for_its_sms_goes_by_them_on_other_cards():
    """A scaled gradient on an H100 of half the bandwidth takes as long as on an H200; half its SMs, twice as long."""
    op = Memory("scaled_gradient", 16384, 8192.0, 8192.0)
    cards = ("h200x8", {}), ("h100x8", {"hbm": {"bandwidth": "2 TB/s"}}), ("h100x8", {"sms": 66})
    nodes = [{"base": base, "gpus": 1, "device": words} for base, words in cards]
    ns = [on(RUNS[0] | {"compiled": True}, cluster={"node": n, "nodes": 1}).pricer.price(op).ns for n in nodes]
    assert ns[1] == pytest.approx(ns[0], rel=0.01)
    assert ns[2] == pytest.approx(2 * ns[1], rel=0.02)


def test_mxfp8_casts_rows_forward_and_columns_behind():
    """Of BF16 tensors, in one pass each, with their scales (a byte for 32 elements) put in order by another kernel."""
    changes = {"cluster": {"node": "b200x8", "nodes": 1}, "batch": {"sequences": 8}}
    bf16, mxfp8 = (on(RUNS[0] | {"compiled": True}, **changes, precision=name) for name in ("bf16", "mxfp8"))
    unit = next(unit for unit in mxfp8.units if unit.block)
    # forward seven weights and the four tensors that seven products read; backward seven gradients of outputs by rows,
    # seven weights by columns; then seven gradients of outputs and four inputs by columns
    for direction, rows, columns in (("F", 7 + 4, 0), ("B", 7, 7), ("W", 0, 7 + 4)):
        here, there = ([k for p in own.parts(unit, direction) for k in p.kernels] for own in (mxfp8, bf16))
        assert products(here) == products(there)
        assert sum(k.name.startswith("cast_columns_") for k in here) == columns
        assert sum(k.name.startswith("cast_") for k in here) == rows + columns
        assert sum(k.name.startswith("order_") for k in here) == rows + columns
        assert not [k for k in here if k.name.startswith(("amax", "transpose"))]
        assert {k.op.precision for k in here if isinstance(k.op, Gemm)} == {"mxfp8"}
    hidden, kernels = mxfp8.site.shape.hidden, [k for p in mxfp8.parts(unit, "F") for k in p.kernels]
    cast, order = (next(k.op for k in kernels if k.name == f"{what}_x_attn") for what in ("cast", "order"))
    assert (cast.read, cast.write) == (2 * hidden, hidden * (1 + 1 / 32))
    assert (order.read, order.write, order.rows) == (hidden / 32, hidden / 32, cast.rows)
    assert mxfp8.lowering.kept(mxfp8.site, unit) == bf16.lowering.kept(bf16.site, unit)
    assert mxfp8.parts(mxfp8.units[-1], "F") == bf16.parts(bf16.units[-1], "F")


@pytest.mark.parametrize("precision", ["fp8_current", "fp8_rowwise", "mxfp8"])
def test_float8_needs_compilation(precision):
    with pytest.raises(Exception, match="torchao's casts are fast only where torch"):
        on(RUNS[0], precision=precision)


def test_mxfp8_is_of_layers_that_no_ranks_share():
    changes = {"cluster": {"node": "b200x8", "nodes": 1}, "parallel": {"tensor": 8}, "precision": "mxfp8"}
    with pytest.raises(Exception, match="torchao's MXFP8 is not compiled over ranks"):
        on(RUNS[0] | {"compiled": True}, **changes)


@pytest.mark.parametrize("q_rank", [0, 512])
def test_compiled_latent_attention_keeps_its_products_and_fuses_the_rest(q_rank):
    """One kernel between two products, assumed: as many products and attentions as eager, fewer kernels and bytes."""
    run = next(run for run in RUNS if run.get("mla")) | {"q_rank": q_rank}
    eager, fused = on(run), on(run | {"compiled": True})
    unit = next(unit for unit in fused.units if unit.block)
    for direction in "FBW":
        here, there = ([k for p in own.parts(unit, direction) for k in p.kernels] for own in (fused, eager))
        assert products(here) == products(there)
        assert Counter(type(k.op) for k in here)[Attention] == Counter(type(k.op) for k in there)[Attention]
        if direction != "W":
            assert len(here) < len(there) and moved(here) < moved(there)
    names = [k.name for k in fused.parts(unit, "F")[0].kernels if k.op.__class__ is Memory and k.op.kind == "fused"]
    assert names == ["attn_norm", *["q_norm"] * bool(q_rank), "kv_norm", "rope_q", "rope_k", "join_heads"]


def moved(kernels_):
    return sum(k.op.bytes() for k in kernels_ if isinstance(k.op, Memory))


def test_compiled_mixtures_are_refused():
    run = next(run for run in RUNS if run.get("experts"))
    with pytest.raises(
        Refused, match=r"stack\.compiled is not built for experts layers; legal: grouped-query and latent"
    ):
        own = on(run | {"compiled": True})
        own.parts(next(unit for unit in own.units if unit.routed), "F")


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_biases_are_summed_over_rows(compiled):
    stack = {"name": "torch", "compiled": compiled}
    own = on(RUNS[0], model="gpt3_175b", stack=stack, batch={"sequences": 1, "sequence_length": 2048})
    unit = next(unit for unit in own.units if unit.block)
    sums = [k for part in own.parts(unit, "W") for k in part.kernels if k.name.endswith("_bias_grad")]
    assert sum(k.op.bytes() for k in sums) == 2 * 2048 * (3 + 1 + 4 + 1) * own.site.shape.hidden
    assert all(isinstance(k.op, Memory) and k.op.kind == "reduce" for k in sums) and len(sums) == 6


def test_a_call_of_variable_length_gathers_and_scatters_around_attention():
    made = [on(RUNS[0], model="mpt_7b", stack={"name": "torch", "attention": "flash2", "unpadded": each},
               batch={"sequences": 1, "sequence_length": 2048}) for each in (False, True)]  # fmt: skip
    plain, own = (
        [k for d in "FB" for part in each.parts(next(u for u in each.units if u.block), d) for k in part.kernels]
        for each in made
    )
    more = [k for k in own if k.name not in {k.name for k in plain}]
    assert len(own) - len(plain) == len(more) == 3 * 7 + 2 + 1 + 3 * 2
    assert sum(k.waits for k in more) == 6
    moved, numbers = sum(k.op.bytes() for k in more), 8 * 2048 * (3 + 1 + 1 + 3)
    assert moved - numbers == 2 * 2048 * made[1].site.shape.hidden * (3 * 2 + 3 + 2 + 3 * 3)


def test_compiled_code_calls_no_attention_of_variable_length():
    with pytest.raises(Refused, match=r"stack\.unpadded: compiled code has no such call"):
        on(RUNS[0], stack={"name": "torch", "compiled": True, "unpadded": True})


def layer(own, direction):
    unit = next(unit for unit in own.units if unit.block)
    return [kernel for part in own.parts(unit, direction) for kernel in part.kernels]


def carried(kernels_, name=""):
    return sum(kernel.op.bytes() for kernel in kernels_ if kernel.name.startswith(name))


def llama(**stack):
    """A micro-batch of 4,096 tokens of Llama 3 8B: 4,096 columns, 32 heads of 128 that share 8 keys."""
    return on(RUNS[0], model="llama3_8b", stack={"name": "torch", **stack},
              batch={"sequences": 1, "sequence_length": 4096})  # fmt: skip


def test_recomputation_that_does_not_stop_early_runs_the_last_product_and_the_residual_again():
    run = next(run for run in RUNS if run["name"] == "l70_2L_4k2_ckpt")
    stops, whole = (on(run, stack={"name": "torch", "early_stop": each}) for each in (True, False))
    forward, early, late = (Counter(k.name for k in each) for each in (
        layer(stops, "F"), layer(stops, "B"), layer(whole, "B")))  # fmt: skip
    assert late - early == Counter({"memset": 1, "down": 1, "residual": 1})
    assert not forward - late


def test_plain_norms_are_written_operation_by_operation_in_fp32():
    """36 bytes an element forward, 92 for their gradient; in layers that are compiled as before."""
    plain, own = llama(norms="plain"), llama()
    elements = 4096 * 4096
    forward, backward = layer(plain, "F"), layer(plain, "B")
    assert carried(forward, "attn_norm") == carried(forward, "mlp_norm") == 36 * elements
    assert carried(backward, "attn_norm_bwd") == carried(backward, "mlp_norm_bwd") == 92 * elements
    assert carried(layer(own, "F"), "attn_norm") == 4 * elements
    compiled = [layer(llama(compiled=True, **more), "F") for more in ({}, {"norms": "plain"})]
    assert compiled[0] == compiled[1]
    unit = next(unit for unit in own.units if unit.block)
    kept = [each.lowering.kept(each.site, unit).fixed for each in (own, plain)]
    assert kept[1] - kept[0] == 2 * 4 * elements


def test_norms_of_another_stack_are_refused():
    with pytest.raises(Refused, match=r"stack\.norms: plain norms is torch's; legal: transformer_engine, cudnn"):
        on(RUNS[0], stack={"name": "megatron", "norms": "plain"})
    with pytest.raises(Refused, match=r"stack\.norms: cudnn norms is megatron's; legal: transformer_engine, plain"):
        on(RUNS[0], stack={"name": "torch", "norms": "cudnn"})
    with pytest.raises(Refused, match=r"stack\.rope: plain rope is megatron's; legal: own, complex"):
        on(RUNS[0], stack={"name": "torch", "rope": "plain"})


@pytest.mark.parametrize("compiled", [False, True])
def test_complex_rope_goes_to_fp32_and_back(compiled):
    """20 bytes a column of queries and keys; compiled, torch's own product stands between Inductor's kernels."""
    own = llama(rope="complex", compiled=compiled)
    for direction in "FB":
        turned = [k for k in layer(own, direction) if k.name.startswith("rope_")]
        assert carried(turned) == 20 * 4096 * (4096 + 1024) and len(turned) == 6
        assert [k.op.kind for k in turned][:3] == (["fused", "strided", "fused"] if compiled else
                                                   ["convert", "strided", "convert"])  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
def test_repeated_keys_and_values_are_copied_for_each_query_head(compiled):
    own = llama(repeated=True, compiled=compiled)
    copies = [k for k in layer(own, "F") if k.name.startswith("repeat_")]
    assert len(copies) == 2 and carried(copies) == 2 * 2 * 4096 * (1024 + 4096)
    assert len(layer(own, "B")) == len(layer(llama(compiled=compiled), "B"))
    alike = {"model": "mpt_7b", "batch": {"sequences": 1, "sequence_length": 2048}}
    many = [layer(on(RUNS[0], **alike, stack={"name": "torch", "repeated": each}), "F") for each in (True, False)]
    assert many[0] == many[1]


def ends(own, direction):
    return [k for unit in own.units if not unit.block for p in own.parts(unit, direction) for k in p.kernels]


def test_layers_that_are_compiled_one_by_one_leave_the_ends_as_they_were():
    eager, none, loss, every = (
        llama(**each) for each in ({}, {"compiled": True, "compiled_ends": "none"},
                                   {"compiled": True, "compiled_ends": "loss"}, {"compiled": True}))  # fmt: skip
    for direction in "FB":
        assert ends(none, direction) == ends(eager, direction)
        names = [{k.name for k in ends(each, direction)} for each in (none, loss, every)]
        assert len(names[0] & names[1]) > len(names[0] & names[2])
    assert [k.op.kind for k in ends(loss, "F") if k.name in ("final_norm", "log_softmax")] == ["norm_forward", "fused"]
    wide = 4096 * 4.0 * 128256  # logits in FP32: kept once, and two gradients; a compiled loss has two of BF16
    for one, held in ((eager, 3), (none, 3), (loss, 1), (every, 1)):
        head = one.units[-1]
        both = [how(one.site, head).fixed + how(one.site, head).token * one.site.received
                for how in (one.lowering.kept, one.lowering.regained)]  # fmt: skip
        assert sum(both) == pytest.approx(held * wide, rel=0.06)


@pytest.mark.parametrize(("update", "each"), [("foreach", 80), ("loop", 80), ("fused", 28)])
def test_an_update_moves_what_its_operations_do(update, each):
    """Bytes of a parameter in FP32; a gradient's norm reads it, and limiting it reads and writes it."""
    wide = {"master": "fp32", "moments": "fp32", "gradients": "fp32"}
    for clips in (False, True):
        stack = {"name": "torch", "update": update, "clips": clips}
        own = on(RUNS[0], model="llama3_8b", states=wide, stack=stack)
        blocks = own.lowering
        made = [blocks.family.made(own.site.shape, unit) for unit in own.units]
        sizes = [size for one in made for size in blocks.stack.tensors(own.site, one)]
        launched = blocks.stack.update(own.site, made)
        assert carried(launched) == (each + 12 * clips) * sum(sizes)
        assert sum(kernel.waits for kernel in launched) == (len(sizes) if update == "loop" else 0)
