"""Nodes: published bandwidths, and provenance on every number."""

import pickle

import pytest

from hwmodels import device, node
from hwmodels.document import Document, DocumentError
from hwmodels.figure import KINDS

NODES = [node.load(name) for name in node.available()]


def test_the_h800_node_is_the_one_deepseek_describes() -> None:
    """Insights into DeepSeek-V3, arXiv:2505.09343, sec. 4.2 and 4.3: 160 of 200 GB/s, 40 of 50, so 4 to 1."""
    found = node.load("h800x8")
    assert (found.gpus, found.nics_per_gpu, found.device) == (8, 1, device.load("h800"))
    assert (found.nvlink.bandwidth, found.nic.bandwidth, found.pcie.bandwidth) == (200e9, 50e9, 64e9)
    assert (found.nvlink.effective, found.nic.effective) == pytest.approx((160e9, 40e9))
    assert found.nvlink.effective / found.nic.effective == pytest.approx(4)
    assert (found.nvlink.latency_s, found.nic.latency_s) == pytest.approx((3.33e-6, 2.8e-6))


@pytest.mark.parametrize(("name", "gpu", "nvlink", "nic", "pcie"), [
    ("h100x8", "h100", 450e9, 50e9, 64e9), ("h200x8", "h200", 450e9, 50e9, 64e9), ("a100x8", "a100", 300e9, 25e9, 32e9),
    ("a100x8_40gb", "a100_40gb", 300e9, 25e9, 32e9), ("h20x8", "h20", 450e9, 25e9, 64e9),
    ("b200x8", "b200", 900e9, 50e9, 64e9), ("b300x8", "b300", 900e9, 100e9, 64e9),
    ("gb200x72", "gb200", 900e9, 50e9, 225e9), ("gb300x72", "gb300", 900e9, 100e9, 225e9),
    ("mi300xx8", "mi300x", 448e9, 50e9, 64e9), ("mi355xx8", "mi355x", 538e9, 50e9, 64e9),
])  # fmt: skip
def test_the_other_nodes(name: str, gpu: str, nvlink: float, nic: float, pcie: float) -> None:
    found = node.load(name)
    assert found.device == device.load(gpu)
    assert (found.nvlink.bandwidth, found.nic.bandwidth, found.pcie.bandwidth) == (nvlink, nic, pcie)


@pytest.mark.parametrize("found", NODES, ids=node.available())
def test_every_number_says_kind_and_source(found: node.Node) -> None:
    expected = {"gpus", "nics_per_gpu"}
    expected |= {f"{link}.{part}" for link in node.LINKS for part in ("bandwidth", "efficiency", "latency")}
    expected |= {"nvlink.peers"} if found.nvlink.peers else set()
    expected |= {"launch.forward", "launch.backward"} & found.figures.keys()
    assert set(found.figures) == expected
    assert all(figure.kind in KINDS and len(figure.source) > 10 for figure in found.figures.values())


@pytest.mark.parametrize("found", NODES, ids=node.available())
def test_links_lose_something_and_host_and_pcie_agree(found: node.Node) -> None:
    for link in (found.nvlink, found.nic, found.pcie):
        assert 0 < link.effective < link.bandwidth
    assert found.pcie.bandwidth == found.device.host.bandwidth_bytes_per_s
    assert found.nvlink.bandwidth > found.nic.bandwidth


def test_domains_links_and_their_names() -> None:
    """NVLink domains of 72; one GPU by itself;
    AMD's GPUs in a full mesh, of which two that talk to each other have one link in seven."""
    assert {name: found.gpus for name, found in zip(node.available(), NODES, strict=True) if found.gpus != 8} == {
        "gb200x72": 72, "gb300x72": 72, "h200x1": 1,
    }  # fmt: skip
    mesh = {name: found for name, found in zip(node.available(), NODES, strict=True) if found.nvlink.peers}
    assert {name: n.nvlink.name for name, n in mesh.items()} == {
        "mi300xx8": "Infinity Fabric", "mi355xx8": "Infinity Fabric", "ascend_910b3x8": "HCCS",
    }  # fmt: skip
    link = mesh["mi300xx8"].nvlink
    assert [link.between(n) / link.effective for n in (2, 4, 8, 64)] == pytest.approx([1 / 7, 3 / 7, 1, 1])
    switched = node.load("b200x8").nvlink
    assert (switched.name, switched.between(2)) == ("NVLink", switched.effective)


def test_a_node_may_name_another_device_or_change_a_part_of_its_own() -> None:
    swapped = node.build(Document({"base": "h800x8", "device": "h200"}))
    assert swapped.device == device.load("h200") and swapped.nvlink == node.load("h800x8").nvlink
    assert "fp8" not in node.build(Document({"base": "h800x8", "device": "a100"})).device.peak_flops
    older = node.build(Document({"base": "h800x8", "device": {"base": "a100", "sms": 100}})).device
    assert (older.sms, older.name, "fp8" in older.peak_flops) == (100, "A100 SXM 80 GB", False)
    faster = node.build(Document({"base": "h800x8", "device": {"hbm": {"bandwidth": "4 TB/s"}}}))
    assert faster.device.hbm.bandwidth_bytes_per_s == 4e12
    assert faster.device.l2 == device.load("h800").l2
    assert pickle.loads(pickle.dumps(faster)) == faster and hash(faster)


def test_what_is_wrong_with_node_and_device_is_told_together() -> None:
    wrong = Document({"base": "h800x8", "nic": {"efficiency": "120 %"}, "device": {"clock": "2 s"}})
    with pytest.raises(DocumentError) as caught:
        node.build(wrong, ("cluster", "node"))
    assert str(caught.value).splitlines() == [
        "<mapping>: cluster.node.nic.efficiency: expected a ratio from 0 to 1; found 1.2",
        "<mapping>: cluster.node.device.clock: '2 s' is time, expected frequency (e.g. \"1.83 GHz\")",
    ]


@pytest.mark.parametrize("said", [0.5, {"value": 0.5, "kind": "datasheet", "source": "four NICs for eight GPUs"}])
def test_nics_that_gpus_share_are_told_how_to_be_said(said: object) -> None:
    with pytest.raises(DocumentError) as caught:
        node.build(Document({"base": "h800x8", "nics_per_gpu": said}))
    text = str(caught.value)
    assert "found 0.5" in text and "nics_per_gpu: 1" in text and text.endswith("nic.bandwidth=25GB/s")
    assert node.build(Document({"base": "h800x8", "nic": {"bandwidth": "25GB/s"}})).nic.effective == 20e9


def test_nodes_that_say_nothing_of_launching_have_the_measured_host() -> None:
    assert node.load("h200x1").launch == node.load("h800x8").launch
