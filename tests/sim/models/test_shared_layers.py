"""Layers that ranks share: bytes and memory of a rank worked out by hand, and what holds whatever the layout."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.document import DocumentError
from hwmodels.op import Attention, Collective, Gemm, GroupedGemm, Send
from hwmodels.refused import Refused
from sim.assembly import machine
from sim.engine.alone import alone
from sim.layout.plan import lay_out
from sim.models.family import weights
from sim.models.layer import COMMUNICATION, COMPUTE
from sim.scenario import from_mapping
from sim.simulation import run
from sim.step import template
from sim.step.overlap import compose

STACKS = ("megatron", "torch")


def on(model="llama3_70b", stack="megatron", gpus=8, nodes=1, length=8192, batch=None, **parallel):
    more = parallel.pop("more", {})
    return from_mapping({
        "cluster": {"node": {"base": "h100x8", "gpus": gpus}, "nodes": nodes}, "model": model, "precision": "bf16",
        "stack": stack, "parallel": parallel, "schedule": "1f1b", "outputs": ["result"],
        "batch": {"sequences": 16, "sequence_length": length, **(batch or {})}, **more,
    })  # fmt: skip


def built(*args, **kwargs):
    return machine(lay_out(on(*args, **kwargs)))


def launched(own, units=None, directions="FBW"):
    return [
        kernel for unit in (units or own.units) for direction in directions for part in own.parts(unit, direction)
        for kernel in part.kernels
    ]  # fmt: skip


def sent(kernels):
    return [kernel.op for kernel in kernels if isinstance(kernel.op, Collective | Send)]


def nvlink(kernels):
    return sum(op.nvlink_bytes() for op in sent(kernels))


def wire(kernels):
    return sum(op.wire_bytes() for op in sent(kernels))


# --- by hand ----------------------------------------------------------------------------------------------------------

T, H, V, LAYERS = 8192, 8192, 128256, 80
"""Tokens of a micro-batch; of Llama-3 70B hidden width, vocabulary and layers."""


def test_bytes_of_tensor_and_sequence_parallelism_by_hand():
    """A whole activation is 8192 x 8192 x 2 bytes, of which a rank of 8 sends or takes 7/8 in a gather or scatter. A
    layer has 4 forward (x of two blocks in, their sums out), 4 backward (dY in, dX out), 2 more for weights' gradients
    (x again); the embedding 1 + 1; the head 1 + 1 + 1, and 12 bytes a token of all 8 ranks for the loss."""
    own, whole = built(tensor=8), T * H * 2
    assert nvlink(launched(own)) == (10 * LAYERS + 5) * whole * 7 / 8 + T * 8 * 12 * 7 / 8
    assert wire(launched(own)) == 0
    assert {kernel.meets for kernel in launched(own) if kernel.lane == COMMUNICATION} == {"tensor"}


def test_without_sequence_parallelism_sums_are_all_reduced():
    own, whole = built(tensor=8, sequence=False), T * H * 2
    kinds = Counter(op.kind for op in sent(launched(own)))
    assert kinds == {"all_reduce": 4 * LAYERS + 2, "all_gather": 1}
    assert nvlink(launched(own)) == (4 * LAYERS + 2) * 2 * whole * 7 / 8 + T * 8 * 12 * 7 / 8


def test_torch_keeps_what_it_has_gathered():
    """4 forward and 4 backward; no gather for weights' gradients. Three numbers a token are all-reduced for the
    loss."""
    own, whole = built(stack="torch", tensor=8), T * H * 2
    assert nvlink(launched(own)) == (8 * LAYERS + 4) * whole * 7 / 8 + 3 * T * 4 * 2 * 7 / 8


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loss_of_its_own_gathers_all_logits(compiled):
    """By hand: one all-gather of [T, V] in BF16 more, none of the numbers of tokens that a shared loss compares and
    adds up, and the loss reads (and keeps, in FP32 or as they are) eight times as many columns."""
    stack = {"name": "torch", "compiled": compiled}
    shared, own = (built(stack={**stack, "loss_parallel": parallel}, tensor=8, zero=0) for parallel in (True, False))
    head = [shared.units[-1]]
    more = {k.name: k.op for k in launched(own, head)}
    assert more["gather_logits"] == Collective("all_gather", 2.0 * T * V, 8, 1)
    numbers = Collective("all_reduce", 4.0 * T, 8, 1)
    assert sent(launched(shared, head)).count(numbers) == 3 and numbers not in sent(launched(own, head))
    read = {name: more[name].bytes() for name in more if name in ("log_softmax", "log_softmax_bwd")}
    assert read == {
        "log_softmax": T * V * (2.0 if compiled else 8.0), "log_softmax_bwd": T * V * (4.0 if compiled else 12.0)
    }  # fmt: skip
    kept = [each.lowering.kept(each.site, head[0]).at(each.site) for each in (shared, own)]
    assert kept[1] - kept[0] == T * V * 7 / 8 * (2 if compiled else 4)


def test_a_loss_of_its_own_needs_a_group():
    with pytest.raises(DocumentError, match=r"loss_parallel: .* legal: true, or parallel.tensor 2 or more"):
        on(stack={"name": "torch", "loss_parallel": False}, zero=0)


def test_memory_of_a_rank_by_hand():
    """Of a layer in BF16, a token and rank of 8: norms keep 8192 x 2 + 4 and the products behind them 8192 x 2 of each
    rank's own tokens. Attention has 8 query heads and 1 of keys and values, 128 wide: q, k and v of the product, both
    turned, the output, and a log-sum-exp a head. The network is 28672 / 8 = 3584 wide."""
    own = built(tensor=8)
    norm = 2 * (H * 2 + 4 + H * 2) / 8
    attention = 2 * (1024 + 2 * 128) + 2 * (1024 + 128) + 2 * 1024 + 4 * 8
    network = 2 * (2 * 3584) + 2 * 3584
    layer = next(unit for unit in own.units if unit.block)
    assert own.lowering.kept(own.site, layer).at(own.site) == T * (norm + attention + network)
    # weights: norms whole, heads and columns and the vocabulary divided
    each = H * (1024 + 2 * 128) + 1024 * H + 3 * H * 3584 + 2 * H
    assert weights(own.site.shape, own.units).total == LAYERS * each + 2 * (V // 8) * H + H
    summary = run(on(tensor=8), interval=False).summary
    memory = summary["peak_memory_bytes"][0]
    assert memory["weights"] == 2 * (LAYERS * each + 2 * (V // 8) * H + H)
    assert memory["total"] == sum(size for part, size in memory.items() if part != "total")


def test_bytes_of_a_ring_of_four_by_hand():
    """2,048 tokens of keys and values, 8 heads of 128 each, are 8 MiB. They take 3 hops forward and 3 backward, the
    other way round, their gradients 3 behind them. Nodes of one GPU: all of it leaves through NICs."""
    own, pair = built(gpus=1, nodes=4, context=4), 2048 * 2 * 8 * 128 * 2
    kernels = launched(own)
    assert wire(kernels) == LAYERS * 9 * pair
    assert nvlink(kernels) == 0
    layer = next(unit for unit in own.units if unit.block)
    assert [op.size for op in sent(launched(own, [layer], "F"))] == [pair] * 3
    assert [op.size for op in sent(launched(own, [layer], "B"))] == [pair, 2 * pair, 2 * pair, pair]
    assert [k.op.causal for k in launched(own, [layer], "B") if isinstance(k.op, Attention)] == [*[False] * 3, True]


def torchs(kind="ring", direction="B", **stack):
    """Kernels of a layer of torch's ring of four."""
    own = built(stack={"name": "torch", **stack}, gpus=1, nodes=4, context=4, context_kind=kind)
    return launched(own, [next(unit for unit in own.units if unit.block)], direction)


