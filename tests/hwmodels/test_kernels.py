"""Cards that a library was not measured on: priced by kernels of it that were published."""

import time

import pytest

from hwmodels import device, kernels, node
from hwmodels.collectives import wires
from hwmodels.device import Device
from hwmodels.document import Document
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from hwmodels.price import Pricer

LINKS = wires(node.load("h200x8"), None)
SQUARE = Gemm(8192, 8192, 8192, precision="bf16")
HEADS = Attention("forward", 1, 64, 16384, 128, 128, kv_heads=8)
STREAM = Memory("elementwise", 8192, 32768.0, 16384.0)


def pricer(card: str | Device, library: str = "torch", mode: str = "measured") -> Pricer:
    return Pricer(device.load(card) if isinstance(card, str) else card, LINKS, 0, mode, library=library)


@pytest.mark.parametrize(("name", "burst_us", "metered"), [
    ("a100", 4280, 1.0), ("a100_40gb", 4280, 1.0), ("b200", 699.7, 1.128), ("b300", 709.1, 1.128),
    ("gb200", 694.0, 1.126), ("gb300", 570.8, 1.15),
])  # fmt: skip
def test_products_run_as_published_ones_do(name: str, burst_us: float, metered: float) -> None:
    """8,192^3 in BF16 of NVIDIA aiconfigurator@095f58a51c4c (SGLang), and how much longer metered ones take."""
    price = pricer(name).price(SQUARE)
    assert price.ns / 1000 == pytest.approx(burst_us * metered, rel=0.085)
    assert price.rung == "interpolated" and "bf16 products" in price.source and 0.05 < price.spread < 0.11


def test_what_is_beyond_the_published_sizes_is_held() -> None:
    here = pricer("a100")
    assert here.price(Gemm(64, 8192, 8192, precision="bf16")).rung == "held"
    assert here.price(Gemm(64, 8192, 8192, precision="bf16")).spread >= 0.15
    assert here.price(Gemm(1024, 8192, 8192, precision="bf16")).rung == "interpolated"


def test_formats_have_prices_of_their_own() -> None:
    """As many times FP8's as TransformerEngine's on a B300, whatever a card's peak in NVFP4 is; and a judgement."""
    shape = Gemm(15872, 4096, 16384)
    for card in ("b200", "b300", "gb200", "gb300"):
        bf16, fp8, mx, nv = (
            pricer(card).price(shape._replace(precision=form)) for form in ("bf16", "fp8", "mxfp8", "nvfp4")
        )
        assert bf16.ns > 1.8 * fp8.ns and mx.ns / fp8.ns == pytest.approx(1.04, rel=0.01)
        assert nv.ns / fp8.ns == pytest.approx(0.536, rel=0.02)
        assert {mx.rung, nv.rung} == {"transferred"} and mx.spread == nv.spread == 0.25


@pytest.mark.parametrize(("name", "tflops"), [("b200", 5173), ("gb200", 5690), ("gb300", 6450)])
def test_products_in_nvfp4_are_about_as_fast_as_others(name: str, tflops: float) -> None:
    """8,192 x 16,384 x 8,192 of FlashInfer's CuTe kernel in SGLang 0.5.14 (ai-dynamo/aiconfigurator, 4,738, 5,166 and
    5,791 TFLOP/s) less what the cast of a side takes at 0.55 of HBM's bandwidth; another library's, and no input."""
    op = Gemm(8192, 16384, 8192, precision="nvfp4")
    rested = Pricer(device.load(name), LINKS, 0, library="torch", clock=1.0).price(op)
    assert op.flop() / rested.ns / 1e3 == pytest.approx(tflops, rel=0.13)


def test_a_clock_of_its_own_paces_a_published_card() -> None:
    """Products from a rested card on, where the SMs bind, and attention, whose rows are a rested card's."""
    one, two = (Pricer(device.load("gb200"), LINKS, 0, library="torch", clock=at) for at in (1.0, 1.2))
    assert two.price(SQUARE).ns / one.price(SQUARE).ns == pytest.approx(1.2, rel=0.01)
    assert two.price(HEADS).ns / one.price(HEADS).ns == pytest.approx(1.2, rel=1e-4)
    assert one.price(HEADS).ns == pytest.approx(pricer("gb200").price(HEADS).ns, rel=1e-4)
    alone = kernels.kernels(device.load("gb200"), "torch")
    assert alone is not None and pricer("gb200").price(SQUARE).ns / one.price(SQUARE).ns == pytest.approx(
        alone.products["bf16"].clock, rel=0.01
    )
    assert one.price(STREAM) == two.price(STREAM)


def test_grouped_products_are_a_little_slower_than_dense_ones() -> None:
    here = pricer("b200")
    grouped = here.price(GroupedGemm(8, 32768, 4096, 4096, "fprop", "bf16")).ns
    assert 1.04 < grouped / here.price(Gemm(32768, 4096, 4096, precision="bf16")).ns < 1.12


