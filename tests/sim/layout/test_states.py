"""Precision of states and their place: bytes of a parameter by hand, and what a step and its memory make of them."""

from functools import cache

import pytest

from hwmodels.document import DocumentError
from hwmodels.op import Collective, HostCopy, HostUpdate, Memory
from sim import assembly, simulation
from sim.layout import buckets, optimizer
from sim.layout.plan import lay_out
from sim.models.family import weights
from sim.models.precision import PUBLISHED, RECIPES, States
from sim.scenario import SCENARIOS, from_mapping, load

SMALL = {
    "cluster": {"node": "h800x8", "nodes": 4}, "model": {"base": "deepseek_v2_lite", "layers": 8},
    "parallel": {"pipeline": 4, "expert": 8}, "schedule": "1f1b", "batch": {"micro_batches": 8},
    "placement": "even", "outputs": ["result"],
}  # fmt: skip
WIDTH = {"fp32": 4.0, "bf16": 2.0, "fp8": 1 + 4 / 2048}


def laid_out(*changes):
    plan = lay_out(from_mapping(SMALL, changes))
    return plan, assembly.machine(plan)


@cache
def summary(*changes):
    return simulation.run(from_mapping(SMALL, changes), False).summary


def parts(*changes, position=1):
    return summary(*changes)["peak_memory_bytes"][position]


def updated(*changes):
    plan, machine = laid_out(*changes)
    return plan, machine, sum(optimizer.shards(plan, machine, stage).updated for stage in plan.holds[1])


def test_none_given_is_the_recipe():
    assert all(PUBLISHED.of(recipe) == recipe for recipe in RECIPES.values())
    for recipe in RECIPES.values():
        same = States("fp32", "bf16", "fp32", "fp8" if recipe.quantized else "bf16")
        assert same.of(recipe) == recipe


@pytest.mark.parametrize("moments", WIDTH)
@pytest.mark.parametrize("master", ["fp32", "bf16"])
def test_bytes_of_states(moments, master):
    """A master weight and two moments of each parameter that a rank updates; 2,048 moments of 8 bits share a scale."""
    *_, count = updated()
    found = parts(f"states={{moments: {moments}, master: {master}}}")
    assert found["optimizer states"] == pytest.approx(count * (WIDTH[master] + 2 * WIDTH[moments]), abs=1)
    for part in ("weights", "gradients", "activations", "workspace"):
        assert found[part] == parts()[part]


def test_bytes_of_gradients_and_parameters():
    half = parts("states.gradients=bf16")
    assert half["gradients"] * 2 == pytest.approx(parts()["gradients"], abs=2)
    assert half["optimizer states"] == parts()["optimizer states"]
    wide, narrow = parts("states.parameters=bf16")["weights"], parts()["weights"]
    assert 1.5 < wide / narrow < 2, "all but embedding, norms and gate, which are in BF16 anyway"
    assert parts("precision=bf16")["weights"] == wide == parts("precision=bf16", "states.parameters=bf16")["weights"]


@pytest.mark.parametrize("zero", [1, 3])
def test_parameters_kept_in_fp8_are_gathered_so(zero):
    """A byte for each of a linear layer, two for those of embedding, head and norms; in every bucket and ring."""
    said = {
        "cluster": {"node": "h100x8", "nodes": 2}, "model": {"base": "llama3_8b", "layers": 2},
        "precision": "fp8_current", "stack": "megatron", "parallel": {"zero": zero}, "schedule": "1f1b",
        "batch": {"sequences": 16, "sequence_length": 2048}, "overlap": {"gradients": True, "parameters": True},
    }  # fmt: skip
    sizes, held = [], []
    for kept in (None, "fp8"):
        plan = lay_out(from_mapping(said | {"states": {"parameters": kept}} if kept else said))
        machine = assembly.machine(plan)
        whole = weights(machine.site.shape, machine.stages[0])
        moved = [op.size for bucket in buckets.buckets(plan, machine, 0) for _, op in bucket.gather]
        at_once = [op.size for op in optimizer.gather_rings(plan, machine, 0)]
        assert sum(moved) == pytest.approx(sum(at_once))
        sizes.append(sum(moved))
        held.append(machine.recipe.weight.row_bytes(1))
    assert sizes == pytest.approx([2 * (whole.linear + whole.other), whole.linear + 2 * whole.other])
    assert held == [4.0, 2.0]  # BF16 and FP8 both ways; FP8 both ways alone


