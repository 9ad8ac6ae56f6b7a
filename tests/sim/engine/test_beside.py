"""Compute beside reductions of the network lane: which part of which step they cover, and what that costs."""

from sim import assembly
from sim.engine.actor import Sync
from sim.engine.beside import PARTS, covered
from sim.engine.lowering import lower
from sim.layout.plan import lay_out
from sim.scenario import from_mapping
from sim.step.template import STREAMS


def test_reductions_cover_what_they_take_from_when_they_are_made():
    """Two begin in the second step, at 10 + 4 and, behind the first, at 20; the third in the last, at 35; that which is
    not early covers nothing."""
    sync = Sync(((1, 0, 6), (1, 1, 8), (3, 2, 50), (0, 3, 99)), early={0: 4, 1: 5, 2: 5})
    assert covered([10, 10, 10, 10], sync) == [0.0, 0.6, 0.8, 0.5]


def lowered(gradients, stack="megatron", **more):
    plan = lay_out(from_mapping({
        "cluster": {"node": "h100x8", "nodes": 2}, "model": {"base": "llama3_8b", "layers": 8}, "precision": "bf16",
        "stack": {"name": stack, "cuda_graphs": True}, "parallel": {"zero": 1}, "overlap": {"gradients": gradients},
        "batch": {"sequences": 32, "sequence_length": 4096, "micro_batch": 1}, "outputs": ["result"], **more,
    }))  # fmt: skip
    return lower(plan, assembly.machine(plan))


def test_the_last_backward_goes_slower_by_the_part_that_is_covered():
    """Of two micro-batches; kernels take as much longer as they do beside communication, in that part of their time."""
    own, apart = lowered(True, overlap={"gradients": True, "buckets": "100 MB"}), lowered(False)
    times = [[kit.timing.total for kit in each.kits[0]] for each in (own, apart)]
    assert times[0][:3] == times[1][:3] and times[0][3] > times[1][3]
    (sync,) = lowered(True, overlap={"gradients": True, "buckets": "100 MB"}, pricing="roofline").syncs
    assert sync.early  # nothing is slower where nothing contends
    slow, fast = own.kits[0][3], apart.kits[0][3]
    eighths = {
        round((a - b) / (c - b) * PARTS, 1)
        for lane in STREAMS
        for a, b, c in zip(slow.fine.alone[lane], fast.fine.alone[lane], fast.fine.beside[lane], strict=True)
        if c - b > 1000
    }
    assert len(eighths) == 1 and eighths <= set(range(1, PARTS + 1))
