"""Every machine that ships runs end to end, graded by what its prices come from, and faster hardware is no slower."""

from functools import cache

import pytest

from hwmodels import device, fabric, machines, node
from hwmodels.collectives import wires
from hwmodels.document import DocumentError
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from hwmodels.price import Pricer
from sim import simulation
from sim.scenario import from_mapping
from tests.test_docs import ROOT

NEW = {
    "a100x8_40gb": "ndr", "h20x8": "ndr", "b200x8": "ndr", "b300x8": "xdr", "gb200x72": "ndr", "gb300x72": "xdr",
    "mi300xx8": "ndr", "mi355xx8": "eth800",
}  # fmt: skip
"""Nodes beside those of the papers, and a fabric as fast as their NICs."""
FABRICS = ("ndr", "ndr_sharp", "xdr", "eth800")
FORM = {
    "name": "machines",
    "cluster": {"node": "h800x8", "nodes": 2, "fabric": "ndr"},
    "model": "deepseek_v2_lite",
    "precision": "bf16",
    "parallel": {"pipeline": 2, "expert": 8},
    "schedule": "zb1p",
    "batch": {"micro_batches": 4},
    "detail": "chunk",
    "outputs": ["result"],
}


@cache
def run(*overrides):
    return simulation.run(from_mapping(FORM, overrides), False).summary


def on(name, network=None, *more):
    return run(f"cluster.node={name}", f"cluster.fabric={network or NEW.get(name, 'ndr')}", *more)


def test_every_node_that_ships_is_known_here() -> None:
    assert set(node.available()) == {*NEW, "a100x8", "ascend_910b3x8", "h100x8", "h200x1", "h200x8", "h800x8"}


@pytest.mark.parametrize("network", FABRICS)
@pytest.mark.parametrize("name", NEW)
def test_v2_lite_runs_on_each_new_node_and_fabric(name: str, network: str) -> None:
    summary = on(name, network)
    assert summary["step_time_s"] > 0 and 0 < summary["mfu"]["causal"] < 1


@pytest.mark.parametrize("name", ["h20x8", "b200x8", "b300x8", "gb200x72", "gb300x72", "mi300xx8", "mi355xx8"])
def test_v3_runs_in_fp8_on_each_card_that_has_it(name: str) -> None:
    """Its dense and its expert layers, as many as give each position of eight a few."""
    v3 = ("model={base: deepseek_v3, layers: 24}", "precision=fp8", "schedule=dualpipe", "parallel.pipeline=8")
    assert on(name, None, *v3, "cluster.nodes=8", "placement=even", "batch.micro_batches=16")["step_time_s"] > 0


@pytest.mark.parametrize(("faster", "slower"), [
    ("b200x8", "h200x8"), ("h200x8", "h20x8"), ("h100x8", "h20x8"), ("b300x8", "h200x8"), ("gb200x72", "b200x8"),
    ("a100x8", "a100x8_40gb"), ("mi355xx8", "mi300xx8"), ("h200x8", "h800x8"),
])  # fmt: skip
def test_steps_are_in_the_order_of_peaks_and_links(faster: str, slower: str) -> None:
    """GPUs of a kind of price: of the tables of Hopper, or of the roofline; one to one, 16 against 16 or 72 sets."""
    assert on(faster, "ndr")["step_time_s"] < on(slower, "ndr")["step_time_s"]


def priced(name, op, mode="measured"):
    return Pricer(device.load(name), wires(node.load("h800x8"), None), 20, mode).price(op)


BOUND_BY_COMPUTE = [
    Gemm(8192, 8192, 8192, "fprop", "bf16"), GroupedGemm(8, 16384, 4096, 7168, "fprop", "bf16"),
    Attention("forward", 1, 128, 4096, 192, 128),
]  # fmt: skip
BOUND_BY_MEMORY = [Memory("elementwise", 65536, 14336.0, 14336.0), Gemm(16, 8192, 8192, "fprop", "bf16")]


@pytest.mark.parametrize("op", BOUND_BY_COMPUTE, ids=lambda op: type(op).__name__)
def test_products_and_attention_are_in_the_order_of_peaks(op) -> None:
    """GB200 2,500, B200 2,250, H200 989, H20 148 TFLOP/s; MI355X 2,516, MI300X 1,307, A100 312."""
    for cards in (("gb200", "b200", "h200", "h20"), ("mi355x", "mi300x", "a100")):
        times = [priced(card, op).ns for card in cards]
        assert times == sorted(times) and len(set(times)) == len(times)


def test_copies_are_in_the_order_of_bandwidths() -> None:
    """B200 8, H200 4.8, H20 4, H100 3.35, A100 2.039, A100 40 GB 1.555 TB/s. An H20 beats an A100 where memory binds,
    though it computes at half its rate."""
    times = [priced(card, BOUND_BY_MEMORY[0]).ns for card in ("b200", "h200", "h20", "h100")]
    assert times == sorted(times) and len(set(times)) == len(times)
    for op in BOUND_BY_MEMORY:
        times = [priced(card, op, "roofline").ns for card in ("h20", "a100", "a100_40gb")]
        assert times == sorted(times) and len(set(times)) == len(times)
    assert priced("h20", BOUND_BY_MEMORY[0]).ns < priced("a100", BOUND_BY_MEMORY[0]).ns
    assert priced("h20", BOUND_BY_COMPUTE[0]).ns > priced("a100", BOUND_BY_COMPUTE[0]).ns