def test_torchs_ring_by_hand():
    """Keys and values go round or are gathered; their gradients go round in FP32, a hop after each of four steps, the
    rank's own first. What modules copied for 64 query heads is sent so."""
    pair = 2048 * 2 * 8 * 128 * 2
    assert [op.size for op in sent(torchs(direction="F"))] == [pair] * 3
    assert sorted(op.size for op in sent(torchs())) == [pair] * 3 + [2 * pair] * 4
    assert [op.size for op in sent(torchs("all_gather"))] == [4 * pair] + [2 * pair] * 4
    assert [op.size for op in sent(torchs("all_gather", repeated=True))] == [4 * 8 * pair] + [2 * 8 * pair] * 4
    assert [k.op.causal for k in torchs() if isinstance(k.op, Attention)] == [True, *[False] * 3]
    summed = [k for k in torchs(repeated=True) if k.name == "sdpa_reduce_head"]
    assert len(summed) == 2  # behind the ring, of keys and of values
    assert [k.op.kv_heads for k in torchs(repeated=True) if isinstance(k.op, Attention)] == [0] * 4


def test_only_eager_torch_hides_its_rings_collectives():
    """Compiled there is a wait behind each. Eager a gather comes beside the own step, gradients beside the next."""
    for direction in "FB":
        compiled, eager = (
            [k for k in torchs("all_gather", direction, compiled=c) if k.meets == "context"] for c in (True, False)
        )
        assert [k.ahead for k in compiled] == [0] * len(eager)
        assert all(k.ahead for k in eager)
    kernels = torchs("all_gather", "B")
    hop = next(i for i, k in enumerate(kernels) if k.name == "ring_send")
    beside = kernels[hop + 1 : hop + 1 + kernels[hop].ahead]
    assert sum(isinstance(k.op, Attention) for k in beside) == 1
    assert kernels[hop + 1 + kernels[hop].ahead].name == "join_dkv"


