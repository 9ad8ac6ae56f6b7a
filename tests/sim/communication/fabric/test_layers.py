"""What groups over several nodes send inside layers, on links: bytes by hand, and what they and others lose."""

from itertools import pairwise

import numpy as np
import pytest

from hwmodels.op import Collective, Send
from sim import assembly
from sim.analysis.links import links
from sim.communication.fabric.layers import crossings
from sim.communication.fabric.network import network
from sim.layout.plan import lay_out
from sim.scenario import from_mapping
from sim.simulation import run

T, H, V, LAYERS, MICRO = 4096, 4096, 128256, 4, 2
"""Tokens of a sequence; of Llama-3 8B hidden width and vocabulary; layers that it has here, micro-batches."""


def on(gpus, nodes, sequences=MICRO, more=None, cluster=None, **parallel):
    return from_mapping({
        "cluster": {"node": {"base": "h100x8", "gpus": gpus}, "nodes": nodes, "fabric": "ndr", **(cluster or {})},
        "model": {"base": "llama3_8b", "layers": LAYERS}, "precision": "bf16", "stack": "megatron",
        "parallel": parallel, "schedule": "1f1b", "outputs": ["result", "links"],
        "batch": {"sequences": sequences, "sequence_length": T}, **(more or {}),
    })  # fmt: skip


def used(scenario):
    return run(scenario, interval=False).summary["links"]["classes"]


APART = {"placement": [0, 1024, 2048, 3072], "routing": "static"}
"""Each node in a pod of its own: all that leaves one goes up to the core and down again."""
LINKS = ("NIC out", "NIC in", "leaf up", "middle up", "core down", "middle down")


def test_bytes_of_a_tensor_group_over_two_nodes_by_hand():
    """As on one node (tests/sim/models/test_shared_layers.py): ten gathers or scatters of a whole activation a layer
    and five at the ends, 12 bytes a token and rank for the loss. Seven eighths of each go round the ring at every rank;
    as much leaves each of two nodes, through NICs of the four GPUs, goes up to the core and down again."""
    plan = lay_out(on(4, 2, tensor=8, cluster=APART | {"placement": [0, 1024]}))
    machine = assembly.machine(plan)
    wiring = network(plan, machine, (0, 1024), "static")
    whole, ranks = T * H * 2, 8
    node = MICRO * ((10 * LAYERS + 5) * whole + T * ranks * 12) * 7 / 8
    tensor = wiring.flows.where(wiring.flows.kind == 4)
    assert tensor.size.sum() == pytest.approx(2 * node)
    assert np.bincount(tensor.source, tensor.size) == pytest.approx([node, node])
    classes = used(plan.scenario)
    assert {name: found["bytes"]["tensor"] for name, found in classes.items()} == dict.fromkeys(LINKS, 2 * node)
    assert classes["NIC out"]["links"] == 8 and classes["NIC out"]["bytes"].keys() == {"tensor"}


def test_bytes_of_a_context_ring_over_four_nodes_by_hand():
    """Keys and values of 1,024 tokens, 8 heads of 128: 4 MiB. Three hops forward, six backward, a layer."""
    pair = T // 4 * 2 * 8 * 128 * 2
    classes = used(on(1, 4, context=4, cluster=APART))
    expected = 4 * MICRO * LAYERS * 9 * pair
    assert {name: found["bytes"]["context"] for name, found in classes.items()} == dict.fromkeys(LINKS, expected)


def test_of_a_ring_with_two_ranks_a_node_one_of_them_sends():
    """Ranks pass to the next: every second one finds it on its node."""
    plan = lay_out(on(2, 2, context=4))
    found = network(plan, assembly.machine(plan)).flows
    sent = found.where(found.kind == 5)
    assert len(sent) == 2 and sorted(zip(sent.source.tolist(), sent.target.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_experts_whose_columns_are_shared_meet_their_like():
    """EP4 ETP2 on four nodes of two GPUs: a group is every second GPU, one a node."""
    mixture = {"base": "qwen3_30b_a3b", "layers": LAYERS}
    plan = lay_out(on(2, 4, 8, {"model": mixture}, tensor=2, expert=4, expert_tensor=2))
    machine = assembly.machine(plan)
    found = network(plan, machine).flows
    sent = found.where(found.kind == 0)
    assert set(zip(sent.source.tolist(), sent.target.tolist(), strict=True)) == {
        (a, b) for a in range(4) for b in range(4) if a != b
    }
    crossed = sum(c.wire for u in machine.units for d in "FBW" for c in crossings(machine, u, d) if c.group == "expert")
    assert sent.size.sum() == pytest.approx(8 * plan.micro_batches * crossed)


def wired(**cluster):
    scenario = on(2, 4, 8, tensor=4, cluster={"placement": "scattered", "routing": "ecmp", **cluster})
    return assembly.machine(lay_out(scenario))


def ops(machine):
    return [
        kernel.op for unit in machine.units for direction in "FBW" for part in machine.parts(unit, direction)
        for kernel in part.kernels if isinstance(kernel.op, Collective | Send)
    ]  # fmt: skip


def test_links_between_switches_slow_what_layers_send():
    """Four uplinks a leaf as fast as one NIC: hashed flows of tensor groups meet on them."""
    slow = {"base": "ndr", "link": {"bandwidth": "20 Gb/s"}}
    bare, hindered = wired(), wired(fabric=slow)
    assert hindered.hindrances.groups["tensor"] >= 1.0
    for before, after in zip(ops(bare), ops(hindered), strict=True):
        assert after.slower == max(1.0, hindered.hindrances.groups["tensor"]) and before.size == after.size


@pytest.mark.parametrize("parallel", [{"tensor": 4}, {"context": 4}, {"tensor": 2, "context": 4}])
def test_faster_links_are_never_slower(parallel):
    each = [
        run(
            on(2, 8, 8, cluster={"placement": "scattered", "routing": "ecmp",
               "fabric": {"base": "ndr", "link": {"bandwidth": f"{rate} Gb/s"}}}, **parallel),
            interval=False,
        ).summary["step_time_s"]
        for rate in (50, 100, 200, 400)
    ]  # fmt: skip
    assert all(slow >= fast for slow, fast in pairwise(each)) and each[0] > each[-1]


def test_messages_take_their_part_of_nics_from_what_layers_send():
    """An interleaved pipeline whose messages are beside compute: tensor groups over two nodes lose what those take."""
    more = {"schedule": {"name": "interleaved", "chunks": 2}, "overlap": {"pipeline": True}}
    plan = lay_out(on(2, 4, 8, more, tensor=4, pipeline=2))
    machine = assembly.machine(plan)
    left = machine.pricer.wires.left
    assert left < 1 and {op.slower for op in ops(machine) if op.wire_bytes()} == {1 / left}
    waiting = assembly.machine(lay_out(on(2, 4, 8, more | {"overlap": {"pipeline": False}}, tensor=4, pipeline=2)))
    assert {op.slower for op in ops(waiting)} == {1.0}


@pytest.mark.parametrize("detail", ["op", "layer", "chunk"])
def test_bytes_do_not_depend_on_detail(detail):
    plan = lay_out(on(2, 4, 8, {"detail": detail, "outputs": ["result", "events"]}, tensor=4, context=2))
    machine = assembly.machine(plan)
    use, said = links(plan, machine, run(plan.scenario, interval=False).spans)
    assert use is not None and said["classes"]["NIC out"]["bytes"]["context"] > 0
    assert ("tensor" in said["evenly_spread"]) == (detail == "chunk")
