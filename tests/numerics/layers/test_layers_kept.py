"""What waits for the backward pass: each way of keeping, and that autograd's hooks see all of it."""

from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")
from torch.autograd import Function  # noqa: E402

from numerics import ops  # noqa: E402
from numerics.layers.config import Precision  # noqa: E402
from numerics.layers.kept import Activated, Codes, Joined, Normed, Packed, Plain, load, save  # noqa: E402
from tests.numerics.layers import saved  # noqa: E402


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(150, 256).bfloat16()


def normed(x, seed):
    torch.manual_seed(seed)
    weight = torch.rand(x.shape[1]) + 0.5
    y, rstd = ops.rmsnorm(x, weight, 1e-6)
    return y, Normed(x, weight, rstd, 1e-6)


def same(cast, expected):
    assert torch.equal(cast[0].view(torch.uint8), expected[0].view(torch.uint8)) and torch.equal(cast[1], expected[1])


def test_plain(x):
    assert Plain(x).value() is x
    same(Plain(x).columns(), ops.quantize_columns(x))


@pytest.mark.parametrize("power_of_two", [False, True])
def test_codes(x, power_of_two):
    q, s = ops.quantize_rows(x, power_of_two)
    kept = Codes(q, s, torch.bfloat16, power_of_two)
    assert torch.equal(kept.value(), ops.dequantize_rows(q, s, torch.bfloat16))
    same(kept.columns(), ops.requantize_columns(q, s, power_of_two))


def test_packed_has_six_fraction_bits_and_columns_with_power_of_two_scales(x):
    kept = Packed(*ops.store_e5m6(x), x.shape[1], x.dtype)
    assert kept.packed.nbytes == x.numel() * 12 // 8
    # half a unit of 6 fraction bits, and 2^-27 of the tile's maximum where E5M6 is subnormal
    assert ((kept.value() - x).float().abs() <= x.float().abs() * 2.0**-7 + 1e-6).all()
    scales = kept.columns()[1]
    assert torch.equal(torch.log2(scales), torch.log2(scales).round())


def test_normed_joined_and_activated_run_again(x):
    y, again = normed(x, 1)
    z, other = normed(x * 2, 2)
    both = Joined(again, other)
    assert torch.equal(again.value(), y) and torch.equal(both.value(), torch.cat([y, z], 1))
    same(again.columns(), ops.quantize_columns(y))
    same(both.columns(), ops.quantize_columns(torch.cat([y, z], 1)))
    assert torch.equal(Activated(x).value(), ops.swiglu(x))
    same(Activated(x).columns(), ops.swiglu_quantize_columns(x))


class Pair(NamedTuple):
    left: Plain
    right: torch.Tensor


class _Keeper(Function):
    @staticmethod
    def forward(ctx, x):
        layout = ops.layout(torch.zeros(4, 1, dtype=torch.int32), 1)
        save(ctx, pair=Pair(Plain(x * 2), x * 3), layout=layout, none=None, precision=Precision.FP8)
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        k = load(ctx)
        assert k["none"] is None and k["precision"] is Precision.FP8 and k["layout"].rows == 128
        return dy * (k["pair"].left.value() + k["pair"].right)


def test_save_and_load_round_trip():
    x = torch.randn(4, 4).requires_grad_()
    with saved.Count(torch.nn.Identity()) as count:
        y = _Keeper.apply(x)
    layout_bytes = 4 * (4 + 128 + 1 + 2)
    assert count.bytes == 2 * x.nbytes + layout_bytes
    y.sum().backward()
    torch.testing.assert_close(x.grad, x.detach() * 5)