def test_torchs_ring_merges_in_fp32():
    """Bytes of a token, 64 heads of 128: a step reads what was merged in FP32 and its own in BF16, and writes FP32; the
    first merge reads BF16 twice, the last writes BF16."""
    width = 64 * 128
    joins = [k.op for k in torchs("all_gather", "F", compiled=True) if k.name == "join_output"]
    assert [(op.read / width, op.write / width) for op in joins] == [(4, 4), (6, 4), (6, 2)]
    eager = sum(k.op.bytes() for k in torchs("all_gather", "F") if k.name in ("join_output", "convert_output"))
    assert eager / 2048 / width == 4 * 6 + 3 * (12 + 8 + 12) + 6
    added = [k.op for k in torchs("all_gather", "B", compiled=True) if k.name == "join_dkv"]
    assert [(op.read / 2048, op.write / 2048) for op in added] == [(2, 4)] + [(6, 4)] * 3


WAYS = ("ring", "all_gather", "all_to_all")


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("stack", STACKS)
def test_attention_is_divided_whatever_the_way(stack, kind):
    """Products, pairs of queries and keys, and all that is kept: a fourth of what one rank has."""
    one, four = built(stack=stack), built(stack=stack, gpus=4, context=4, context_kind=kind)
    for of in (Attention, Gemm):
        alone, shared = (sum(k.op.flop() for k in launched(own) if isinstance(k.op, of)) for own in (one, four))
        assert shared == alone / 4
    layer = next(unit for unit in one.units if unit.block)
    kept = [own.lowering.kept(own.site, layer).at(own.site) for own in (one, four)]
    assert kept[1] == kept[0] / 4


def test_all_to_all_swaps_every_head_once_each_way():
    own = built(gpus=4, context=4, context_kind="all_to_all")
    layer = next(unit for unit in own.units if unit.block)
    tokens, q, kv = 2048, 64 * 128 * 2, 8 * 128 * 2
    sizes = [op.size for op in sent(launched(own, [layer]))]
    assert sizes == [tokens * width for width in (q, kv, kv, q, q, q, kv, kv)]
    gathering = built(gpus=4, context=4, context_kind="all_gather")
    kinds = [op.kind for op in sent(launched(gathering, [layer]))]
    assert kinds == ["all_gather"] * 4 + ["reduce_scatter"] * 2
    assert {op.bytes() for op in sent(launched(gathering, [layer]))} == {3 * tokens * kv}


def test_experts_that_ranks_share_gather_rows():
    """Rows of two ranks go through products half as wide; every rank has sent its rows and takes their sums."""
    alone, shared = (
        built("qwen3_30b_a3b", length=4096, expert=4, tensor=2, expert_tensor=e, batch={"sequences": 16})
        for e in (1, 2)
    )
    layer = next(unit for unit in alone.units if unit.routed)
    for direction in "FBW":
        pairs = zip(
            *([each.op for each in launched(own, [layer], direction) if isinstance(each.op, GroupedGemm)]
              for own in (alone, shared)), strict=True,
        )  # fmt: skip
        # experts of both ranks have the same tiles, of which a half is padding in the mean
        half, row = 64 * shared.site.local_experts, 2048 * 2
        assert all(b.rows == 2 * (a.rows - half) + half for a, b in pairs)
    row *= shared.site.rows
    more = [k.op for k in launched(shared, [layer]) if k.meets == "expert_tensor"]
    assert [(op.kind, op.bytes()) for op in more] == [("all_gather", row), ("reduce_scatter", row)] * 2


