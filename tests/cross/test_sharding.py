"""Data parallelism in all its kinds: times in closed form, bytes and memory by hand, and what holds of any layout."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.document import DocumentError
from hwmodels.op import Memory
from sim import assembly
from sim.engine.lowering import Lowered, lower
from sim.layout import optimizer
from sim.layout.buckets import Bucket, buckets, reductions
from sim.layout.machine import Machine
from sim.layout.plan import Plan, lay_out
from sim.layout.traffic import Ring
from sim.scenario.files import from_mapping
from sim.scenario.values import Scenario
from sim.simulation import run

LAYERS = 8
EVEN = {
    "family": "transformer", "name": "even", "vocabulary": 32000, "hidden": 4096, "layers": LAYERS, "heads": 32,
    "kv_heads": 8, "head_width": 128, "tied": False, "pattern": "attention+dense", "activation": "swiglu",
    "intermediate": 14336, "source": "a test",
}  # fmt: skip
MIXTURE = {**EVEN, "pattern": "attention+moe", "experts": 8, "experts_per_token": 2, "expert_intermediate": 3584}
del MIXTURE["intermediate"]
LAYER = 4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 14336 + 2 * 4096
ENDS = 2 * 32000 * 4096 + 4096
"""Parameters of a layer, and of embedding, head and last norm."""


def scenario(stack: str = "torch", nodes: int = 2, **more: Any) -> Scenario:
    """Prices without contention and host: peaks, bandwidths and launch gaps."""
    plain = {
        "name": "even", "cluster": {"node": "h100x8", "nodes": nodes}, "model": EVEN, "precision": "bf16",
        "stack": {"name": stack, **({"cuda_graphs": True} if stack != "deepseek" else {})}, "pricing": "roofline",
        "batch": {"sequences": 8 * nodes, "sequence_length": 4096, "micro_batch": 1}, "outputs": ["result"],
    }  # fmt: skip
    return from_mapping({**plain, **more})


@cache
def ready(stack: str = "torch", nodes: int = 2, **more: Any) -> tuple[Plan, Machine, Lowered]:
    parallel = {key: more.pop(key) for key in ("zero", "shard", "pipeline", "no_sync") if key in more}
    overlap = {key: more.pop(key) for key in ("gradients", "parameters", "buckets") if key in more}
    more = {**more, "parallel": parallel, "overlap": overlap}
    plan = lay_out(scenario(stack, nodes, **more))
    machine = assembly.machine(plan)
    return plan, machine, lower(plan, machine)


class Times:
    """ns of what a stage does and moves, each alone with its launch gap."""

    def __init__(self, plan: Plan, machine: Machine) -> None:
        self.machine, self.buckets = machine, buckets(plan, machine, 0)
        self.forward, self.backward = (
            [machine.unit_ns(unit, letters) for unit in machine.units] for letters in ("F", "BW")
        )
        self.input, self.weight = ([machine.unit_ns(unit, letter) for unit in machine.units] for letter in "BW")

    def of(self, op: Any) -> int:
        return self.machine.pricer.price(op).ns + self.machine.pricer.launch_gap_ns

    def gather(self, bucket: Bucket) -> int:
        return sum(self.of(op) for _, op in bucket.gather)

    def reduce(self, bucket: Bucket) -> int:
        return sum(self.of(op) for _, op in bucket.reduce)

    def copy(self, bucket: Bucket) -> int:
        return self.of(Memory("elementwise", round(bucket.size), 2, 2))


def total(lowered: Lowered, kind: str) -> int:
    return next(kit.timing.total for kit in lowered.known if kit.fine.kind == kind)


# --- times in closed form ---------------------------------------------------------------------------------------------


def test_a_forward_of_shards_hides_all_gathers_but_the_first() -> None:
    """Embedding and head are gathered before anything; each layer beside the compute of the one before."""
    plan, machine, lowered = ready(zero=3)
    t = Times(plan, machine)
    root, *layers = t.buckets
    assert [len(bucket.units) for bucket in t.buckets] == [2] + [1] * LAYERS
    compute = t.forward
    expected = t.gather(root) + t.copy(root) + max(compute[0], t.gather(layers[0]))
    for number, layer in enumerate(layers):
        ahead = t.gather(layers[number + 1]) if number + 1 < LAYERS else 0
        expected += t.copy(layer) + max(compute[1 + number], ahead)
    assert total(lowered, "F") == expected + compute[-1]


def test_gathers_that_are_not_ahead_are_all_exposed() -> None:
    plan, machine, lowered = ready(zero=3, parameters=False, gradients=False)
    t = Times(plan, machine)
    copies = sum(map(t.copy, t.buckets))
    assert total(lowered, "F") == sum(t.forward) + sum(map(t.gather, t.buckets)) + copies
    layers = t.buckets[1:]
    moved = sum(t.gather(b) + t.copy(b) for b in layers) + sum(t.reduce(b) + t.copy(b) for b in t.buckets)
    assert total(lowered, "BW") == sum(t.backward) + moved


def test_a_backward_of_shards_exposes_the_last_reduction() -> None:
    """With compute longer than what moves beside it: the layers' gathers and reductions hide, but for the first one's;
    that of embedding and head follows all."""
    plan, machine, lowered = ready(zero=3)
    t = Times(plan, machine)
    root, *layers = t.buckets
    copies = sum(t.copy(b) for b in layers) + sum(map(t.copy, t.buckets))
    behind = t.reduce(layers[0]) - t.copy(root) - t.backward[0]  # beside what is left of the backward
    assert behind > 0 and all(t.gather(b) + t.reduce(b) < t.backward[1] for b in layers)
    assert total(lowered, "BW") == sum(t.backward) + copies + behind + t.reduce(root)


ACCUMULATED = {"micro_batches": 4, "sequence_length": 4096, "micro_batch": 1}


def test_without_sync_only_the_last_backward_reduces_and_each_adds_its_gradients() -> None:
    """Sums of a layer in FP32 read what was there and a BF16 gradient, beside the gather of the next layer at most (it
    asks for nothing that they make); what is reduced then is copied from the sum, in the chain."""
    chain = {"zero": 3, "parameters": False, "gradients": False, "states": {"gradients": "fp32"}, "batch": ACCUMULATED}
    plan, machine, lowered = ready.__wrapped__(**chain, no_sync=True)
    t = Times(plan, machine)
    middle, last = (kit.timing.total for kit in lowered.known if kit.fine.kind == "BW")
    gathers = sum(t.gather(b) + t.copy(b) for b in t.buckets[1:])
    sums = [t.of(Memory("elementwise", round(b.size), 6, 4)) for b in t.buckets]
    beside = sum(min(one, t.gather(b)) for one, b in zip(sums[2:], t.buckets[1:], strict=False))
    copies = sum(t.of(Memory("elementwise", round(b.size), 4, 4)) for b in t.buckets)
    assert middle == sum(t.backward) + gathers + sum(sums) - beside
    assert last == sum(t.backward) + gathers + sum(sums) + sum(map(t.reduce, t.buckets)) + copies
    _, _, synced = ready.__wrapped__(**chain)
    (each,) = (kit.timing.total for kit in synced.known if kit.fine.kind == "BW")
    narrow = sum(t.of(Memory("elementwise", round(b.size), 2, 4)) for b in t.buckets)
    assert each == last - sum(sums) - copies + narrow


@pytest.mark.parametrize("shard", [None, 8])
def test_without_sync_gradients_are_on_links_once_a_step(shard: int | None) -> None:
    def sent(no_sync: bool) -> float:
        parallel = {"zero": 2, "no_sync": no_sync, **({"shard": shard} if shard else {})}
        own = scenario(
            cluster={"node": "h100x8", "nodes": 2, "fabric": "ndr"}, outputs=["result", "links"], parallel=parallel,
            batch=ACCUMULATED,
        )  # fmt: skip
        return float(run(own, interval=False).summary["links"]["classes"]["NIC out"]["bytes"]["gradients"])

    assert sent(False) == pytest.approx(4 * sent(True))


def test_one_micro_batch_needs_no_sums() -> None:
    (one, same) = (ready(zero=3, no_sync=no_sync)[2] for no_sync in (False, True))
    assert total(one, "BW") == total(same, "BW")


def test_parameters_that_are_kept_are_gathered_once() -> None:
    """ZeRO-2 of torch: a forward as that of shards, a backward without gathers."""
    kept, let_go = ready(zero=2)[2], ready(zero=3)[2]
    assert total(kept, "F") == total(let_go, "F")
    assert total(kept, "BW") < total(let_go, "BW")


def test_what_exceeds_the_backward_is_exposed_where_gradients_are_reduced_beside_it() -> None:
    """Megatron's buckets on the network lane, each from when it is made: the step ends as a queue would have it."""
    plan, machine, lowered = ready("megatron", gradients=True, buckets="1 GB")
    (sync,), end = lowered.syncs, total(lowered, "F") + total(lowered, "BW")
    free, backward = 0, Times(plan, machine).backward
    for number, early in sync.early.items():
        assert early == sum(backward[lowered.reductions[number].unit :])
    assert [r.unit for r in lowered.reductions] == sorted((r.unit for r in lowered.reductions), reverse=True)
    for _, number, ns in sync.reduces:
        begun = total(lowered, "F") + sync.early[number] if number in sync.early else end
        free = max(free, begun) + ns
    step = run(plan.scenario, interval=False).summary["step_time_s"] * 1e9
    assert step == pytest.approx(free + sync.update_ns + sync.gather_ns, abs=1)
    plan, _, lowered = ready("megatron")
    late, ((_, _, whole),) = run(plan.scenario, interval=False).summary["step_time_s"] * 1e9, lowered.syncs[0].reduces
    assert late == pytest.approx(step - free + end + whole, abs=1)
    assert len(sync.reduces) > 2 and step < late