@pytest.mark.parametrize(("m", "n", "k", "us"), [
    (1024, 6144, 2048, 106.11), (4096, 6144, 2048, 384.14), (32768, 6144, 2048, 3015.0),
])  # fmt: skip
def test_products_of_an_h20_reach_more_of_its_small_peak(m: int, n: int, k: int, us: float) -> None:
    """alibaba/InferSim@f2293dab6d23 (DeepGEMM on an H20); with the rate of an H800's SMs held it would be longer."""
    op = Gemm(m, n, k)
    price = Pricer(device.load("h20"), wires(node.load("h20x8"), None), 0).price(op)
    assert price.ns / 1000 == pytest.approx(us, rel=0.15)
    slow = Pricer(device.load("h800"), wires(node.load("h20x8"), None), 0).price(op).ns
    assert price.ns < 132 / 78 * slow * (1979 / 132) / (296 / 78)


@pytest.mark.parametrize("op", [*BOUND_BY_COMPUTE, BOUND_BY_MEMORY[0]], ids=lambda op: type(op).__name__)
def test_prices_by_siblings_say_so_and_are_as_wide_as_they_were_found_to_be(op) -> None:
    for card in ("b200", "b300", "gb200", "gb300"):
        price = priced(card, op)
        assert price.rung == "transferred" and any(f"from {t}" in price.source for t in ("h800", "h200", "h100"))
        assert price.spread > priced("h100", op).spread and price.spread >= 0.15
    for card in ("a100_40gb", "mi300x", "mi355x"):
        fp8 = {"mi300x": 2.45, "mi355x": 1.44}.get(card, 1.0) if getattr(op, "precision", "") == "fp8" else 1.0
        assert (priced(card, op).rung, priced(card, op).spread) == ("roofline", fp8)
    assert priced("h20", op).rung == "transferred"
    if not isinstance(op, Memory):
        assert priced("h20", op).spread >= 0.15


@pytest.mark.parametrize(("name", "rungs"), [
    ("b200x8", {"transferred"}), ("h20x8", {"transferred", "interpolated"}), ("mi300xx8", {"roofline"}),
])  # fmt: skip
def test_a_step_is_graded_by_what_its_prices_come_from(name: str, rungs: set[str]) -> None:
    assert set(on(name)["price_shares"]) <= rungs


RATES = {
    "cluster.node.nic.bandwidth": lambda n: n.nic.bandwidth,
    "cluster.node.nvlink.bandwidth": lambda n: n.nvlink.bandwidth,
    "cluster.node.device.hbm.bandwidth": lambda n: n.device.hbm.bandwidth_bytes_per_s,
    "cluster.node.device.peak_flops.bf16": lambda n: n.device.peak_flops["bf16"],
}


@pytest.mark.parametrize("key", RATES)
@pytest.mark.parametrize("name", NEW)
def test_twice_a_rate_is_never_slower(name: str, key: str) -> None:
    unit = "FLOP/s" if "peak" in key else "B/s"
    twice = f"{key}={2 * RATES[key](node.load(name)):.0f}{unit}"
    fixed = "placement=even"  # balanced layers may move with prices
    assert on(name, None, fixed, twice)["step_time_s"] <= on(name, None, fixed)["step_time_s"]


def test_oversubscribed_leaves_are_felt_without_asking_for_routing() -> None:
    """Expert groups of eight nodes on leaves of twelve: every second one crosses, through a third of the ports."""
    wide = ("cluster.nodes=48", "parallel.expert=64", "cluster.fabric.radix=16")
    even, blocking = (on("b200x8", "ndr", *wide, *more) for more in ((), ("cluster.fabric.oversubscription=3",)))
    assert blocking["step_time_s"] > even["step_time_s"]


@pytest.mark.parametrize(("overrides", "line"), [
    (("cluster.nodes=8", "parallel.expert=16"), "groups of 16 ranks straddle nodes of 72 GPUs (an NVLink domain); "
     "legal: divisors and multiples of 72, or use 64 of its GPUs: cluster.node.gpus=64"),
    (("cluster.nodes=32", "parallel.pipeline=1", "parallel.expert=64", "model.experts=64"), "groups of 64 ranks"),
])  # fmt: skip
def test_expert_groups_do_not_straddle_a_rack(overrides: tuple[str, ...], line: str) -> None:
    with pytest.raises(DocumentError, match="straddle") as caught:
        on("gb200x72", "ndr", *overrides)
    assert line in str(caught.value)
    assert "cluster.node.gpus=64" in str(caught.value)


def test_a_rack_takes_experts_inside_it() -> None:
    """64 of its 72 GPUs exchange over NVLink alone, and any divisor of 72 does."""
    whole = on("gb200x72", "ndr", "cluster.nodes=2", "parallel.expert=8")
    part = run("cluster.node={base: gb200x72, gpus: 64}", "cluster.fabric=ndr", "parallel.expert=64")
    assert whole["step_time_s"] > 0 and part["step_time_s"] > 0


def test_the_page_of_machines_is_what_the_documents_say() -> None:
    assert (ROOT / machines.PAGE).read_text(encoding="utf-8") == machines.page() + "\n"


def test_the_page_has_every_document() -> None:
    page = machines.page()
    assert not [n for n in (*device.available(), *node.available(), *fabric.available()) if f"/{n}\n" not in page]