def test_torch_gathers_shards_in_fp8_and_casts_no_weight_again():
    """Half of what it gathers of a layer, whose forward casts its inputs alone."""
    said = {
        "cluster": {"node": "h100x8", "nodes": 1}, "model": {"base": "llama3_8b", "layers": 2}, "schedule": "1f1b",
        "precision": "fp8_current", "stack": {"name": "torch", "compiled": True}, "parallel": {"zero": 3},
        "batch": {"sequences": 8, "sequence_length": 2048},
    }  # fmt: skip
    found = []
    for kept in ("bf16", "fp8"):
        plan = lay_out(from_mapping(said | {"states": {"parameters": kept}}))
        machine = assembly.machine(plan)
        layer = next(unit for unit in machine.units if unit.block)
        casts = [k.name for p in machine.parts(layer, "F") for k in p.kernels if k.name.startswith("cast_")]
        bucket = buckets.buckets(plan, machine, 0)[1]
        found.append((sum(op.size for _, op in bucket.gather) / bucket.size, [c for c in casts if "_w_" in c]))
    (wide, cast), (narrow, none) = found
    assert wide == 2.0 and narrow == pytest.approx(1.0, abs=1e-3)
    assert len(cast) == 7 and none == []


@pytest.mark.parametrize("gradients", ["fp32", "bf16"])
@pytest.mark.parametrize("moments", WIDTH)
def test_the_update_moves_its_bytes(gradients, moments):
    """Gradient, master and moments in, master, moments and the gathered parameter out; rings carry gradients."""
    plan, machine, count = updated(f"states={{moments: {moments}, gradients: {gradients}}}")
    price, read = machine.pricer.price, WIDTH[gradients] + 4 + 2 * WIDTH[moments]
    tail = optimizer.tail(plan, machine, 1)
    assert tail.update_ns == price(Memory("adam", round(count), read, 4 + 2 * WIDTH[moments] + 2)).ns
    rings = optimizer.reduce_rings(plan, machine, 1)
    held = optimizer.shards(plan, machine, 1)
    assert [ring.size for ring in rings] == [held.dense * WIDTH[gradients], held.experts * WIDTH[gradients]]
    norm = Collective("all_reduce", WIDTH[gradients], 32, 4)
    assert tail.norm_ns == price(Memory("elementwise", round(count), WIDTH[gradients], 0.0)).ns + price(norm).ns


def test_narrower_states_never_take_longer():
    wide, published, narrow = (
        summary(f"states={{moments: {m}, gradients: {g}, master: {w}}}")["step_time_s"]
        for m, g, w in (("fp32", "fp32", "fp32"), ("bf16", "fp32", "fp32"), ("fp8", "bf16", "bf16"))
    )
    assert narrow < published < wide and published == summary()["step_time_s"]


def test_copies_in_bf16_are_quantised_before_each_product():
    """One cast more for each product forward, and another way to transpose backward; none in BF16."""
    unit = laid_out()[1].routed[0]
    for changes, longer in (((), True), (("precision=bf16",), False)):
        names = []
        for states in ("fp8", "bf16"):
            given = changes if states == "fp8" else (*changes, "states.parameters=bf16")
            machine = laid_out(*given)[1]
            names.append([k for d in "FBW" for part in machine.parts(unit, d) for k in part.kernels])
        fewer, more = ([kernel.name for kernel in row] for row in names)
        added = set(more) - set(fewer)
        assert added == ({"q_b_W", "kv_a_W", "kv_b_W", "o_proj_W", "shared_gateup_W", "shared_down_W", "routed_W1",
                          "routed_W2", "q_b_recompute_W", "kv_b_recompute_W"} if longer else set())  # fmt: skip
    assert summary("states.parameters=bf16")["step_time_s"] > summary()["step_time_s"]


# --- on the host ------------------------------------------------------------------------------------------------------


def test_the_host_takes_states_and_the_longest_of_three_times():
    plan, machine, count = updated("optimizer.offload=host")
    price, tail = machine.pricer.price, optimizer.tail(plan, machine, 1)
    adam = round(count) * (4 + 4 + 4 + 4 + 4 + 2)
    times = [price(op).ns for op in (HostCopy(4 * round(count)), HostUpdate(adam), HostCopy(2 * round(count)))]
    assert tail.update_ns == max(times) == times[1] and tail.average_ns == 0
    found = parts("optimizer.offload=host")
    assert found["optimizer states"] == 0 and found["gradients"] == parts()["gradients"]
    assert summary("optimizer.offload=host")["step_time_s"] > summary()["step_time_s"]
    assert summary("optimizer.offload=host")["host_copy_s"] == 0 < summary()["host_copy_s"]


HOST = "cluster.node.device.host.capacity"


@pytest.mark.parametrize(
    "words, each", [((), 2), (("optimizer.offload=host",), 14), (("optimizer.offload=host", "states.moments=fp32"), 18)]
)
def test_what_is_on_the_host_must_fit_there(words, each):
    """Of a parameter: its average in BF16; offloaded, also a master weight, two moments, and a gradient."""
    plan, machine, count = updated(*words)
    needed = optimizer.host_bytes(plan, machine, 1)
    most = optimizer.most_host_bytes(plan, machine)
    assert needed == pytest.approx(each * count, rel=1e-12) and needed <= most
    for room, fits in ((most, True), (most - 1e3, False)):
        found = summary(*words, f"{HOST}={room / 1e3!r} kB")
        lines = [line for line in found["infeasible"] if line.startswith("does not fit in the host's memory: ")]
        assert bool(lines) is not fits
    what = "master weights, moments and gradients" if words else "averaged parameters"
    assert f": {what} of a rank need " in lines[0] and "its GPU's share of " in lines[0]


