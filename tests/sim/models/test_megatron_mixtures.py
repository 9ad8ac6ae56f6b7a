"""Mixtures of Megatron Core: what the host does and waits for, who moves rows, and what stands behind what."""

from itertools import product

import pytest

from hwmodels.op import AllToAll, Collective, Gemm, GroupedGemm, Memory
from hwmodels.refused import Refused
from sim.assembly import machine
from sim.communication.exchange import hybrid
from sim.layout.plan import lay_out
from sim.models.stacks.megatron import host
from sim.scenario import from_mapping
from sim.step.overlap import compose


def on(
    dispatcher="alltoall", precision="bf16", node="h200x8", expert=8, model="qwen3_30b_a3b", nodes=1, states=None,
    routing="balanced", **stack,
):  # fmt: skip
    own = {"name": "megatron", "dispatcher": dispatcher, **stack}
    return machine(lay_out(from_mapping({
        "cluster": {"node": node, "nodes": nodes}, "model": model, "precision": precision, "stack": own,
        "parallel": {"expert": expert}, "schedule": "1f1b", "outputs": ["result"], "comm": {"collectives": "nccl"},
        "batch": {"sequences": 8 * nodes, "sequence_length": 4096}, "states": states or {}, "routing": routing,
    })))  # fmt: skip


def mixture(own):
    return next(unit for unit in own.units if unit.routed)


def kernels(own, direction, name=""):
    parts = own.parts(mixture(own), direction)
    return [kernel for part in parts for kernel in part.kernels if name in part.name]


def work_us(own, direction, name=""):
    return sum(own.launch_ns(direction, kernel) for kernel in kernels(own, direction, name)) / 1e3


def test_the_unit_of_work_is_the_hosts_operation():
    own = on()
    assert host.work(host.UNIT["F"], "F") == host.work(host.UNIT["B"], "W") == 1.0
    (product_,) = [k for k in kernels(own, "F") if k.name == "experts_fc1_fprop"]
    assert own.launch_ns("F", product_) == pytest.approx(1e3 * host.grouped(16).forward, abs=1)


def test_each_expert_costs_the_host_a_product_each_way():
    few, many = host.grouped(8), host.grouped(16)
    forward, backward = host.WALKED[""]
    assert many.forward - few.forward == pytest.approx(8 * (host.PRODUCT + forward + host.PART))
    both = many.dgrad + many.wgrad - few.dgrad - few.wgrad
    own = 2 * host.PRODUCT + backward + host.PART + host.GRADIENT + host.HOOKED
    assert both == pytest.approx(8 * own)
    spread = on(expert=8), on(expert=16, nodes=2)
    assert work_us(spread[0], "W") > work_us(spread[1], "W") + 8 * 2 * host.PRODUCT


def test_quantised_experts_cost_the_host_objects_of_their_own():
    """Scales of blocks: four parts of two buffers, a plain object both ways. One scale: tensors of their own, an object
    of a class of its own forward. Both sides of each product are read from C++."""
    plain, blocks, one = host.grouped(16), host.grouped(16, host.BY_BLOCK), host.grouped(16, host.ONE_SCALE)
    own, made = host.WAY + 2 * host.READ, 4 * host.PART + host.STORED

    def walked(how, way):
        return host.WALKED[how][way] - host.WALKED[""][way]

    assert blocks.forward - plain.forward == pytest.approx(16 * (own + made + walked(host.BY_BLOCK, 0)))
    assert blocks.dgrad - plain.dgrad == pytest.approx(16 * (own + made + walked(host.BY_BLOCK, 1) / 2))
    assert blocks.wgrad - plain.wgrad == pytest.approx(16 * (2 * host.READ + walked(host.BY_BLOCK, 1) / 2))
    forward, backward = 3 * host.EMPTY + host.QUANTISED, 3 * host.EMPTY + host.STORED
    assert one.forward - plain.forward == pytest.approx(16 * (own + forward + walked(host.ONE_SCALE, 0)))
    assert one.dgrad - plain.dgrad == pytest.approx(16 * (own + backward + walked(host.ONE_SCALE, 1) / 2))
    for precision, scaled in (("fp8_current", one), ("fp8_block", blocks)):
        (product_,) = [k for k in kernels(on(precision=precision), "F") if k.name == "experts_fc1_fprop"]
        assert on().launch_ns("F", product_) == pytest.approx(1e3 * scaled.forward, abs=1)


