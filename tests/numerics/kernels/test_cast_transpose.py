"""Casts behind what makes their input: kernels against separate kernels, and those against the reference.

What SwiGLU's exponential may move is held to `test_swiglu`'s bounds by comparing with the kernels it is composed of.
"""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import cast_transpose as kernels  # noqa: E402
from numerics.kernels import casts, norm, swiglu  # noqa: E402
from numerics.reference import cast_transpose as reference  # noqa: E402
from numerics.reference import compare  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def spread(rows: int, columns: int) -> "torch.Tensor":
    """Rows of very different sizes."""
    torch.manual_seed(rows)
    x = torch.randn(rows, columns) * torch.exp(3 * torch.randn(rows, 1))
    return x.bfloat16().to(DEVICE)


def flat(x: object) -> list:
    """The tensors of nested tuples."""
    if isinstance(x, torch.Tensor):
        return [x]
    return [t for part in x or () for t in flat(part)]


def same(actual: object, expected: object) -> None:
    for i, (a, b) in enumerate(zip(flat(actual), flat(expected), strict=True)):
        compare.gate_bitwise(a.cpu(), b.cpu(), str(i))


@pytest.mark.parametrize("shape", [(2, 256, 128), (320, 256), (3, 132, 200), (2, 66, 40)])
def test_weights(shape: tuple[int, ...]) -> None:
    """A stack whose matrices end within a block: no block holds rows of two."""
    torch.manual_seed(0)
    w = torch.randn(shape, device=DEVICE) * torch.exp(2 * torch.randn(*shape[:-1], 1, device=DEVICE))
    found = kernels.quantize_weight(w)
    same(found, reference.quantize_weight(w.cpu()))
    (q, s), (turned, turned_s) = found
    assert q.shape == shape and turned.is_contiguous() and turned_s.is_contiguous() and s.is_contiguous()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("powers", [(False,), (True,), (True, False)])
@pytest.mark.parametrize("shape", [(13, 200), (6, 512), (9, 64), (3, 1536)])
def test_norm_with_casts(shape: tuple[int, int], powers: tuple[bool, ...], keep: bool) -> None:
    x, w = spread(*shape), (1 + 0.1 * torch.randn(shape[1])).to(DEVICE)
    y, rstd = norm.rmsnorm(x, w)
    expected = tuple(casts.quantize_rows(y, power) for power in powers), y if keep else None, rstd
    same(kernels.rmsnorm_quantize(x, w, powers=powers, keep=keep), expected)
    plain = reference.rmsnorm_quantize(x.cpu(), w.cpu(), powers=powers, keep=keep)
    for (_, s), (_, right) in zip(expected[0], plain[0], strict=True):
        compare.gate_ulp(s.cpu(), right, 2**16)  # an ulp of BF16 in the norm, from FP32 sums in another order


@pytest.mark.parametrize("shape", [(13, 200), (6, 512)])
def test_norm_of_a_sum_with_casts(shape: tuple[int, int]) -> None:
    x, w = spread(*shape), (1 + 0.1 * torch.randn(shape[1])).to(DEVICE)
    residual = spread(shape[0] + 1, shape[1])[1:]
    found = kernels.add_rmsnorm_quantize(x, residual, w, powers=(False, True), keep=True)
    same(found, (x + residual, *kernels.rmsnorm_quantize(x + residual, w, powers=(False, True), keep=True)))
    same(found[0], reference.add_rmsnorm_quantize(x.cpu(), residual.cpu(), w.cpu())[0])


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("shape", [(130, 200), (257, 128)])
def test_norm_again_by_columns(shape: tuple[int, int], power: bool) -> None:
    x, w = spread(*shape), (1 + 0.1 * torch.randn(shape[1])).to(DEVICE)
    _, rstd = norm.rmsnorm(x, w)
    found = kernels.rmsnorm_quantize_columns(x, w, rstd, power)
    same(found, reference.rmsnorm_quantize_columns(x.cpu(), w.cpu(), rstd.cpu(), power))


@pytest.mark.parametrize("shape", [(130, 128), (37, 256)])
def test_swiglu_with_both_casts(shape: tuple[int, int]) -> None:
    x = spread(shape[0], 2 * shape[1])
    same(kernels.swiglu_quantize_both(x), (casts.quantize_rows(x), swiglu.swiglu_quantize(x)))


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("shape", [(130, 128), (37, 256)])
def test_swiglu_backward_with_all_casts(shape: tuple[int, int], weighed: bool) -> None:
    rows, half = shape
    q, s = casts.quantize_rows(spread(rows, 2 * half))
    dy = spread(rows + 1, half)[1:]
    by_row = torch.rand(rows, device=DEVICE) if weighed else None
    *found, dots = kernels.swiglu_backward_both(dy, q, s, by_row)
    x = casts.dequantize_rows(q, s)
    if by_row is None:
        assert dots is None
        upstream, activation = dy, casts.quantize_columns(swiglu.swiglu(x))
    else:
        act, factor = swiglu.swiglu(x), by_row[:, None].to(dy.dtype)
        upstream, activation = dy * factor, casts.quantize_columns(act * factor)
        expected = swiglu.gate_weight_gradient(dy, act)
        size = (dy.float() * act.float()).abs().sum(1)
        assert ((dots - expected).abs() <= 64 * 2.0**-24 * size).all()  # FP32 sums of two tiles, in another order
    dx = swiglu.swiglu_backward(upstream, x)
    same(found, (casts.quantize_rows(dx), casts.quantize_columns(dx), activation))


@pytest.mark.parametrize("name", ["swiglu_quantize_both", "swiglu_backward_both"])
@pytest.mark.parametrize("room", [kernels, reference])
def test_halves_that_share_a_tile_are_refused(room: object, name: str) -> None:
    x = spread(4, 192)
    call = (lambda: room.swiglu_quantize_both(x)) if name == "swiglu_quantize_both" else (
        lambda: room.swiglu_backward_both(x[:, :96], *casts.quantize_rows(x)))  # fmt: skip
    with pytest.raises(ValueError, match="I in multiples of 128; got 96"):
        call()


def test_nothing_is_launched_on_nothing() -> None:
    x = torch.empty(0, 256, dtype=torch.bfloat16, device=DEVICE)
    (q, s), (act, _) = kernels.swiglu_quantize_both(x)
    assert q.shape == (0, 256) and s.shape == (0, 2) and act.shape == (0, 128)