def test_offloaded_states_of_plain_torch_are_updated_on_the_host():
    """Not by kernels of the GPU, as they were while only their bytes were gone."""
    torch = {
        "cluster": {"node": "h200x1", "nodes": 1}, "model": {"base": "llama3_8b", "layers": 2}, "stack": "torch",
        "precision": "bf16", "batch": {"micro_batches": 1, "sequence_length": 2048}, "optimizer": {"offload": "host"},
    }  # fmt: skip
    plan = lay_out(from_mapping(torch))
    machine = assembly.machine(plan)
    price, (held,) = machine.pricer.price, [optimizer.shards(plan, machine, 0)]
    count, tail = round(held.updated), optimizer.tail(plan, machine, 0)
    assert (tail.update_ns, tail.norm_ns) == (price(HostUpdate(count * (2 + 4 + 4 + 2))).ns, 0)
    assert optimizer.host_bytes(plan, machine, 0) == held.updated * (4 + 2)


@pytest.mark.parametrize(
    "slow, share", [("cluster.node.pcie.bandwidth=1GB/s", 4), ("cluster.node.device.host.bandwidth=1GB/s", 22)]
)
def test_a_slow_link_and_a_slow_memory_are_felt(slow, share):
    """Over a link of 1 GB/s gradients of 4 bytes are the longest; in memory of 1 GB/s the 22 bytes of the update."""
    plan, machine, count = updated("optimizer.offload=host", slow)
    seconds = share * count / 1e9 / (0.91 if share == 4 else 1)
    assert optimizer.tail(plan, machine, 1).update_ns / 1e9 == pytest.approx(seconds, rel=1e-3)


@pytest.mark.parametrize(
    "words, told",
    [
        (["states.master=fp8"], "found 'fp8'; legal: fp32, bf16"),
        (["states.moment=fp8"], "did you mean 'moments'?"),
        (["states.parameters=fp8", "precision=bf16"], "products in bf16 read no FP8 copies"),
        (["states.parameters=fp8", "precision=mxfp8", "stack=megatron"], "write precision=fp8_current"),
        (["states.parameters=fp8", "precision=fp8_current", "stack={name: torch, compiled: true}"], "none is gathered"),
        (["optimizer.offload=host", "optimizer.name=muon"], "the host's CPU makes no matrix orthogonal"),
        (["optimizer.offload=cpu"], "found 'cpu'; legal: none, host"),
    ],
)
def test_what_nobody_trains_with_is_refused(words, told):
    with pytest.raises(DocumentError) as caught:
        from_mapping(SMALL, words)
    assert told in str(caught.value)


def test_states_reload_and_published_ones_keep_their_hash():
    scenario = load(SCENARIOS / "v2_lite.yaml", ["states={moments: fp8}", "optimizer.offload=host"])
    again = from_mapping(scenario.resolved)
    assert (again.states, again.optimizer, again.scenario_hash) == (
        scenario.states, scenario.optimizer, scenario.scenario_hash,
    )  # fmt: skip
    plain = load(SCENARIOS / "v2_lite.yaml")
    assert "states" not in plain.resolved and "offload" not in plain.resolved["optimizer"]
    assert plain.scenario_hash != scenario.scenario_hash


def test_delayed_scaling_tells_all_ranks_of_a_stage_its_largest_values():
    """Inputs and weights of four products a layer, in FP32, over tensor, context and data parallel ranks; no other
    recipe has any to tell, nor has a stage of one rank."""
    said = {
        "cluster": {"node": "h100x8", "nodes": 2}, "model": {"base": "llama3_8b", "layers": 4}, "stack": "megatron",
        "parallel": {"zero": 1, "tensor": 2, "pipeline": 2}, "schedule": "1f1b", "placement": "even",
        "batch": {"sequences": 16, "sequence_length": 2048},
    }  # fmt: skip

    def shared(**changes):
        plan = lay_out(from_mapping({**said, **changes}))
        moving = buckets.traffic(plan, assembly.machine(plan), 0)
        return [kernel.op for kernel in moving.shared if isinstance(kernel.op, Collective)] if moving else []

    assert shared(precision="fp8_delayed") == [Collective("all_reduce", 2 * 8 * 4.0, 8, 1, form="fp32")]
    assert shared(precision="fp8_current") == shared(precision="bf16") == []
    one = {"cluster": {"node": {"base": "h100x8", "gpus": 2}, "nodes": 1}, "parallel": {"pipeline": 2}}
    assert shared(precision="fp8_delayed", **one) == []