def test_a_tensor_of_one_side_is_made_of_fewer():
    """Where a GPU reads either side of one tensor (Blackwell, one scale)."""
    both, one = host.grouped(16, host.ONE_SCALE), host.grouped(16, host.ONE_SCALE, both=False)
    assert both.dgrad - one.dgrad == pytest.approx(16 * host.EMPTY)
    kept = {node: kernels(on(node=node, precision="fp8_current"), "F") for node in ("h100x8", "b200x8")}
    hosts = [next(k.host for k in each if k.name == "experts_fc1_fprop") for each in kept.values()]
    assert hosts[0] - hosts[1] == pytest.approx(host.work(16 * host.EMPTY, "F"))


@pytest.mark.parametrize(("dispatcher", "direction"), [*product(("alltoall", "deepep", "hybridep"), "FB")])
def test_the_host_waits_for_what_comes_forward_and_not_again(dispatcher, direction):
    waiting = [kernel.name for kernel in kernels(on(dispatcher), direction) if kernel.waits]
    first = {"alltoall": "counts_to_host", "hybridep": "rows_padded"}.get(dispatcher, "dispatch_layout")
    assert waiting == ([first] if direction == "F" else [])


def test_all_to_all_counts_sorts_and_sends_probabilities():
    own = on("alltoall")
    forward, backward = ([kernel.name for kernel in kernels(own, d)] for d in "FB")
    order = ["gather_counts", "counts_to_host", "permute", "dispatch(F)", "probabilities(F)", "sort_rows"]
    assert [name for name in forward if name in order] == [*order, "sort_rows"]
    assert backward.count("sort_rows") == 2 and backward.count("probabilities(B)") == 1
    alone = on("alltoall", expert=128, nodes=16)  # an expert a rank: nothing to sort
    assert alone.site.local_experts == 1 and not any(k.name == "sort_rows" for k in kernels(alone, "F"))


@pytest.mark.parametrize(("dispatcher", "precision"), [*product(("alltoall", "hybridep"), ("bf16", "fp8_current"))])
def test_rows_are_padded_for_fp8_unless_the_dispatch_does(dispatcher, precision):
    found = [d for d in "FB" for k in kernels(on(dispatcher, precision), d) if k.name == "pad_rows"]
    assert found == ([] if dispatcher == "hybridep" or precision == "bf16" else ["F", "F", "B", "B"])


@pytest.mark.parametrize(("precision", "whole", "count"), [
    ("fp8_current", False, 16), ("fp8_current", True, 1), ("fp8_delayed", False, 1), ("fp8_block", False, 16),
])  # fmt: skip
def test_experts_are_quantised_one_by_one(precision, whole, count):
    casts = [k for k in kernels(on(precision=precision, cuda_graphs=whole), "F") if k.name.startswith("cast_rows")]
    assert len(casts) == 2 * count
    rows = sum(k.op.rows for k in casts if isinstance(k.op, Memory))
    assert rows == pytest.approx(2 * on(precision=precision).site.rows, rel=0.01)


def test_a_module_that_is_a_graph_is_launched_once():
    """With what it takes in copied to where it was captured: hidden states and a mask of zeros, made each time; the
    gradients of the residual, of what is dispatched, and of probabilities."""
    plain, graphed = on(), on(graphed=["attention", "router"])
    unit = host.REPLAYED + 3 * host.OPERATION
    assert work_us(graphed, "F", "attn") == work_us(graphed, "B", "attn") == pytest.approx(unit, abs=0.1)
    assert work_us(graphed, "F", "mlp") == work_us(plain, "F", "mlp")
    assert work_us(graphed, "W", "attn") == 0 < work_us(plain, "W", "attn")
    own = [k for k in kernels(graphed, "B") if k.name.startswith("graph_")]
    assert [k.name for k in own] == ["graph_sent", "graph_likely", "graph_dy"]
    assert [k.op.write for k in own] == [2 * 2048, 4 * 128, 2 * 2048]
    others = [k._replace(host=0) for k in kernels(graphed, "B") if k not in own]
    assert [k._replace(host=0) for k in kernels(plain, "B")] == others
    with pytest.raises(Exception, match="steps that are graphs have no graphs of modules; legal: one of the two"):
        on(graphed=["attention"], cuda_graphs=True)