def test_updated_parameters_are_gathered_beside_the_first_forward() -> None:
    """Of two micro-batches the first one's forward takes longer, by what is exposed, and nothing follows the update."""
    batch = {"sequences": 32, "sequence_length": 4096, "micro_batch": 1}
    plan = lay_out(scenario("megatron", batch=batch, overlap={"parameters": True}))
    machine = assembly.machine(plan)
    lowered = lower(plan, machine)
    first, later = (kits.timing.total for kits in lowered.kits[0][:3:2])
    t = Times(plan, machine)
    assert lowered.syncs[0].gather_ns == 0
    embedding, layer, *others = (
        t.buckets
    )  # the first layer's first piece hides behind the embedding as far as that goes
    pieces = [t.of(op) for _, op in layer.gather]
    attention = sum(t.of(kernel.op) for kernel in machine.parts(machine.units[1], "F")[0].kernels)
    exposed = max(pieces[0] - t.forward[0], 0) + max(sum(pieces[1:]) - attention, 0)
    assert len(pieces) > 2 and first == later + t.gather(embedding) + exposed
    assert all(t.gather(bucket) < t.forward[1] for bucket in others)


@pytest.mark.parametrize(("gather", "second"), [("aligned", 0), (None, 1)])
def test_stages_gather_while_they_wait_for_their_first_activations_or_all_of_theirs_then(
    gather: str | None, second: int
) -> None:
    """Aligned, all ask when the step begins, and only the first stage of a pipeline has gathers in its first forward;
    Megatron Core without an interleaved schedule has one of a stage's whole there."""
    more = {"parallel": {"pipeline": 2}, "overlap": {"parameters": True, "gather": gather}, "schedule": "1f1b"}
    plan = lay_out(scenario("megatron", nodes=4, **more))
    lowered = lower(plan, assembly.machine(plan))
    gathers = [
        [sum("gather" in phase.name for phase in kit.composition.phases) for kit in row if kit.composition]
        for row in lowered.kits
    ]
    assert gathers[0][0] > 0 and not any(gathers[0][1:])
    assert gathers[1][0] == second and not any(gathers[1][1:])


