"""What travels between positions, and over which links, in two orders of the axes, by hand.

Two nodes of eight, four positions of four replicas; 512 tokens of 8192 numbers in BF16 are 8 MiB a message.
"""

import pytest

from sim import assembly
from sim.layout import optimizer
from sim.layout.plan import lay_out
from sim.scenario import SCENARIOS, load
from sim.simulation import run

LLAMA = str(SCENARIOS / "llama3_70b.yaml")
SMALL = ("cluster.nodes=2", "parallel.pipeline=4", "batch.sequences=32", "batch.sequence_length=512",
         "model.layers=8", "outputs=[result]")  # fmt: skip
USUAL, INSIDE = "parallel.order=tp-cp-ep-dp-pp", "parallel.order=tp-cp-ep-pp-dp"
SIZE = 512 * 8192 * 2


def laid_out(*words):
    plan = lay_out(load(LLAMA, [*SMALL, *words]))
    return plan, assembly.machine(plan)


@pytest.mark.parametrize(("order", "leaves"), [(USUAL, [False, True, False]), (INSIDE, [False, False, False])])
def test_messages_stay_on_a_node_where_the_pipeline_lies_inside(order, leaves):
    """Usually positions 0 and 1 are on one node and 2 and 3 on the other; inside, each node has two whole pipelines."""
    plan, machine = laid_out(order)
    sends = [machine.message(plan.mesh, *ends) for ends in plan.messages.ends]
    assert [(send.size, send.leaves_node) for send in sends] == [(SIZE, leaf) for leaf in leaves]
    assert [send.wire_bytes() for send in sends] == [SIZE * leaf for leaf in leaves]


def test_bytes_on_links_follow_the_order():
    """With pipelines inside nodes messages are on NVLink, and rings of four ranks go over two nodes: each rank's NIC
    passes half of what the rank sends. Each has a quarter of the layers, two of eight, and position 0 the embedding."""
    tables = [run(load(LLAMA, [*SMALL, order]), False).summary["communication"] for order in (USUAL, INSIDE)]
    (usual, usual_ring, *_), (inside, inside_ring, *_) = tables
    assert (usual["wire_bytes"], usual["nvlink_bytes"]) == (SIZE, 0)
    assert (inside["wire_bytes"], inside["nvlink_bytes"]) == (0, SIZE)
    assert usual_ring["logical_bytes"] == inside_ring["logical_bytes"]
    assert (usual_ring["wire_bytes"], inside_ring["wire_bytes"]) == (0, inside_ring["logical_bytes"] / 2)
    plan, machine = laid_out(INSIDE)
    assert [(ring.ranks, ring.nodes) for ring in optimizer.reduce_rings(plan, machine, 0)[:1]] == [(4, 2)]


def test_a_message_goes_as_far_as_that_of_any_replica():
    """Pipelines of three ranks over nodes of eight: ranks 0 to 2 are on a node, 6 to 8 are not; and 21 to 23 are."""
    plan, machine = laid_out("cluster.nodes=3", "parallel.pipeline=3", "batch.sequences=48", INSIDE)
    nodes = [[plan.mesh.node(plan.mesh.rank(position, replica)) for position in range(3)] for replica in range(8)]
    assert (nodes[0], nodes[2], nodes[5], nodes[7]) == ([0, 0, 0], [0, 0, 1], [1, 2, 2], [2, 2, 2])
    assert [machine.message(plan.mesh, *ends).leaves_node for ends in plan.messages.ends] == [True, True]
