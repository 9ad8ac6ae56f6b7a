"""Products by rounds of tiles: closed forms, directions, and what more of anything costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.op import Gemm, GroupedGemm
from hwmodels.tiles import Card, Shape, Tiles, either, product_us, shape

CARD = Card(100, 10e12, 1e12)
PLAIN = Tiles(fixed_us=2.0, part=0.5, edge=0.0, tile_us=0.0, whole=1.0, hbm=1.0)
SIDES = st.integers(256, 32768)


def us(tiles: Tiles, work: Shape, card: Card = CARD, slower: float = 1.0) -> float:
    return product_us(tiles, work, card, slower)


def test_a_round_of_the_smallest_tiles_is_the_time_of_one() -> None:
    """One tile of 64 by 64 in each of 100 SMs: 2 x 64 x 64 x 4096 FLOP at half of 10 TFLOP/s."""
    work = Shape(1, 640, 640, 4096, 0.0)
    assert us(PLAIN, work) == pytest.approx(2 + 2 * 64 * 64 * 4096 / 5e12 * 1e6)


def test_a_round_that_is_not_full_counts_in_part() -> None:
    """101 tiles of 64 x 64 in one dimension need two rounds, or a hundredth more than one."""
    work = Shape(101, 64, 64, 4096, 0.0)
    one = 2 * 64 * 64 * 4096 / 5e12 * 1e6
    assert us(PLAIN, work) == pytest.approx(2 + 2 * one)
    assert us(PLAIN._replace(whole=0.0), work) == pytest.approx(2 + 1.01 * one)
    assert us(PLAIN._replace(whole=0.5), work) == pytest.approx(2 + 1.505 * one)


def test_bytes_bind_where_there_are_more_of_them() -> None:
    work = Shape(1, 64, 64, 64, 1e9)
    assert us(PLAIN, work) == pytest.approx(2 + 1000)
    assert us(PLAIN._replace(hbm=0.5), work) == pytest.approx(2 + 2000)
    assert either(3.0, 3.0) == pytest.approx(3 * 2**0.25) and either(0.0, 5.0) == 5.0


def test_a_clock_slows_what_sms_do_and_no_bytes() -> None:
    inside, bytes_bound = Shape(1, 8192, 8192, 8192, 1.0), Shape(1, 64, 64, 64, 1e9)
    assert us(PLAIN, inside, slower=1.2) - 2 == pytest.approx(1.2 * (us(PLAIN, inside) - 2))
    assert us(PLAIN, bytes_bound, slower=1.2) == pytest.approx(us(PLAIN, bytes_bound), rel=1e-6)


@given(SIDES, SIDES, SIDES, st.floats(0, 1), st.floats(0, 1), st.floats(0, 5))
def test_more_work_takes_longer_and_more_sms_less(
    m: int, n: int, k: int, whole: float, edge: float, tile: float
) -> None:
    tiles = Tiles(3.0, 0.7, edge, tile, whole, 0.6)
    here = us(tiles, shape(Gemm(m, n, k, precision="bf16")))
    assert here <= us(tiles, shape(Gemm(2 * m, n, k, precision="bf16")))
    assert here <= us(tiles, shape(Gemm(m, n, 2 * k, precision="bf16")))
    assert here >= us(tiles, shape(Gemm(m, n, k, precision="bf16")), CARD._replace(sms=200)) * 0.99999
    assert here >= 3.0 + 2.0 * m * n * k / (0.7 * CARD.sms * CARD.flops) * 1e6 * 0.99999


def test_directions_are_products_of_their_own_shapes() -> None:
    """An input's gradient costs what the transposed product does; a weight's adds to FP32 besides, or does not."""
    assert shape(Gemm(4096, 1024, 8192, "dgrad", "bf16")) == shape(Gemm(4096, 1024, 8192, "fprop", "bf16"))
    plain = shape(Gemm(1024, 8192, 4096, "wgrad", "bf16", result="bf16"))
    added = shape(Gemm(1024, 8192, 4096, "wgrad", "bf16"))
    assert plain == shape(Gemm(1024, 8192, 4096, "fprop", "bf16")) == added._replace(accumulated=0.0)
    more = product_us(PLAIN, added, CARD, accumulate=0.8) - product_us(PLAIN, plain, CARD)
    assert more == pytest.approx(0.8 * 8 * 1024 * 8192 / 1e12 * 1e6)


def test_groups_fill_tiles_of_their_own() -> None:
    """Eight products of 1,024 rows cost what one of 8,192 does, apart from bytes; of 8 rows, far more than theirs."""
    one, eight = Gemm(8192, 4096, 4096, precision="bf16"), GroupedGemm(8, 8192, 4096, 4096, "fprop", "bf16")
    assert us(PLAIN, shape(eight)._replace(size=0.0)) == pytest.approx(us(PLAIN, shape(one)._replace(size=0.0)))
    few = Shape(8, 8.0, 4096, 4096, 0.0)
    assert us(PLAIN, few) == pytest.approx(us(PLAIN, Shape(1, 512, 4096, 4096, 0.0)))
    assert us(PLAIN, few) > 4 * us(PLAIN, Shape(1, 64, 4096, 4096, 0.0))
    assert shape(eight._replace(role="wgrad"))[:4] == (8, 4096, 4096, 1024.0)