# --- bytes by hand ----------------------------------------------------------------------------------------------------


def test_bytes_on_links_of_shards_over_64_gpus() -> None:
    """FSDP2 on 8 nodes of 8: two gathers of each layer and one of the ends, a reduction of all; 63/64 of each vector
    leaves every rank, an eighth of that through its NIC."""
    _, _, lowered = ready(zero=3, nodes=8)
    sizes = {"F": LAYERS * LAYER + ENDS, "BW": 2 * LAYERS * LAYER + ENDS}
    for kind, parameters in sizes.items():
        kit = next(kit for kit in lowered.known if kit.fine.kind == kind)
        assert kit.composition is not None
        ops = [k.op for phase in kit.composition.phases if phase.lane == 1 for k in phase.kernels]
        assert sum(op.bytes() for op in ops) == pytest.approx(2 * parameters * 63 / 64)
        assert sum(op.wire_bytes() for op in ops) == pytest.approx(2 * parameters * 63 / 64 / 8)


def test_bytes_on_links_of_hybrid_shards() -> None:
    """Eight nodes, each with a copy: gathers and reduce-scatters stay inside; an eighth is all-reduced between them."""
    _, _, lowered = ready(zero=3, shard=8, nodes=8)
    kit = next(kit for kit in lowered.known if kit.fine.kind == "BW")
    assert kit.composition is not None
    ops = [k.op for phase in kit.composition.phases if phase.lane == 1 for k in phase.kernels]
    inside = [op for op in ops if op.nodes == 1]
    between = [op for op in ops if op.nodes > 1]
    assert sum(op.bytes() for op in inside) == pytest.approx(2 * (2 * LAYERS * LAYER + ENDS) * 7 / 8)
    assert {(op.kind, op.ranks, op.nodes) for op in between} == {("all_reduce", 8, 8)}
    assert sum(op.wire_bytes() for op in between) == pytest.approx(2 * 2 * (LAYERS * LAYER + ENDS) / 8 * 7 / 8)


