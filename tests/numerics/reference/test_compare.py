"""Comparison: each figure against a hand value, and gates that catch what a Frobenius error lets pass."""

import math

import pytest

torch = pytest.importorskip("torch")
from numerics.reference import compare  # noqa: E402


def product(rows=256, columns=320, k=512, seed=0, positive=False):
    """A float64 product and its bfloat16 rounding: what a right kernel gives."""
    g = torch.Generator().manual_seed(seed)
    make = torch.rand if positive else torch.randn
    wanted = make(rows, k, generator=g).double() @ make(k, columns, generator=g).double()
    return wanted.to(torch.bfloat16), wanted


def fails(actual, expected, **options):
    verdict = compare.gate(actual, expected, raises=False, **options)
    assert not verdict.passed
    return " ".join(verdict.failures)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float64])
def test_bitwise_counts_and_ignores_which_nan(dtype):
    a = torch.tensor([0.0, 1.0, math.nan, -1.5]).to(dtype)
    b = torch.tensor([-0.0, 1.0, -math.nan, -1.25]).to(dtype)
    assert compare.bitwise(a, a) == 0 and compare.bitwise(a, b) == 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_bitwise_of_integers(dtype):
    assert compare.bitwise(torch.tensor([1, 2], dtype=dtype), torch.tensor([1, 3], dtype=dtype)) == 1


def test_bitwise_refuses_other_shapes_and_types():
    with pytest.raises(compare.GateError, match=r"shapes differ: \[2\] for \[3\]"):
        compare.bitwise(torch.zeros(2), torch.zeros(3))
    with pytest.raises(compare.GateError, match="types differ"):
        compare.bitwise(torch.zeros(2), torch.zeros(2).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_ulp_counts_representable_values_through_zero(dtype):
    tiny = {torch.float8_e4m3fn: 2.0**-9, torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133, torch.float32: 2.0**-149}
    a = torch.tensor([0.0, -0.0, tiny[dtype], 1.0, math.nan, 1.0]).to(dtype)
    b = torch.tensor([-0.0, tiny[dtype], -tiny[dtype], 1.0, math.nan, math.nan]).to(dtype)
    assert compare.ulp(a, b).tolist() == [0, 1, 2, 0, 0, 1 << 62]


def test_ulp_between_neighbours_and_across_a_binade():
    one = torch.tensor([1.0, 2.0])
    assert compare.ulp(one, torch.nextafter(one, torch.tensor(0.0))).tolist() == [1, 1]
    assert compare.ulp(torch.tensor([1.0]), torch.tensor([2.0])).item() == 1 << 23


def test_figures_by_hand():
    expected = torch.tensor([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]])
    actual = torch.tensor([[3.0, 4.5], [0.0, 0.0], [6.6, 8.8]])
    assert compare.relative_error(actual, expected) == pytest.approx(math.sqrt(1.25 / 125))
    assert compare.gain(1.25 * expected, expected) == pytest.approx(0.25)
    assert compare.rounding_bias(actual, expected) == pytest.approx(1.9 / 21)


def test_figures_of_equals():
    x = torch.randn(4, 4)
    assert compare.relative_error(x, x) == 0 and compare.gain(x, x) == 0
    assert compare.relative_error(torch.zeros(2, 2), torch.zeros(2, 2)) == 0
    assert compare.relative_error(torch.ones(1, 2), torch.zeros(1, 2)) == math.inf


def test_bias_is_of_non_negative_data_only():
    with pytest.raises(ValueError, match="non-negative"):
        compare.rounding_bias(torch.ones(2), torch.tensor([1.0, -1.0]))


def test_bias_sees_truncation_where_the_error_does_not():
    rounded, wanted = product(positive=True)
    cut = (wanted.float().view(torch.int32) & -65536).view(torch.float32)
    assert abs(compare.rounding_bias(rounded, wanted)) < 1e-4 < 1e-3 < -compare.rounding_bias(cut, wanted)
    compare.gate(rounded, wanted, bias=5e-4)
    assert "bias" in fails(cut, wanted, bias=5e-4, tolerance=0.01)
    compare.gate(cut, wanted, tolerance=0.01)


def test_a_right_product_passes_and_reports_its_figures():
    verdict = compare.gate(*product(), name="gemm")
    assert verdict.passed and str(verdict).startswith("gemm: passed (relative error 0.0016")
    assert {"relative error", "gain", "worst row", "worst column"} <= set(verdict.figures)


