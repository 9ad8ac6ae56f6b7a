"""Attention by kernel: how many times as long as cuDNN's each takes."""

import math

import pytest

from hwmodels import attention, device
from hwmodels.op import Attention, Gemm
from hwmodels.price import Pricer
from tests.hwmodels.test_kernels import LINKS, pricer

CASE = Attention("forward", 4, 32, 4096, 128, 128)


def by(card, kernel, op=CASE):
    found = Pricer(device.load(card), LINKS, 0, library="torch", attention=kernel).price(op)
    return found.ns / pricer(card).price(op).ns, found.spread


def test_flash_attention_2_takes_as_long_as_it_was_timed_to():
    """numerics/card/timed/attentions.json: 1,669.5 us where cuDNN's takes 906.3; backward 4,856.8 where it takes
    2,688.3. And as published: 319 TFLOP/s where cuDNN's reaches 518 (arXiv:2407.08608, figure 5)."""
    assert by("h200", "flash2")[0] == pytest.approx(1669.5 / 906.3, rel=0.02)
    assert by("h200", "flash2", CASE._replace(direction="backward"))[0] == pytest.approx(4856.8 / 2688.3, rel=0.02)
    assert by("h100", "flash2")[0] == pytest.approx(518 / 319, rel=0.15)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("width", [64, 96, 128, 160])
@pytest.mark.parametrize("length", [512, 3000, 65536])
def test_kernels_of_one_generation_keep_their_order(direction, width, length):
    """cuDNN's and FlashAttention-3 use Hopper's instructions, the others Ampere's."""
    op, card = Attention(direction, 1, 32, length, width, width), device.load("h100")
    ratio = {kernel: attention.off(card, kernel, op).ratio for kernel in attention.KERNELS}
    assert ratio["cudnn"] == 1 < ratio["flash2"] < ratio["triton"] and ratio["flash3"] < ratio["flash2"]


def test_between_two_lengths_lies_the_ratio_between_theirs():
    card = device.load("h100")
    low, middle, high = (
        attention.off(card, "flash2", CASE._replace(sequence=length)).ratio for length in (4096, 5793, 8192)
    )
    assert middle == pytest.approx((low + high) / 2, rel=1e-4)
    assert attention.off(card, "flash2", CASE._replace(sequence=1 << 20)) == attention.off(
        card, "flash2", CASE._replace(sequence=32768)
    )


def test_an_ampere_card_runs_flash_attention_2_as_it_was_published():
    for kernel in ("cudnn", "flash2"):
        assert by("a100", kernel) == (1.0, pricer("a100").price(CASE).spread)
    ratio, spread = by("a100", "triton")
    assert ratio == pytest.approx(math.sqrt(1.3 * 2.5), rel=1e-3) and spread > 0.2


def test_only_attention_of_a_library_differs():
    square = Gemm(8192, 8192, 8192, precision="bf16")
    assert by("h200", "triton", square)[0] == 1
    own = Pricer(device.load("h200"), LINKS, 0, attention="triton").price(CASE)
    assert own == Pricer(device.load("h200"), LINKS, 0).price(CASE)


MLA = Attention("forward", 2, 128, 4096, 192, 128)
V3_4096 = {  # ms of cuDNN's benchmark, forward and backward: BF16, FP8, MXFP8
    "gb200": ((0.977, 0.656, 0.714), (3.383, 2.112, 2.62)), "gb300": ((0.864, 0.493, 0.546), (3.127, 1.803, 2.348)),
}  # fmt: skip


@pytest.mark.parametrize("card", V3_4096)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_attention_in_fp8_keeps_its_distance_to_bf16(card, direction):
    """As published of V3's heads; the ratio is a median with Kimi's, which have half as many."""
    whole, *narrow = V3_4096[card][direction == "backward"]
    op = MLA._replace(direction=direction)
    for precision, ms in zip(("fp8", "mxfp8"), narrow, strict=True):
        ratio = pricer(card).price(op._replace(precision=precision)).ns / pricer(card).price(op).ns
        assert ratio == pytest.approx(ms / whole, rel=0.05)


def test_backward_in_fp8_skips_nothing_outside_of_a_window():
    op = Attention("backward", 2, 128, 8192, 64, 64, window=128)
    card = device.load("gb300")
    assert attention.off(card, "cudnn", op._replace(precision="mxfp8")).ratio == pytest.approx(6.648 / 0.862, rel=0.01)
    assert attention.off(card, "cudnn", op._replace(precision="mxfp8", direction="forward")).ratio < 1
    assert attention.off(card, "cudnn", op._replace(precision="mxfp8", window=8192)).ratio < 1.1  # no window at all


def test_cards_of_a_generation_go_by_the_one_with_their_chip():
    op = MLA._replace(precision="mxfp8")
    offs = {name: attention.off(device.load(name), "cudnn", op) for name in ("b200", "gb200", "b300", "gb300")}
    assert offs["b200"].ratio == offs["gb200"].ratio != offs["gb300"].ratio == offs["b300"].ratio
    assert offs["b200"].spread > offs["gb200"].spread