def test_links_carry_what_ranks_send() -> None:
    """Bytes by kind on NICs: those of all ranks of a step with two micro-batches, in each of which layers are gathered
    twice and what is no layer once."""
    batch = {"sequences": 128, "sequence_length": 4096, "micro_batch": 1}
    cluster = {"node": "h100x8", "nodes": 8, "fabric": "ndr"}
    plain = scenario(nodes=8, parallel={"zero": 3}, batch=batch, cluster=cluster, outputs=["result", "links"])
    classes = run(plain, interval=False).summary["links"]["classes"]
    nics = next(row for name, row in classes.items() if "NIC" in name)["bytes"]
    vector = 2 * (LAYERS * LAYER + ENDS) * 63 / 64 / 8 * 64
    assert nics["gradients"] == pytest.approx(2 * vector)
    assert nics["parameters"] == pytest.approx(2 * vector * (2 - ENDS / (LAYERS * LAYER + ENDS)), rel=1e-6)


# --- memory by hand ---------------------------------------------------------------------------------------------------

SEVENTY = 70_553_706_496
SEVENTY_LAYER = 8192 * (8192 + 2 * 1024 + 8192) + 3 * 8192 * 28672 + 2 * 8192
SEVENTY_ENDS = 2 * 128256 * 8192 + 8192
TOKENS, LOGITS = 4096, 4096 * 128256 * 4
HIDDEN = TOKENS * 8192 * 2