# --- when ----------------------------------------------------------------------------------------------------------


def phases(own, kind="BW"):
    layer = next(unit for unit in own.units if unit.block)
    return compose(kind, [layer], [layer], own.parts).phases


def test_sums_and_gathers_of_backward_run_beside_products():
    """Megatron: the second gather of x beside the gradient of the input, its sum beside that of the weights."""
    found = phases(built(tensor=8))
    place = {kernel.name: number for number, phase in enumerate(found) for kernel in phase.kernels}
    scatter, again = found[place["scatter_dx_fc1"]], found[place["gather_x_fc1_again"]]
    assert again.needs == (place["fc2_dgrad"], place["fc2_wgrad"])
    assert place["fc1_dgrad"] not in again.needs and place["gather_x_fc1_again"] not in found[place["fc1_dgrad"]].needs
    assert scatter.needs == (place["fc1_dgrad"],)
    assert set(found[place["fc1_wgrad"]].needs) == {place["fc1_dgrad"], place["gather_x_fc1_again"]}
    assert found[place["mlp_norm_bwd"]].needs == (place["scatter_dx_fc1"],)
    split = phases(built(tensor=8), "W")  # by itself, where a schedule puts it off
    assert [kernel.name for phase in split for kernel in phase.kernels if kernel.name.endswith("wgrad")] == [
        "fc2_wgrad", "fc1_wgrad", "proj_wgrad", "qkv_wgrad",
    ]  # fmt: skip


@pytest.mark.parametrize("stack", ["torch", {"name": "torch", "compiled": True}])
def test_collectives_of_torch_wait_for_all_compute_before_them(stack):
    """Also for the weights' gradients of the block before, so that none runs beside compute: all of it is exposed."""
    own = built(stack=stack, tensor=8)
    layers = [unit for unit in own.units if unit.block][:2]
    times = alone(template.price("BW", (0, 1), compose("BW", layers, layers, own.parts), own.pricer)).kernels
    assert len(times[COMMUNICATION]) == 2 * 4
    assert not any(a < end and start < b for start, end in times[COMMUNICATION] for a, b in times[COMPUTE])


def test_a_ring_sends_beside_attention():
    found = phases(built(gpus=4, context=4), "F")
    sends = [number for number, phase in enumerate(found) if phase.lane == COMMUNICATION]
    assert len(sends) == 3
    for number in sends:  # attention of a step waits for what was sent the step before alone
        assert number not in found[number + 1].needs
        assert {number, number + 1} <= set(found[number + 2].needs)


@pytest.mark.parametrize("stack", ["megatron", {"name": "torch", "compiled": True}])
def test_chunks_go_beside_their_product(stack):
    """As many bytes and FLOP, less that is exposed; a gather's last chunk of a product waits for it."""
    exposed, chunked = (
        on(
            "llama3_70b",
            stack,
            tensor=8,
            more={"overlap": {"tensor": given}, "model": {"base": "llama3_70b", "layers": 2}},
        )
        for given in (False, True)
    )
    one, other = (machine(lay_out(each)) for each in (exposed, chunked))
    assert nvlink(launched(one)) == nvlink(launched(other))
    flops = [sum(k.op.flop() for k in launched(own) if isinstance(k.op, Gemm)) for own in (one, other)]
    assert flops[0] == flops[1]
    seconds = [run(each, interval=False).summary["exposed_communication_s"] for each in (exposed, chunked)]
    assert seconds[1] < 0.8 * seconds[0]


# --- whatever the layout ----------------------------------------------------------------------------------------------