@pytest.mark.parametrize("line", ["row", "column"])
def test_one_zeroed_line_fails_even_where_the_frobenius_error_would_pass(line):
    actual, wanted = product(rows=1024, columns=1024, k=16)
    (actual if line == "row" else actual.t())[7] = 0
    assert compare.relative_error(actual, wanted) < compare.END_TO_END
    assert f"{line} 7 is all zero" in fails(actual, wanted, tolerance=compare.END_TO_END)


@pytest.mark.parametrize("tolerance", [compare.PRODUCT, compare.END_TO_END])
def test_a_scale_three_percent_off_fails(tolerance):
    actual, wanted = product()
    assert compare.relative_error(actual.double() * 1.03, wanted) < compare.END_TO_END
    assert "gain" in fails(actual.double() * 1.03, wanted, tolerance=tolerance)
    assert "gain" in fails(actual.double() / 1.03, wanted, tolerance=tolerance)


@pytest.mark.parametrize("line", ["row", "column"])
def test_one_lines_scale_three_percent_off_fails_end_to_end(line):
    """FP8's own error of 3.7 % in every element, and one row (or column) 3 % too large."""
    wanted = product(rows=512, columns=512, k=64)[1]
    noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(9)).double()
    actual = wanted + 0.037 * wanted.square().mean().sqrt() * noise
    compare.gate(actual, wanted, tolerance=compare.END_TO_END)
    (actual if line == "row" else actual.t())[7] *= 1.03
    assert f"{line} 7 gain" in fails(actual, wanted, tolerance=compare.END_TO_END)


def test_one_tiles_scale_three_percent_off_fails():
    """One 128-wide K tile of 16 whose scale is 3 % off, one row: 3 % / sqrt(16) in that row alone."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(64, 2048, generator=g).double(), torch.randn(2048, 256, generator=g).double()
    wanted = a @ b
    compare.gate(wanted.to(torch.bfloat16), wanted)
    a[5, 256:384] *= 1.03
    actual = (a @ b).to(torch.bfloat16)
    assert compare.relative_error(actual, wanted) < compare.PRODUCT
    assert "row 5 error" in fails(actual, wanted)


def test_a_line_that_should_be_zero_must_be():
    actual, wanted = product(rows=32, columns=32)
    wanted[3] = 0
    assert "row 3 is all zero" in fails(actual, wanted)
    actual[3] = 0
    compare.gate(actual, wanted)


def test_non_finite_values_must_stand_where_expected():
    actual, wanted = product(rows=32, columns=32)
    actual[1, 2], wanted[1, 2] = math.nan, math.nan
    actual[3, 4], wanted[3, 4] = math.inf, math.inf
    compare.gate(actual, wanted)
    actual[5, 6] = math.nan
    assert "NaN at 1 places" in fails(actual, wanted)
    actual[5, 6], wanted[5, 6] = math.inf, -math.inf
    assert "infinity at 1 places" in fails(actual, wanted)


def test_figures_that_cannot_be_computed_fail():
    """Squares that overflow make inf / inf; that must not pass for small."""
    huge = torch.full((2, 2), 1e200, dtype=torch.float64)
    assert "relative error nan" in fails(2 * huge, huge)


def test_short_lines_are_gated_as_a_whole_only():
    actual, wanted = product(rows=8, columns=8)
    assert set(compare.gate(actual, wanted).figures) == {"relative error", "gain"}
    actual[2] = 0
    assert "row 2 is all zero" in fails(actual, wanted)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 4)])
def test_any_shape(shape):
    x = torch.ones(shape)
    assert compare.gate(x, x.double()).passed and compare.gate_bitwise(x, x).passed and compare.gate_ulp(x, x).passed


def test_a_failed_gate_raises_with_reasons_and_figures():
    actual, wanted = product()
    with pytest.raises(compare.GateError, match=r"gemm: relative error .* is over 0.0025; gain .*worst row"):
        compare.gate(actual.double() * 1.03, wanted, name="gemm")
    with pytest.raises(AssertionError, match="shapes differ"):
        compare.gate(torch.zeros(2), torch.zeros(3))


def test_exact_gates():
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    b[1, 0] = torch.nextafter(b[1, 0], torch.tensor(9.0))
    with pytest.raises(compare.GateError, match=r"1 of 4 elements differ, first at \[1, 0\]: 3.0 for 3.0000002"):
        compare.gate_bitwise(a, b)
    assert compare.gate_ulp(a, b).figures == {"ulp": 1.0}
    with pytest.raises(compare.GateError, match="1 ulp is over 0"):
        compare.gate_ulp(a, b, limit=0)
