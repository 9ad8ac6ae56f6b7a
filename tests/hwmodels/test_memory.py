"""What memory asks of kernels: the L2 cache before HBM, operands that do not fit, the first bytes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import device, node, op
from hwmodels.collectives import wires
from hwmodels.device import Device
from hwmodels.document import Document
from hwmodels.memory import first_bytes_us, streaming, traffic
from hwmodels.op import Gemm, Op
from hwmodels.price import Pricer
from hwmodels.tables import load

H800 = device.load("h800")
CAST, THIN, SQUARE = op.cast(4096, 7168), Gemm(128, 7168, 512), Gemm(8192, 8192, 8192)
SIZES = st.integers(1, 1 << 16)


def changed(level: str, **figures: str) -> Device:
    return device.build(Document({"base": "h800", level: figures}))


def ns(found: Device, work: Op, mode: str = "measured") -> int:
    return Pricer(found, wires(node.load("h800x8"), None), 20, mode).price(work).ns


def test_what_comes_from_hbm_passes_the_l2_cache() -> None:
    for name in device.available():
        assert streaming(device.load(name)) == device.load(name).hbm.bandwidth_bytes_per_s
    narrow = changed("l2", bandwidth="335 GB/s")
    assert streaming(narrow) == 335e9
    # as slow as with memory of that rate
    assert ns(narrow, CAST) == ns(changed("hbm", bandwidth="335 GB/s"), CAST) > 6 * ns(H800, CAST)


@given(SIZES, SIZES, SIZES, st.sampled_from(["fp8", "bf16"]))
def test_operands_that_fit_are_read_once(m: int, n: int, k: int, precision: str) -> None:
    """And no cache of a card that ships makes a product of the model wait for memory that did not before."""
    product = Gemm(m, n, k, "fprop", precision)
    if product.bytes() <= H800.l2.capacity_bytes:
        assert traffic(H800, product) == product.bytes()


def test_a_small_cache_reads_operands_again() -> None:
    """By the bound for square blocks that fill it: three of a side b are 3 b^2 elements, each is read n / b times."""
    small = changed("l2", capacity="64 KiB")
    least = SQUARE.flop() / math.sqrt(65536) - 2 * 65536
    assert traffic(small, SQUARE) == pytest.approx(least) and least > 10 * SQUARE.bytes()
    side = math.isqrt(65536 // 3)
    assert least < 2 * 8192**3 / side  # what such blocks read
    rate = 3.35e12 * load("h800").streamed
    each_tile_alone = 2 * 8192**3 / 128 + SQUARE.bytes()
    assert least / rate * 1e9 <= ns(small, SQUARE) <= each_tile_alone / (0.88 * 3.35e12) * 1e9 + ns(H800, SQUARE)
    assert ns(small, SQUARE, "roofline") == pytest.approx(least / 3.35e12 * 1e9, rel=1e-2)
    assert traffic(small, CAST) == CAST.bytes()


def test_a_third_level_is_the_cache_that_counts() -> None:
    """Operands that fit it are read once from HBM, whatever the L2 caches hold; and its rate is the most there is."""
    shared = {"capacity": "256 MiB", "latency": "200 ns", "bandwidth": "0.5 TB/s"}
    both = device.build(Document({"base": "h800", "l2": {"capacity": "64 KiB"}, "l3": shared}))
    assert traffic(both, SQUARE) == SQUARE.bytes() < traffic(changed("l2", capacity="64 KiB"), SQUARE)
    assert streaming(both) == 0.5e12


@pytest.mark.parametrize("work", [CAST, SQUARE, op.small("tiny", 1, 0.0, 3)])
def test_a_kernel_waits_for_its_first_bytes(work: Op) -> None:
    """Tables contain the latency of their card, so only what is beyond it adds; without tables all of it does."""
    slow = changed("hbm", latency="1261.6 ns")
    assert ns(slow, work) - ns(H800, work) == pytest.approx(1000 * work.kernels, abs=1)
    assert ns(slow, work, "roofline") - ns(H800, work, "roofline") == pytest.approx(1000 * work.kernels, abs=1)
    assert first_bytes_us(H800, load("h800"), work) == 0.0
    assert first_bytes_us(device.load("h200"), load("h800"), work) == 0.0