@pytest.mark.parametrize(("layout", "weights", "gradients", "states"), [
    ({"zero": 0}, SEVENTY, 2 * SEVENTY, 2 * SEVENTY),  # gradients and DDP's buckets
    ({"zero": 1}, SEVENTY, 2 * SEVENTY, 2 * SEVENTY / 64),
    ({"zero": 2}, SEVENTY * (1 + 1 / 64), SEVENTY / 64 + SEVENTY_ENDS + 2 * SEVENTY_LAYER, 2 * SEVENTY / 64),
    ({"zero": 3}, SEVENTY / 64 + SEVENTY_ENDS + 2 * SEVENTY_LAYER,
     SEVENTY / 64 + SEVENTY_ENDS + 2 * SEVENTY_LAYER, 2 * SEVENTY / 64),
    ({"zero": 3, "shard": 8}, SEVENTY / 8 + SEVENTY_ENDS + 2 * SEVENTY_LAYER,
     SEVENTY / 8 + SEVENTY_ENDS + 2 * SEVENTY_LAYER, 2 * SEVENTY / 8),
    ({"zero": 3, "no_sync": True}, SEVENTY / 64 + SEVENTY_ENDS + 2 * SEVENTY_LAYER,
     SEVENTY + SEVENTY_ENDS + 2 * SEVENTY_LAYER, 2 * SEVENTY / 64),
], ids=["DDP", "ZeRO-1", "ZeRO-2", "FSDP2", "HSDP", "no sync"])  # fmt: skip
def test_memory_of_a_70b_on_64_gpus(layout: dict[str, int], weights: float, gradients: float, states: float) -> None:
    """BF16 parameters, gradients and two moments; what is gathered at once is two layers and what is no layer. Each
    layer keeps its input, the embedding its tokens, the head its input, normed too, a norm's scale a token and logits
    in FP32, beside which its backward holds two of their size."""
    assert SEVENTY == 80 * SEVENTY_LAYER + SEVENTY_ENDS
    batch = {"micro_batches": 1 + layout.get("no_sync", False), "sequence_length": 4096, "micro_batch": 1}
    own = scenario(nodes=8, model="llama3_70b", parallel=layout, recompute="full", batch=batch)
    result = run(own, interval=False)
    (curve,) = result.memory
    assert curve.parts["weights"][0] == pytest.approx(2 * weights, abs=2)
    assert curve.parts["gradients"].max() == pytest.approx(2 * gradients, abs=2)
    assert curve.parts["optimizer states"][0] == pytest.approx(2 * states, abs=2)
    kept = 80 * HIDDEN + 8 * TOKENS + 2 * HIDDEN + 4 * TOKENS + LOGITS
    assert curve.parts["activations"].max() == kept + 2 * LOGITS