@pytest.mark.parametrize(("graphed", "forward", "backward"), [
    (["attention"], ["graph_mask", "graph_mask_copy", "graph_input"], ["graph_dy"]),
    (["router"], ["graph_input"], ["graph_dy", "graph_sent", "graph_likely"]),
    ([], [], []),
])  # fmt: skip
def test_a_layers_graph_takes_its_input_in_once(graphed, forward, backward):
    own = on(graphed=graphed)
    found = [[k for k in kernels(own, d) if k.name.startswith("graph_")] for d in "FBW"]
    assert [[k.name for k in each] for each in found] == [forward, backward, []]
    if "attention" in graphed:
        assert {k.op.write for k in found[0][:2]} == {4096.0}  # a byte for each token of the sequence
    assert all(not k.name.startswith("graph_") for d in "FB" for k in kernels(on(cuda_graphs=True), d))


def test_shared_experts_are_in_the_graph_and_layers_without_attention_make_a_mask_too():
    """Nemotron-3's layers of experts stand alone: their mask is filled, and nothing reads it."""
    own = on("hybridep", model="nemotron3_nano_30b_a3b", graphed=["attention", "mamba", "router"])
    assert [k.name for k in kernels(own, "F") if k.name.startswith("graph_")] == ["graph_mask", "graph_input"]
    names = [k.name for k in kernels(own, "B") if k.name.startswith("graph_")]
    assert names == ["graph_dy", "graph_shared", "graph_sent", "graph_likely"]


@pytest.mark.parametrize(("node", "expert", "nodes"), [("b200x8", 8, 1), ("h100x8", 16, 2)])
def test_all_to_all_takes_what_nccls_does(node, expert, nodes):
    own = on("alltoall", node=node, expert=expert, nodes=nodes)
    (sent,) = [k.op for k in kernels(own, "F") if isinstance(k.op, AllToAll) and k.name == "dispatch(F)"]
    same = Collective("all_to_all", sent.bytes(), expert, nodes)
    priced, like = own.pricer.price(sent, True), own.pricer.price(same, True)
    assert (priced.ns, priced.family) == (like.ns, like.family)
    assert priced.beside_ns == pytest.approx(like.beside_ns, rel=1e-6)


def sent_by_hybridep(own):
    (op,) = [k.op for k in kernels(own, "F") if k.name == "dispatch(F)"]
    assert isinstance(op, AllToAll)
    return op


