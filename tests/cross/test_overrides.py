"""The what-ifs that the project promises, on the main scenario: each runs, and moves what it should."""

import pytest


def seconds(result):
    return result.summary["step_time_s"]


@pytest.fixture(scope="module")
def base(v3):
    return v3("detail=chunk")


def test_schedule(v3, base):
    """ZB1P exposes the expert exchange that DualPipe hides."""
    other = v3("detail=chunk", "schedule=zb1p")
    assert seconds(other) > seconds(base)
    assert other.summary["overlap_fraction"] == pytest.approx(0, abs=1e-12)
    assert base.summary["overlap_fraction"] > 0.8
    assert len(other.stages) == 16 and set(other.steps.phase.tolist()) == {0, 1, 3, 5}


def test_half_the_nodes(v3, base):
    """Half the GPUs, twice the micro-batches a pipeline: nearly twice as long, better by what the bubble was."""
    other = v3("detail=chunk", "cluster.nodes=128")
    assert other.summary["tokens_per_step"] == base.summary["tokens_per_step"] == 15360 * 4096
    assert 1.7 < seconds(other) / seconds(base) < 2
    assert other.summary["bubble_fraction"] < base.summary["bubble_fraction"]
    # 120 more forwards and backwards a rank and direction pair up in 120 more steps
    assert len(other.steps) - len(base.steps) == 16 * 120


def test_smaller_expert_groups(v3, base):
    """Twice the experts a rank: rank 8 holds stages 7 and 8, eight MoE layers with 256 experts of 44.04 M each."""
    fixed = "placement=[4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,1]"
    ours, theirs = (v3("detail=chunk", fixed, f"parallel.expert={e}").summary["peak_memory_bytes"][8] for e in (32, 64))
    more = 8 * (256 // 32 - 256 // 64) * 3 * 7168 * 2048
    assert ours["weights"] - theirs["weights"] == more * (1 + 4 / 128**2)  # a 4-byte scale each 128 x 128 block
    assert ours["gradients"] - theirs["gradients"] == 4 * more
    assert ours["optimizer states"] == theirs["optimizer states"]  # shards of everything, over all ranks alike


def test_communication_sms(v3, base):
    other = v3("detail=chunk", "comm.sms=12")
    assert other.summary["exposed_communication_s"] > base.summary["exposed_communication_s"]


def test_nic(v3, base):
    """Ports of the shipped fabric follow the NIC; a port speed that is stated holds it back."""
    nic = "cluster.node.nic.bandwidth=100GB/s"
    assert seconds(v3("detail=chunk", nic, "cluster.fabric.link.bandwidth=50GB/s")) == seconds(base)
    other = v3("detail=chunk", nic)
    assert seconds(other) < seconds(base)
    assert other.summary["exposed_communication_s"] < base.summary["exposed_communication_s"]


def test_precision(v3, base):
    """BF16 multiplies at half the rate and needs no casts; products are not all of a step."""
    other = v3("detail=chunk", "precision=bf16")
    assert 1.1 < seconds(other) / seconds(base) < 2
    assert other.summary["price_shares"]["transferred"] > base.summary["price_shares"]["transferred"]
    ours, theirs = (r.summary["peak_memory_bytes"][8] for r in (other, base))
    assert 1.9 < ours["weights"] / theirs["weights"] <= 2  # two bytes for one and its scales
    assert ours["gradients"] == theirs["gradients"]


def test_fits(base):
    assert base.feasible == (True, "")


@pytest.mark.parametrize("override", ["schedule=gpipe", "precision=bf16"])
def test_does_not_fit(v3, override):
    fits, why = v3("detail=chunk", override).feasible
    assert not fits
    assert why.startswith("does not fit in memory: a rank at position ") and "\n" not in why
    assert "H800 SXM has 80 GB; the largest part is activations with " in why
