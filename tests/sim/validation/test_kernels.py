"""Kernels alone: products on all SMs, and ratios of the chip."""

import pytest

from sim.validation import kernels
from sim.validation.reference import Reference


@pytest.fixture(scope="module")
def pricer():
    return Reference("v3_2048gpu").machine.pricer


def test_products_run_on_all_sms(pricer):
    """2112 columns: 17 x 32 tiles are 5 waves of 112 and of 132; 7168: 56 x 32 are 16 and 14."""
    few = pricer.price(kernels.Gemm(4096, 2112, 7168))
    many = kernels.product(pricer, 4096, 2112, 7168)
    assert many.value == pytest.approx(2 * 4096 * 2112 * 7168 / few.ns / 1e3, rel=1e-6)
    less = pricer.price(kernels.Gemm(4096, 7168, 2048))
    more = kernels.product(pricer, 4096, 7168, 2048)
    assert more.value == pytest.approx(2 * 4096 * 7168 * 2048 / less.ns / 1e3 * 16 / 14, rel=1e-4)


def test_grouped_rows_are_those_of_all_groups(pricer):
    """The same rows in twice the groups cost the same: the groups here are whole tiles."""
    four, eight = (kernels.product(pricer, 32768 // g, 4096, 7168, g, grouped=True) for g in (4, 8))
    assert four == eight
    assert four.low < four.value < four.high


def test_peaks_scale_with_sms(pricer):
    device = pricer.device
    assert kernels.peak(device, "fp8", device.sms).value == pytest.approx(device.peak_flops["fp8"] / 1e12)
    assert kernels.peak(device, "bf16", 66).value == pytest.approx(device.peak_flops["bf16"] / 2e12)


def test_ratios_of_the_memory_hierarchy(pricer):
    device = pricer.device
    assert kernels.latency_ratio(device).value * device.shared_memory.latency_s == pytest.approx(device.l2.latency_s)
    assert kernels.capacity_root(device).value ** 2 == pytest.approx(50 * 1024 / 256)