SMALL = {
    "family": "transformer", "name": "small", "vocabulary": 4096, "hidden": 1024, "layers": 2, "heads": 16,
    "kv_heads": 8, "head_width": 64, "intermediate": 4096, "tied": False, "source": "made up",
}  # fmt: skip
MIXED = SMALL | {
    "name": "mixed", "pattern": "attention+moe", "experts": 16, "experts_per_token": 2, "expert_intermediate": 512,
    "shared_intermediate": 1024,
}  # fmt: skip
LAYOUTS = st.fixed_dictionaries({
    "tensor": st.sampled_from((1, 2, 4, 8)), "context": st.sampled_from((1, 2)),
    "context_kind": st.sampled_from(("ring", "all_gather")),
})  # fmt: skip


def small(model, stack="megatron", more=None, **parallel):
    batch = {"sequences": 16, "sequence_length": 1024}
    return on(dict(model), stack, 8, 2, batch=batch, more=more or {}, **parallel)


def flops(own, of=(Gemm, Attention)):
    return sum(k.op.flop() for k in launched(own) if isinstance(k.op, of))


@pytest.mark.parametrize("stack", STACKS)
@given(LAYOUTS)
@settings(max_examples=12, deadline=None)
def test_parameters_and_products_add_up_over_ranks(stack, layout):
    """All but norms is divided by tensor parallelism, and every product and pair of tokens is done once."""
    whole, own = (machine(lay_out(small(SMALL, stack, **given))) for given in ({}, layout))
    norms = 5 * 1024
    alone, part = (weights(each.site.shape, each.units).total - norms for each in (whole, own))
    assert part * layout["tensor"] == alone
    assert flops(own) * layout["tensor"] * layout["context"] == pytest.approx(flops(whole), rel=1e-12)
    peak = run(small(SMALL, stack, **layout), interval=False).summary["peak_memory_bytes"][0]
    assert peak["total"] == sum(size for part, size in peak.items() if part != "total")


