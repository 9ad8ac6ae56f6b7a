"""What binds: by hand, and of runs whose answer is known."""

import pytest

import sim
from sim.analysis.binding import RESOURCES, binds
from sim.result import Bar
from sim.result.figures import legal

BARS = (Bar("ideal compute", 4.0, ""), Bar("product efficiency", 2.0, ""), Bar("memory-bound kernels", 3.0, ""),
        Bar("exposed communication", 0.5, ""), Bar("pipeline fill", 0.5, ""))  # fmt: skip
SUMMARY = {
    "step_time_s": 10.0, "overlap_fraction": 0.9, "exposed_communication_s": 0.5,
    "communication": [{"alone_s": 1.0, "limited_by": "NVLink"}, {"alone_s": 1.0, "beside_s": 2.0, "limited_by": "NIC"}],
}  # fmt: skip


def test_the_largest_then_the_next_then_what_is_hidden():
    """9 s of compute hide 5 s of communication, of which half a second is seen."""
    told = binds(BARS, SUMMARY)
    assert (told["resource"], told["seconds"], told["share"]) == ("tensor cores", 6.0, 0.6)
    assert told["next"] == {"resource": "memory bandwidth", "seconds": 3.0, "share": 0.3}
    assert told["hidden_times"] == pytest.approx(9 / 5)
    assert told["line"] == (
        "bound by tensor cores: 60 % of the step; next memory bandwidth, 30 %; communication (NIC) is hidden, and "
        "would fill the steps at 1.8 times as long"
    )


def test_communication_of_which_little_is_hidden_is_not_said_to_be():
    told = binds(BARS, SUMMARY | {"overlap_fraction": 0.005})
    assert told["hidden_times"] is None and "hidden" not in told["line"]


def test_communication_that_binds_says_over_what():
    bars = (BARS[0], Bar("exposed communication", 5.0, ""), Bar("contention", 1.0, ""))
    told = binds(bars, SUMMARY | {"exposed_communication_s": 5.0, "overlap_fraction": 0.0})
    assert told["line"] == "bound by communication (NIC): 60 % of the step; next tensor cores, 40 %"
    assert told["hidden_times"] is None


def test_one_resource_alone_has_no_next():
    told = binds(
        (Bar("compute", 2.0, ""),), {"step_time_s": 2.0, "overlap_fraction": None, "exposed_communication_s": 0}
    )
    assert told["next"] is None and told["line"] == "bound by compute: 100 % of the step"


@pytest.mark.parametrize(("words", "resource"), [
    ([], "tensor cores"), (["cluster.node.nvlink.bandwidth=10GB/s"], "communication"),
    (["cluster.node.device.hbm.bandwidth=0.2TB/s"], "products far below peak"),
])  # fmt: skip
def test_what_is_made_slow_binds(words, resource):
    told = sim.run("v2_lite_one_node", ["outputs=[result]", *words], interval=False)
    assert told.summary["binds"]["resource"] == resource


def test_every_bar_has_a_resource_and_every_key_a_sentence():
    result = sim.run("v2_lite_one_node", "outputs=[result]", interval=False)
    assert {bar.name for bar in result.waterfall} <= RESOURCES.keys()
    told = result.summary["binds"]
    for key in ("resource", "seconds", "share", "hidden_times", "line", "next.resource", "next.seconds", "next.share"):
        assert legal(f"binds.{key}")
    assert told["share"] >= told["next"]["share"] and told["seconds"] <= result.summary["step_time_s"]


def test_chunk_times_are_bound_by_chunks_or_the_pipeline():
    assert sim.run("zb_chunk_times", interval=False).summary["binds"]["line"].startswith("bound by compute: ")