def published(op):
    """As it was measured: tokens of 7,168 in BF16, and probabilities of 8 experts for each rank of the domain."""
    return op._replace(row_bytes=14336 + 4 * 8 * (op.group // op.group_nodes))


def test_hybridep_sends_probabilities_forward_and_their_gradients_back():
    own, other = on("hybridep"), on("deepep")
    rows = {k.name: k.op.row_bytes for d in "FB" for k in kernels(own, d) if isinstance(k.op, AllToAll)}
    bare = {k.name: k.op.row_bytes for d in "FB" for k in kernels(other, d) if isinstance(k.op, AllToAll)}
    more = {name: rows[name] - bare[name] for name in rows}
    experts = 4 * 128  # a number in FP32 each
    assert more == {"dispatch(F)": experts, "combine(F)": 0, "combine(B)": 0, "dispatch(B)": experts}
    sums = [next(k.op for k in kernels(each, "B") if k.name == "permute_bwd") for each in (own, other)]
    written = [op.rows * op.write for op in sums]
    assert written[0] - written[1] == pytest.approx(own.site.received * experts)  # zeros of other ranks' experts too
    apart = on("hybridep", expert=16, nodes=2)  # of a domain's own experts
    assert sent_by_hybridep(apart).row_bytes - bare["dispatch(F)"] == 4 * 64


def test_hybridep_gathers_which_experts_all_tokens_chose():
    own = on("hybridep")
    named = {k.name: k.op for k in kernels(own, "F") if k.name in ("gather_routing", "dispatch_layout")}
    chosen = own.site.own * 8 * 128  # a byte for each of a group's tokens and experts
    assert named["gather_routing"] == Collective("all_gather", chosen, 8, 1)
    scan = named["dispatch_layout"]
    assert scan.rows * scan.read == 2 * chosen  # summed up, and put in places
    assert not any(k.name == "gather_routing" for k in kernels(own, "B"))
    assert not any(k.name == "gather_routing" for k in kernels(on("deepep"), "F"))


def test_hybridep_stands_between_its_small_kernels():
    """Flags, ranks met before and behind; over nodes those too, and what goes there is copied first."""
    near, far = on("hybridep"), on("hybridep", expert=16, nodes=2)
    around = ("flags", "ranks_met", "nodes_met", "rows_to_send")
    names = [
        [k.name for d in "FB" for k in kernels(own, d) if k.name in around or isinstance(k.op, AllToAll)]
        for own in (near, far)
    ]
    each = ["flags", "ranks_met", "{}", "ranks_met"]
    order = ("dispatch(F)", "combine(F)", "combine(B)", "dispatch(B)")
    assert names[0] == [name.format(what) for what in order for name in each]
    copied = {"dispatch(F)", "combine(B)"}  # the two that dispatch
    assert names[1] == [
        name.format(what) for what in order
        for name in [*(["rows_to_send"] if what in copied else []), *each, "nodes_met"]
    ]  # fmt: skip
    assert not {k.name for d in "FB" for k in kernels(on("deepep"), d)} & set(around)


def test_a_fused_router_has_the_small_kernels_of_its_loss():
    forward, backward, weight = ([k.name for k in kernels(on(), d)] for d in "FBW")
    at = forward.index("aux_loss")
    assert forward[at + 1 : at + 3] == ["aux_each", "aux_told"]
    assert backward.index("aux_scale_bwd") + 1 == backward.index("aux_loss_bwd")
    assert weight[weight.index("router_wgrad") + 1] == "router_wgrad_added"


def test_keys_that_are_normed_are_copied_together_first():
    names = [k.name for k in kernels(on(), "F")]
    assert names.index("key_copy") + 1 == names.index("k_norm")


def test_hybridep_makes_its_maps_before_the_host_waits():
    made = {k.name: k.host for k in kernels(on("hybridep"), "F")}
    assert made["dispatch_layout"] > host.work(10 * host.EMPTY, "F")
    assert made["dispatch(F)"] < made["dispatch_layout"] < host.work(host.FUSED["F"] + 2 * host.AWAITED + 50, "F")
    other = {k.name: k.host for k in kernels(on("deepep"), "F")}
    assert other["dispatch(F)"] == host.work(host.FUSED["F"], "F")


def test_hybridep_takes_what_was_measured_of_it():
    own = on("hybridep", node="b200x8")
    op, links = published(sent_by_hybridep(own)), own.pricer.wires
    tokens = op.tokens * op.ranks_reached * 14336 / 1e9  # which the figures count
    assert tokens / hybrid.seconds(op, links, 16) == pytest.approx(735, rel=0.03)  # published of a B200
    rates = [op.bytes() / hybrid.seconds(op, links, sms) for sms in (8, 16, 24, 32, 64)]
    assert rates == sorted(rates) and rates[0] == pytest.approx(rates[1] / 2) and rates[3] == rates[4]
    half = published(sent_by_hybridep(on("hybridep", node="h100x8")))
    assert hybrid.seconds(half, on("hybridep").pricer.wires, 16) == 2 * hybrid.seconds(op, links, 16)
    own = on("hybridep", expert=16, nodes=2)
    far = published(sent_by_hybridep(own))
    tokens = far.tokens * far.nodes_reached * 14336 / 1e9
    assert tokens / hybrid.seconds(far, own.pricer.wires, 20) == pytest.approx(71.71)
    wide = op._replace(group=64)
    assert hybrid.seconds(wide, links, 16) == hybrid.seconds(op._replace(group=36), links, 16)


@pytest.mark.parametrize("dispatcher", ["alltoall", "hybridep"])
def test_exchanges_of_backward_stand_behind_gradients_of_weights(dispatcher):
    own = on(dispatcher)
    units = [unit for unit in own.units if unit.routed][:2]
    phases = compose("BW", [], units, own.parts).phases
    ends = {(p.name, p.half, p.layer): i for i, p in enumerate(phases)}
    first = {(p.name, p.half, p.layer): p for p in reversed(phases)}
    inner, outer = units[1].layer, units[0].layer
    assert ends["mlp", "W", inner] in first["dispatch", "B", inner].needs
    assert ends["attn", "W", inner] in first["combine", "B", outer].needs


@pytest.mark.parametrize(("states", "bytes_more"), [("fp32", 6), ("bf16", 2)])
def test_grouped_gradients_are_added_where_a_step_sums_them(states, bytes_more):
    scenario = {
        "cluster": {"node": "h100x8", "nodes": 1}, "model": "qwen3_30b_a3b", "precision": "bf16", "stack": "megatron",
        "parallel": {"expert": 8}, "schedule": "1f1b", "outputs": ["result"], "states": {"gradients": states},
        "batch": {"sequences": 8, "sequence_length": 4096},
    }  # fmt: skip
    own = machine(lay_out(from_mapping(scenario)))
    for op in (k.op for k in kernels(own, "W") if isinstance(k.op, GroupedGemm)):
        more = own.pricer.price(op).ns - own.pricer.price(op._replace(result="bf16")).ns
        alone = bytes_more * op.groups * op.n * op.k / (0.8 * 3.35e12) * 1e9
        assert more == pytest.approx(alone, rel=0.08)  # at the clock of its cards, which is a part of a product's price


@pytest.mark.parametrize(("states", "kept"), [("fp32", 4), ("bf16", 2)])
def test_gradients_that_products_do_not_add_up_are_added_by_a_kernel_each(states, kept):
    """Of each of 16 experts' two tensors, of attention's two and of the head's; a fused product adds them itself."""
    fused, added = (on(accumulation=each, states={"gradients": states}) for each in ("fused", "added"))
    assert not any("main_grad" in k.name for k in kernels(fused, "W"))
    own = [k for k in kernels(added, "W") if "main_grad" in k.name]
    shapes = (2 * 768 * 2048, 768 * 2048)
    assert sorted(k.op.rows for k in own if "experts" in k.name) == sorted(16 * each for each in shapes)
    assert all(k.op.kernels == 16 for k in own if "experts" in k.name) and len(own) == 4
    assert all((k.op.read, k.op.write) == (2 + kept, kept) for k in own)
    more = work_us(added, "W") - work_us(fused, "W")
    assert more == pytest.approx((2 * 16 + 2) * (host.EMPTY + host.OPERATION))
    products = [k.op for k in kernels(added, "W") if isinstance(k.op, Gemm | GroupedGemm) and "router" not in k.name]
    assert len(products) == 4 and all(op.result == "bf16" for op in products)
    names = [k.name for part in added.parts(added.units[-1], "W") for k in part.kernels]
    assert names == ["head_wgrad", "head_main_grad"]


def test_permutes_that_are_not_fused_wait_for_their_places_and_go_chunk_by_chunk():
    """16 experts of each of 8 ranks are 128 chunks, cut out and put together three times each way: rows and their
    probabilities behind a dispatch, rows before a combine. Rows are found twice more, which the host waits for."""
    fused, plain = on(), on(permute="plain")
    assert [k.name for k in kernels(plain, "F") if k.waits] == [
        "permute_rows_counted", "permute_probabilities_counted", "counts_to_host",
    ]  # fmt: skip
    named = {(d, k.name): k for d in "FB" for k in kernels(plain, d)}
    sorts = [[k for k in kernels(plain, d) if k.name.startswith("sort_")] for d in "FB"]
    assert [len(each) for each in sorts] == [3, 3]
    for direction, each in zip("FB", sorts, strict=True):
        took = sum(plain.launch_ns(direction, k) for k in each) / 1e3
        assert took == pytest.approx(3 * (2 * host.OPERATION + 128 * (host.PIECE + host.ARGUMENT)), abs=0.01)
    own, rows, row = plain.site.own, plain.site.rows, 2 * 2048
    for direction, name in (("F", "unpermute"), ("B", "permute_bwd")):
        zeros, summed = named[direction, f"{name}_zeros"], named[direction, name]
        assert zeros.op.bytes() == pytest.approx(own * row) and summed.op.bytes() == pytest.approx(3 * rows * row)
    values = named["F", "permute_probabilities_values"].op
    assert values.bytes() == pytest.approx(rows * (16 + 4 + 4))  # two places and a number read, one written
    more = [work_us(plain, d) - work_us(fused, d) for d in "FB"]
    assert all(1000 < each < 1500 for each in more)
    moved = [sum(k.op.bytes() for k in kernels(each, "B") if isinstance(k.op, Memory)) for each in (fused, plain)]
    assert moved[1] - moved[0] == pytest.approx(2 * rows * row + own * 128 * (1 + 8 + 9 + 2 * 4), rel=1e-3)


def test_rows_come_back_by_scatter_add_and_gradients_of_places_by_index_add():
    """On an H200 32,768 rows of 2,048 take 536 and 248 us so, not 93 as their bytes would (docs/EVIDENCE.md, 270)."""
    plain = on(permute="plain", node="h200x8")
    took = [
        plain.pricer.price(next(k.op for k in kernels(plain, d) if k.name == name)).ns
        for d, name in (("F", "unpermute"), ("B", "permute_bwd"))
    ]
    measured = [us * 1e3 * plain.site.rows / 32768 for us in (248, 536)]
    assert took == pytest.approx(measured, rel=0.17)


def test_padded_rows_are_neither_counted_nor_waited_for():
    """Places come from a sort, chunks change order in one copy, and no tile is half full."""
    plain, padded = on(permute="plain"), on(permute="plain", padded=True)
    assert not any(k.waits for k in kernels(padded, "F"))
    names = [k.name for k in kernels(padded, "F")]
    assert "gather_counts" not in names and names.count("permute_sort") == 9 and names.count("sort_rows") == 2
    assert {k.op.kind for k in kernels(padded, "F") if k.name == "sort_rows"} == {"strided"}
    assert padded.site.rows == padded.site.own * 8 == plain.site.rows - 64 * 16
    assert [k.name for k in kernels(on(padded=True), "F") if k.waits] == []
    with pytest.raises(Exception, match=r"stack\.padded: .*; legal: false, or routing\.kind balanced"):
        on(padded=True, routing="sampled")


@pytest.mark.parametrize("permute", ["fused", "plain"])
def test_sums_that_weigh_rows_are_sent_no_weights_and_keep_rows(permute):
    own, sums = on(permute=permute), on(permute=permute, weighting="sums")
    rows, row = own.site.rows, 2 * 2048
    sent = [[k.name for k in kernels(each, "F") if k.name.startswith("probabilities")] for each in (own, sums)]
    assert sent == [["probabilities(F)"], []]
    more = [sum(k.op.bytes() for k in kernels(sums, d) if "weigh" in k.name and k.op.rows == rows) for d in "FB"]
    assert more == ([2 * rows * row, rows * (6 * row + 2)] if permute == "plain" else [0, 0])
    back = [next(k.op for k in kernels(each, "B") if k.name == "unpermute_bwd") for each in (own, sums)]
    assert back[1].bytes() - back[0].bytes() == (rows * row if permute == "fused" else 0)
    unit = next(unit for unit in own.units if unit.routed)
    kept = [each.lowering.kept(each.site, unit).at(each.site) for each in (own, sums)]
    assert kept[1] - kept[0] == rows * row


@pytest.mark.parametrize("precision", ["bf16", "fp8_current"])
def test_experts_one_by_one_have_products_of_their_own_and_are_joined(precision):
    grouped, one = (on(precision=precision, sequential=each) for each in (False, True))
    for d, products in (("F", 2), ("B", 2), ("W", 2)):
        ops = [[k.op for k in kernels(each, d) if k.name.startswith("experts_")] for each in (grouped, one)]
        assert [len(each) for each in ops] == [products, 16 * products]
        assert sum(op.flop() for op in ops[1]) == pytest.approx(sum(op.flop() for op in ops[0]))
        assert {type(op) for op in ops[1]} == {Gemm}
    joined = [k.name for d in "FB" for k in kernels(one, d) if k.name.startswith("join_") and "rows" in k.name]
    assert joined == ["join_rows", "join_dx_rows"]
    with pytest.raises(Exception, match=r"stack\.sequential: .*; legal: one of the two"):
        on(precision="mxfp8", node="b200x8", sequential=True, fused_experts=True)


@pytest.mark.parametrize("also", [{"dispatcher": "deepep"}, {"expert": 1}])
def test_permutes_of_other_dispatchers_are_their_own(also):
    with pytest.raises(Exception, match=r"legal: fused, or alltoall and parallel\.expert 2 or more"):
        on(permute="plain", **also)


def test_unknown_modules_of_graphs_are_refused():
    with pytest.raises((Refused, Exception), match=r"stack\.graphed"):
        on(graphed=["experts"])


ROW = 28 + 40
"""Bytes an element of a row that Megatron's own bias of experts moves: forward a product (4) and a sum (10) in FP32, a
join (8) and a cast (6); backward a cast each way (12), two products (16) and their sums (8), a join (4)."""


@pytest.mark.parametrize(("expert", "nodes"), [(8, 1), (16, 2)])
def test_biases_of_experts_are_added_in_plain_operations(expert, nodes):
    own = on("alltoall", model="gpt_oss_120b", expert=expert, nodes=nodes)
    added = [k for d in "FB" for k in kernels(own, d) if k.name.startswith("expert_bias_")]
    assert len(added) == 2 * own.site.local_experts + 2 + 5 * own.site.local_experts + 2
    moved = sum(k.op.bytes() for k in added if isinstance(k.op, Memory))
    assert moved == pytest.approx(ROW * own.site.expert_rows * own.site.shape.sent, rel=0.01)
    assert sum(own.launch_ns("B", k) for k in added) > 1e5 * own.site.local_experts


def test_no_plain_operations_add_biases_in_a_graph_or_where_there_are_none():
    for own in (on(model="gpt_oss_120b", cuda_graphs=True), on()):
        assert not any(k.name.startswith("expert_bias_") for d in "FB" for k in kernels(own, d))


CLAMPED = 2 * 4 + 8 + 2 * (3 + 5) + 3 + 3 + 8
"""Bytes an element of a half of the first product that clamps move: each half clamped and both joined; backward a mask
and a choice each, of one half another mask and one of both, and a join."""


def test_experts_with_limits_clamp_in_plain_operations_and_wait_for_their_offset():
    own = on(model="gpt_oss_120b")
    clamps = {d: [k for k in kernels(own, d) if k.name.startswith("clamp_")] for d in "FB"}
    assert [len(each) for each in clamps.values()] == [4, 9]
    assert [k.name for k in clamps["F"] if k.waits] == ["clamp_offset"]
    moved = sum(k.op.bytes() for each in clamps.values() for k in each)
    width = own.site.shape.mixed.routed.width
    assert moved == pytest.approx(CLAMPED * own.site.expert_rows * width)
    names = [k.name for k in kernels(own, "F")]
    assert names.index("experts_fc1_fprop") < names.index("clamp_gate") < names.index("swiglu")
    graphed = on(model="gpt_oss_120b", cuda_graphs=True)
    assert own.holds("kept", mixture(own)) != graphed.holds("kept", mixture(graphed))


def test_no_clamps_stand_apart_in_a_graph_in_fused_experts_or_where_there_are_none():
    for own in (on(model="gpt_oss_120b", cuda_graphs=True), on()):
        assert not any(k.name.startswith("clamp_") for d in "FB" for k in kernels(own, d))


def test_fused_experts_end_in_their_activation_and_its_cast():
    plain, fused = (on("hybridep", "mxfp8", "b200x8", fused_experts=each) for each in (False, True))
    for direction in "FB":
        names = [[k.name for k in kernels(own, direction, "mlp")] for own in (plain, fused)]
        gone = [name for name in names[0] if name not in names[1]]
        ending, role = ("swiglu", "fc2_fprop") if direction == "F" else ("swiglu_bwd", "fc1_dgrad")
        assert sorted(set(gone)) == sorted({ending, f"cast_rows_experts_{role}"})
    assert [k.name for k in kernels(plain, "W")] == [k.name for k in kernels(fused, "W")]
    with pytest.raises(Refused, match=r"stack\.fused_experts: experts are fused in mxfp8 alone"):
        on("hybridep", "bf16", fused_experts=True)


FORWARD_ROWS = {"qwen3_30b_a3b": 18.75, "nemotron3_nano_30b_a3b": 26.0}
"""Numbers in FP32 that single operations of a router read and write forward, of each pair of token and expert, best of
each token apart: weights spread over all (3) and truths of who was chosen (6.25) twice made, softmax (2) or sigmoids
over their sums (2 + 1 + 2), counts and sums of the auxiliary loss (1.25); sigmoids of the choice, with a bias, and its
counts (2 + 2 + 0.25)."""
BACKWARD_ROWS = {"qwen3_30b_a3b": 7.0, "nemotron3_nano_30b_a3b": 20.0}
"""Backward: softmax (3), or both terms of a quotient (2 + 3 + 2 + 1 + 2) and two sigmoids (3 each); zeros that the
chosen are put in (1), and the sum of both gradients (3)."""


@pytest.mark.parametrize("model", FORWARD_ROWS)
def test_a_plain_router_is_its_single_operations(model):
    fused, plain = (on("hybridep", model=model, router=word) for word in ("fused", "plain"))
    row = 4.0 * plain.site.tokens * 128
    for direction, rows in (("F", FORWARD_ROWS[model]), ("B", BACKWARD_ROWS[model])):
        names = {k.name for k in kernels(fused, direction)}
        more = [k for k in kernels(plain, direction) if k.name not in names or k.name in ("aux_scores", "router_topk")]
        whole = [k for k in more if isinstance(k.op, Memory) and k.op.kind not in ("tiny", "topk")]
        assert sum(k.op.bytes() for k in whole) / row == pytest.approx(rows)
        assert sum(k.op.kind == "topk" for k in more) == (2 if direction == "F" else 0)
        assert all(k.host == 1.0 for k in more)  # an operation of torch each
    assert [k.name for k in kernels(plain, "W")] == [k.name for k in kernels(fused, "W")]
    with pytest.raises(Refused, match="deepseek runs without it; it goes with: megatron"):
        on(name="deepseek", router="plain", dispatcher="alltoall")


def test_groups_of_experts_are_masked_by_single_operations():
    plain, one = on("hybridep", model="deepseek_v2_lite", router="plain"), on("hybridep", router="plain")
    assert not any(k.name.startswith("groups_") for k in kernels(one, "F"))
    grouped = on("hybridep", model="deepseek_v3", nodes=32, expert=64, router="plain")
    masked = [k for k in kernels(grouped, "F") if k.name.startswith("groups_") and k.op.kind != "tiny"]
    row = 4.0 * grouped.site.tokens * 256
    assert sum(k.op.bytes() for k in masked) / row == pytest.approx(1 + 1.25 + 0.5 + 2.25)
    assert not any(k.name.startswith("groups_") for k in kernels(plain, "F"))


def test_gradients_of_a_router_in_fp32_are_copies_and_products_of_twice_the_work():
    """Input read in BF16 and written in FP32 for the weights' gradient, the other way round behind the input's; TF32's
    peak is half of BF16's."""
    narrow, wide = on("hybridep"), on("hybridep", gating="fp32")
    moved = 6.0 * wide.site.tokens * 2048
    for direction, copied in (("B", "router_dx_bf16"), ("W", "router_x_fp32")):
        (own,) = [k for k in kernels(wide, direction) if k.name == copied]
        assert own.op.bytes() == moved
        flops = [
            sum(k.op.flop() for k in kernels(each, direction) if k.name in ("router_dgrad", "router_wgrad"))
            for each in (narrow, wide)
        ]
        assert flops[1] == 2 * flops[0] > 0
    assert [k.name for k in kernels(narrow, "F")] == [k.name for k in kernels(wide, "F")]