@pytest.mark.parametrize("stack", STACKS)
@given(st.sampled_from((2, 4)), st.sampled_from((1, 2, 4)), st.sampled_from((1, 2)))
@settings(max_examples=8, deadline=None)
def test_rows_of_experts_add_up_over_ranks(stack, tensor, expert, shared):
    """Each rank sends its own tokens to experts, so that all ranks together do what they would without."""
    whole = machine(lay_out(small(MIXED, stack, expert=expert)))
    own = machine(lay_out(small(MIXED, stack, tensor=tensor, expert=expert, expert_tensor=shared)))
    padding = 64 * 16 // expert
    assert (own.site.rows - padding // shared) * tensor == whole.site.rows - padding
    alone, part = (sum(weights(each.site.shape, each.units).experts for each in (each,)) for each in (whole, own))
    assert part * shared == alone
    assert {op.tokens for op in (k.op for k in launched(own)) if hasattr(op, "tokens")} <= {own.site.own}


@pytest.mark.parametrize("stack", STACKS)
def test_axes_of_one_rank_are_none(stack):
    said = {"tensor": 1, "context": 1, "expert_tensor": 1, "sequence": False, "expert": 2}
    assert small(MIXED, stack, **said).scenario_hash == small(MIXED, stack, expert=2).scenario_hash
    assert not any(k.meets in ("tensor", "context", "expert_tensor") for k in launched(built(stack=stack)))


@given(LAYOUTS, st.sampled_from(("nvlink", "nic")))
@settings(max_examples=10, deadline=None)
def test_more_bandwidth_is_never_slower(layout, link):
    """Kernels of graphs: gaps that the host leaves are those of a step without contention, so that they can be off."""
    base = small(SMALL, {"name": "megatron", "cuda_graphs": True}, **layout)
    node = {"base": "h100x8", "gpus": 8, link: {"bandwidth": "2 TB/s"}}
    faster = from_mapping({**base.source.document.content, "cluster": {"node": node, "nodes": 2}})
    steps = [run(each, interval=False).summary["step_time_s"] for each in (faster, base)]
    assert steps[0] <= steps[1]


# --- refused ----------------------------------------------------------------------------------------------------------

REFUSED = {
    "heads": ({"context": 4, "tensor": 4, "context_kind": "all_to_all", "nodes": 2},
              "2 heads of a rank (model.kv_heads) cannot be divided by parallel.context (all_to_all) 4; legal: 1, 2"),
    "mixture": ({"model": "qwen3_30b_a3b", "tensor": 2, "sequence": False}, "parallel.sequence: found false; mixtures"),
    "eager": ({"stack": "torch", "tensor": 2, "more": {"overlap": {"tensor": True}}}, "overlap.tensor: found true"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_layouts_that_cannot_be_are_refused_in_a_line(case):
    given, line = REFUSED[case]
    with pytest.raises(DocumentError) as refused:
        on(**given)
    assert line in str(refused.value) and str(refused.value).count("\n") == 0


def test_a_ring_knows_no_windows_and_mamba_no_context():
    with pytest.raises(Refused, match=r"ring knows no windows.*all_gather"):
        launched(built("gpt_oss_20b", context=2))
    with pytest.raises(Refused, match="not built for mamba"):
        launched(built("nemotron_h_8b", context=2))


# --- beside other choices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("schedule", "chunked"), [("1f1b", False), ("1f1b", True), ("zb1p", False)])
def test_folded_equals_unfolded(schedule, chunked):
    layout, overlap = {"tensor": 2, "context": 2, "pipeline": 2}, {"tensor": chunked}
    folded, whole = (
        run(
            small(SMALL, more={"schedule": schedule, "overlap": overlap, "fold": fold}, **layout), interval=False
        ).summary
        for fold in (True, False)
    )
    same = ("step_time_s", "phases_s", "exposed_communication_s", "peak_memory_bytes")
    assert all(folded[key] == whole[key] for key in same)


@pytest.mark.parametrize("stack", STACKS)
def test_what_runs_again_gathers_again(stack):
    """A layer that backward computes again whole has its forward's gathers and scatters a second time, but for those
    behind the last product, where torch stops early."""
    again, once = (built(SMALL, stack, tensor=8, length=1024, more={"recompute": kind}) for kind in ("full", "none"))
    layer, plain = (next(unit for stage in own.stages for unit in stage if unit.block) for own in (again, once))
    more, less = (Counter(op.kind for op in sent(launched(again, [unit]))) for unit in (layer, plain))
    extra = more - less
    assert extra == {"all_gather": 2, "reduce_scatter": 2 - (stack == "torch")}
    kept = again.lowering.kept(again.site, layer).at(again.site)
    assert kept == again.site.own * 1024 * 2  # its input, of each rank's own tokens


@pytest.mark.parametrize("recipe", ["fp8_current", "fp8_delayed", "fp8_block"])
def test_gathers_carry_what_products_read(recipe):
    """FP8: a byte an element, and a scale of 4 bytes in 128 of blocks, whose output gradients come by columns too."""
    own = built(tensor=8, more={"precision": recipe})
    layer = next(unit for unit in own.units if unit.block)
    sizes = {kernel.name: kernel.op.size for kernel in launched(own, [layer]) if isinstance(kernel.op, Collective)}
    each = T * H * (1 + 4 / 128 * (recipe == "fp8_block"))
    assert sizes["gather_x_fc1"] == sizes["gather_x_qkv_again"] == each
    assert sizes["gather_dy_fc2"] == each * (1 + (recipe == "fp8_block"))
    assert sizes["scatter_fc2"] == sizes["scatter_dx_qkv"] == T * H * 2


def test_latents_are_gathered_instead_of_hidden_states():
    """DeepSeek-V2-Lite compresses keys and values to 512, with a rotary key of 64, and no queries."""
    own = built("deepseek_v2_lite", tensor=2, expert=4, length=4096)
    layer = next(unit for unit in own.units if unit.kind == "dense")
    sizes = {k.name: k.op.size / 4096 / 2 for k in launched(own, [layer]) if isinstance(k.op, Collective)}
    assert (sizes["gather_kv_latent"], sizes["gather_k_rope"], sizes["gather_x_q"]) == (512, 64, 2048)
    assert sizes["scatter_dkv_latent"] == 512 and sizes["scatter_proj"] == 2048
    down = next(k.op for k in launched(own, [layer], "F") if k.name == "kv_down")
    assert (down.m, down.n) == (2048, 576)  # each rank's own tokens, whole


def test_results_of_a_rings_steps_are_gathered_in_tensors_of_their_own():
    own = built(gpus=4, context=4)
    layer = launched(own, [next(unit for unit in own.units if unit.block)])
    count, pair = Counter(k.name for k in layer), 2 * 8 * 128 * 2
    assert count["pack_kv"] == 2
    assert [(count[f"begin_{x}"], count[f"join_{x}"]) for x in ("output", "dq", "dkv")] == [(1, 3)] * 3
    assert all((k.op.read, k.op.write) == (pair, pair) for k in layer if k.name == "pack_kv")
    assert (count["begin_lse"], count["join_lse"]) == (1, 3)


def test_halves_of_tensors_are_made_contiguous_before_a_rings_steps():
    """Keys and values forward, queries, outputs and their gradients backward, of half of the tokens, in each step that
    is not the rank's own; gradients of queries then join in the late half. Torch's ring has its own ways."""
    own = built(gpus=4, context=4)
    block = next(unit for unit in own.units if unit.block)
    heads, tokens = 64 * 128 * 2, own.site.tokens
    for direction, widths in (
        ("F", {"half_kv": 2 * 8 * 128 * 2}),
        ("B", dict.fromkeys(("half_q", "half_out", "half_dout"), heads)),
    ):
        found = [k for k in launched(own, [block], direction) if k.name.startswith("half_")]
        assert Counter(k.name for k in found) == dict.fromkeys(widths, 3)
        assert all(k.op.bytes() == tokens // 2 * 2 * widths[k.name] for k in found)
    joined = [k.op.rows for k in launched(own, [block], "B") if k.name in ("begin_dq", "join_dq")]
    assert sorted(joined) == [tokens // 2] * 3 + [tokens]
    other = machine(lay_out(on(stack="torch", gpus=4, context=4)))
    assert not [k for k in launched(other, [block]) if k.name.startswith("half_")]


@pytest.mark.parametrize(("precision", "tensor", "chunked", "lent"), [
    ("bf16", 4, True, {"proj": 24, "fc2": 16}), ("bf16", 4, False, {}), ("fp8_current", 4, True, {}),
    ("bf16", 1, True, {}),
])  # fmt: skip
def test_products_lend_sms_to_the_sums_beside_them(precision, tensor, chunked, lent):
    said = {"overlap": {"tensor": chunked}} if tensor > 1 else {}
    own = built(tensor=tensor, more={**said, "precision": precision})
    layer = launched(own, [next(unit for unit in own.units if unit.block)])
    assert {(k.name, k.op.lent) for k in layer if isinstance(k.op, Gemm) and k.op.lent} == set(lent.items())


def test_sums_of_bf16_products_are_piped_by_columns():
    """Four parts of the columns, three summed up beside the next ones and the last behind all, by no kernel of their
    own; in FP8 chunks of tokens go round and are added up."""
    own, ring = (built(tensor=8, more={"overlap": {"tensor": True}, "precision": p}) for p in ("bf16", "fp8_current"))
    hidden, tokens = own.site.shape.hidden, own.site.tokens
    layer = launched(own, [next(unit for unit in own.units if unit.block)], "F")
    first = next(i for i, k in enumerate(layer) if k.name == "fc2")
    names = [k.name for k in layer[first : first + 6]]
    assert names == ["fc2", "scatter_fc2", "fc2", "fc2", "fc2", "scatter_fc2"]
    assert {(k.op.m, k.op.n) for k in layer if k.name == "fc2"} == {(tokens, hidden // 4)}
    sums = [k for k in layer if k.name == "scatter_fc2"]
    assert [k.op.size for k in sums] == [tokens * 2 * hidden * 3 / 4, tokens * 2 * hidden / 4]
    assert [k.ahead for k in sums] == [3, 0] and "sum_chunks" not in {k.name for k in layer}
    others = launched(ring, [next(unit for unit in ring.units if unit.block)], "F")
    assert Counter(k.name for k in others)["fc2"] == 8 and "sum_chunks" in {k.name for k in others}


def test_a_product_that_lends_sms_takes_longer_and_no_longer_beside():
    own = built(tensor=4)
    whole = Gemm(2048, 8192, 7168, "fprop", "bf16")
    fewer, all_of_them = own.pricer.price(whole._replace(lent=16)), own.pricer.price(whole)
    assert fewer.ns / all_of_them.ns == pytest.approx(132 / 116, rel=0.02)
    assert fewer.beside_ns == max(fewer.ns, all_of_them.beside_ns)