# --- of any layout ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [2, 3])
def test_a_stage_at_two_positions_is_sharded_at_each(zero: int) -> None:
    """DualPipe over two positions of eight ranks: each holds both stages, a shard an eighth of each, and what each has
    made of gradients is summed once a step, an eighth of a stage with the one rank of the other position that has it.
    Every backward is reduced at the position that does it; parameters are gathered there for every pass."""
    batch = {"micro_batches": 4, "sequence_length": 2048, "micro_batch": 1}
    more = {"parallel": {"pipeline": 2, "zero": zero}, "schedule": "dualpipe", "batch": batch}
    plan = lay_out(scenario("megatron", **more))
    machine = assembly.machine(plan)
    halves = [LAYERS // 2 * LAYER + 32000 * 4096 + last for last in (0, 4096)]
    for stage, held in enumerate(halves):
        assert optimizer.shards(plan, machine, stage).updated == held / 8
        around = {ring.between: (ring.ranks, ring.parameters) for ring in optimizer.rings(plan, machine, stage)
                  if not ring.experts}  # fmt: skip
        assert around == {False: (8, held), True: (2, held / 8)}
        assert {r.ranks for b in buckets(plan, machine, stage) for r, _ in (*b.reduce, *b.gather)} == {8}
    behind = [(each.stage, [op.ranks for _, op in each.around]) for each in reductions(plan, machine)]
    assert behind == [(0, [2]), (1, [2])]
    network = run(scenario(
        "megatron", cluster={"node": "h100x8", "nodes": 2, "fabric": "ndr"}, outputs=["result", "links"], **more
    ), False).summary["links"]["classes"]["NIC out"]["bytes"]  # fmt: skip
    # all-reduces of two nodes: each rank sends as much as its part is long
    assert network["gradients"] == pytest.approx(2 * 8 * sum(held / 8 * 4 for held in halves))


LAYOUTS = st.fixed_dictionaries({
    "zero": st.integers(0, 3), "shard": st.sampled_from([None, 1, 2, 4, 8, 16]), "expert": st.sampled_from([1, 2, 4]),
    "pipeline": st.sampled_from([1, 2]), "stack": st.sampled_from(["torch", "megatron", "deepseek"]),
    "gradients": st.sampled_from([None, True, False]), "parameters": st.sampled_from([None, True, False]),
})  # fmt: skip


def laid_out(drawn: dict[str, Any], nodes: int = 2) -> Scenario | None:
    """A layout of a mixture; None for one that is refused."""
    parallel = {key: drawn[key] for key in ("zero", "shard", "expert", "pipeline") if drawn[key] is not None}
    overlap = {key: drawn[key] for key in ("gradients", "parameters") if drawn[key] is not None}
    batch = {"micro_batches": 2, "sequence_length": 1024, "micro_batch": 1}
    try:
        return scenario(drawn["stack"], nodes, model=MIXTURE, parallel=parallel, overlap=overlap, batch=batch,
                        schedule="1f1b")  # fmt: skip
    except DocumentError:
        return None


def alike(ring: Ring) -> tuple[bool, bool]:
    """What tells the rings of a stage apart."""
    return ring.experts, ring.between


@settings(max_examples=40, deadline=None)
@given(LAYOUTS)
def test_gradients_and_parameters_add_up_over_buckets_and_ranks(drawn: dict[str, Any]) -> None:
    """All stages of all ranks hold each parameter once for every copy; buckets hold what stages do; what is reduced is
    as many bytes for all ways to put it in buckets."""
    plain = laid_out(drawn)
    if plain is None:
        return
    plan = lay_out(plain)
    machine = assembly.machine(plan)
    updated = 0.0
    for stage in range(plan.program.stages):
        held, parts = optimizer.shards(plan, machine, stage), buckets(plan, machine, stage)
        assert sum(b.size for b in parts) == pytest.approx(held.dense + held.experts)
        for ring in optimizer.rings(plan, machine, stage):
            if ring.ranks > 1 and ring.parameters:
                moved = sum(op.size for b in parts for r, op in b.reduce if alike(r) == alike(ring))
                assert moved == pytest.approx(optimizer.reducing(plan, machine, ring).size)
        updated += held.updated * plan.mesh.replicas
    copies = plan.mesh.axes[0]["replica"] if plain.parallel.zero else 1
    weights = [machine.family.weights(machine.whole, unit) for unit in machine.units]
    dense, experts = sum(w.linear + w.other - w.shared for w in weights), sum(w.experts for w in weights)
    if plain.parallel.zero:
        assert updated == pytest.approx((dense + experts) * copies)
    else:
        assert updated == pytest.approx(
            dense * plan.mesh.replicas + experts * plan.mesh.replicas / plain.parallel.expert
        )


@settings(max_examples=12, deadline=None)
@given(LAYOUTS)
def test_memory_is_the_sum_of_its_parts_and_more_bandwidth_is_never_slower(drawn: dict[str, Any]) -> None:
    plain = laid_out(drawn)
    if plain is None:
        return
    result = run(plain, interval=False)
    for row in result.summary["peak_memory_bytes"]:
        assert row["total"] == sum(size for name, size in row.items() if name != "total")
    waterfall = sum(bar.seconds for bar in result.waterfall)
    assert waterfall == pytest.approx(result.summary["step_time_s"])
    faster = {"node": {"base": "h100x8", "nic": {"bandwidth": "200 GB/s"}}, "nodes": 2}
    fast = from_mapping({**plain.resolved, "cluster": faster})
    assert run(fast, interval=False).summary["step_time_s"] <= result.summary["step_time_s"]


@pytest.mark.parametrize("stack", ["torch", "megatron", "deepseek"])
def test_shards_of_one_rank_are_the_whole(stack: str) -> None:
    """Whatever the stage."""
    one = {"node": {"base": "h100x8", "gpus": 1}, "nodes": 1}

    def figures(zero: int) -> tuple[float, Any]:
        batch = {"sequences": 2, "sequence_length": 2048, "micro_batch": 1}
        summary = run(scenario(stack, cluster=one, parallel={"zero": zero}, batch=batch), interval=False).summary
        return summary["step_time_s"], summary["peak_memory_bytes"]

    whole = figures(1)
    for zero in (0, 2, 3):
        step, memory = figures(zero)
        assert step == pytest.approx(whole[0], abs=1e-8) and memory == whole[1]


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "line"), [
    ({"parallel": {"shard": 3}}, "parallel.shard: data parallelism 16 (cluster.nodes x GPUs / 1 ranks of a model) "
     "cannot be divided by parallel.shard 3; legal: 1, 2, 4, 8, 16"),
    ({"parallel": {"zero": 0, "shard": 4}}, "parallel.shard: found 4; with parallel.zero 0 nothing is sharded; legal: "
     "leave it out"),
    ({"parallel": {"zero": 1, "no_sync": True}}, "parallel.no_sync: is of torch's fully_shard, with parallel.zero 2 or "
     "3 and stack.flat false; legal: false, or such a layout"),
    ({"overlap": {"gradients": True}, "optimizer": {"reduce": "after"}}, "overlap.gradients: found true; with "
     "optimizer.reduce after nothing is reduced before"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(more: dict[str, Any], line: str) -> None:
    with pytest.raises(DocumentError) as caught:
        scenario(**more)
    assert str(caught.value).removeprefix("<mapping>: ") == line


@pytest.mark.parametrize("more", [
    {"overlap": {"gradients": True, "parameters": True, "buckets": "100 MB"}}, {"parallel": {"zero": 3}},
    {"parallel": {"zero": 0}, "overlap": {"gradients": True}},
    {"parallel": {"pipeline": 2, "zero": 1}, "overlap": {"gradients": True, "buckets": "100 MB"}, "schedule": "1f1b"},
    {"parallel": {"pipeline": 2, "zero": 2}, "schedule": "dualpipe"},
    {"parallel": {"pipeline": 2, "zero": 3, "shard": 4}, "schedule": "dualpipe"},
    {"parallel": {"pipeline": 2, "zero": 3}, "schedule": "dualpipev"},
], ids=["buckets", "shards", "DDP", "pipeline", "DualPipe", "DualPipe, copies", "DualPipeV"])  # fmt: skip
def test_all_ranks_at_once_do_what_one_does(more: dict[str, Any]) -> None:
    """Arrays of ranks, one column each, and events of one rank a position: the same step, steps and transfers."""
    batch = {"micro_batches": 4, "sequence_length": 2048, "micro_batch": 1}
    folded, whole = (
        run(scenario("megatron", batch=batch, fold=fold, **more), interval=False) for fold in (True, False)
    )
    assert whole.summary["step_time_s"] == folded.summary["step_time_s"]
    assert whole.summary["phases_s"] == pytest.approx(folded.summary["phases_s"])