def test_attention_is_anothers_times_a_ratio() -> None:
    card, of = device.load("b200"), pricer("h200")
    own = kernels.kernels(card, "torch")
    assert own is not None
    carried = of.price(HEADS).ns * device.load("h200").peak_flops["bf16"] / card.peak_flops["bf16"]
    price = pricer(card).price(HEADS)
    assert price.ns == pytest.approx(carried * kernels.times(own, HEADS), rel=1e-3)
    assert price.rung == "transferred" and price.source.startswith("h200/torch/attention")
    # FlashAttention pull request 2280: 1,418 TFLOP/s forward of 16 heads, four sequences of 8,192, on a rested card
    op = Attention("forward", 4, 16, 8192, 128, 128)
    assert 1.0 < op.flop() / pricer(card).price(op).ns / 1418e3 * 1.3 < 1.2
    assert kernels.times(own, HEADS._replace(direction="backward")) == own.backward * kernels.times(own, HEADS)
    few, least = HEADS._replace(heads=1, kv_heads=0, sequence=512), HEADS._replace(heads=1, kv_heads=0, sequence=64)
    assert kernels.times(own, few) == kernels.times(own, least)  # held below what was published


def test_bytes_come_at_the_part_of_memory_that_published_kernels_reach() -> None:
    own = kernels.kernels(device.load("b200"), "torch")
    assert own is not None
    cast, plain = (pricer("b200").price(STREAM._replace(kind=kind)) for kind in ("convert", "elementwise"))
    least = STREAM.bytes() / 8e12 * 1e9
    assert cast.ns == pytest.approx(least / own.streams["casts"].part, rel=0.05)
    assert plain.ns == pytest.approx(least / own.streams["others"].part, rel=0.05)
    assert cast.spread == own.streams["casts"].spread and plain.spread == own.streams["others"].spread
    assert kernels.spread(own, None, STREAM) == 0.0


def test_other_hardware_moves_prices_as_its_parts_say() -> None:
    """Half the SMs do half the rate; memory of a tenth of the rate binds."""
    half = device.build(Document({"base": "b200", "sms": 74}))
    slow = device.build(Document({"base": "b200", "hbm": {"bandwidth": "0.1 TB/s"}}))
    whole = pricer("b200").price(SQUARE).ns
    assert pricer(half).price(SQUARE).ns == pytest.approx(2 * whole, rel=0.05)
    assert pricer(slow).price(SQUARE).ns > 4 * whole


def test_sms_that_communication_holds_are_lacking() -> None:
    card = device.load("b200")
    held = Pricer(card, LINKS, 20, library="torch")
    assert held.price(SQUARE).ns == pytest.approx(pricer("b200").price(SQUARE).ns * 148 / 128, rel=0.05)


def test_measured_cards_and_other_kernels_are_not_touched() -> None:
    for name in ("h200", "h100", "h800"):
        assert kernels.kernels(device.load(name), "torch") is None
        assert pricer(name).price(SQUARE).source.startswith("h200/torch/gemm")
    for name in ("a100", "mi300x"):
        assert pricer(name, "").price(SQUARE).rung == "roofline"
        assert pricer(name, mode="roofline").price(SQUARE).rung == "roofline"
    assert pricer("b200", "").price(SQUARE).source.startswith("h200/gemm.json")


def test_amds_cards_have_prices_from_rows() -> None:
    """Azure's guide: 1,223 TFLOP/s of an MI300X in FP8."""
    price = pricer("mi300x").price(SQUARE._replace(precision="fp8"))
    assert price.ns / 1000 == pytest.approx(SQUARE.flop() / 1223e12 * 1e6, rel=0.12)
    assert pricer("mi300x").price(SQUARE).rung == "transferred" and pricer("mi300x").price(SQUARE).spread == 0.35
    assert pricer("mi355x").price(SQUARE).rung == "interpolated"
    assert pricer("mi355x").price(STREAM).source.startswith("h200/torch/memory")


def test_models_are_small_and_quick() -> None:
    """CPU time: a card's model in 20 ms at most, a price in 50 us (of a hundred, so that no other job decides)."""
    files = list(kernels.FOLDER.glob(f"*/*/{kernels.FILE}"))
    assert len(files) == 8 and max(file.stat().st_size for file in files) < 10_000
    kernels.known.cache_clear()
    start = time.process_time()
    kernels.known()
    loaded = time.process_time()
    card, own = device.load("b200"), kernels.kernels(device.load("b200"), "torch")
    begun = time.process_time()
    for m in range(1024, 1124):
        kernels.quote(own, card, None, SQUARE._replace(m=m), True, 148, "cudnn")
    assert loaded - start < 0.1 and (time.process_time() - begun) / 100 < 250e-6
