"""Cast kernels against the reference, bit for bit: interpreted on the CPU, real on a GPU."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import casts, e5m6  # noqa: E402
from numerics.reference import casts as reference  # noqa: E402
from numerics.reference import compare  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 128), (5, 256), (130, 200), (257, 128), (3, 7), (12, 512)]
QUANTIZERS = ["quantize_rows", "quantize_columns", "quantize_blocks"]


def spread(rows: int, columns: int, dtype: "torch.dtype" = torch.bfloat16, seed: int = 0) -> "torch.Tensor":
    """Rows of very different sizes."""
    torch.manual_seed(seed)
    return (torch.randn(rows, columns) * torch.exp(3 * torch.randn(rows, 1))).to(dtype).to(DEVICE)


def special(columns: int = 256) -> "torch.Tensor":
    """Zeros of both signs, inf, NaN, an empty tile, a tile of nothing finite, subnormals, the largest numbers."""
    x = spread(8, columns)
    x[0, :4] = torch.tensor([math.inf, -math.inf, math.nan, -0.0])
    x[1] = 0
    x[2, ::2] = -0.0
    x[3, :128] = math.inf
    x[4, :128] = math.nan
    x[5] = x[5] * 1e-38
    x[6, 0], x[6, 1] = 3.38e38, -3.38e38
    x[7, :128] = 2.0**-133
    return x


def same(actual: tuple, expected: tuple) -> None:
    for name, one, other in zip(("codes", "scales"), actual, expected, strict=True):
        compare.gate_bitwise(one.cpu(), other.cpu(), name)
        assert one.is_contiguous() or (name == "scales" and one.t().is_contiguous())


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantize(name: str, shape: tuple[int, int], power_of_two: bool) -> None:
    x = spread(*shape)
    same(getattr(casts, name)(x, power_of_two), getattr(reference, name)(x.cpu(), power_of_two))


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantize_special_values(name: str, power_of_two: bool) -> None:
    same(getattr(casts, name)(special(), power_of_two), getattr(reference, name)(special().cpu(), power_of_two))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantize_other_types(name: str, dtype: "torch.dtype") -> None:
    x = spread(20, 160, torch.float32).clamp(-6e4, 6e4).to(dtype)
    same(getattr(casts, name)(x), getattr(reference, name)(x.cpu()))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantize_a_slice_and_a_transpose(name: str) -> None:
    x = spread(64, 512)
    for view in (x[:, 128:384], x[::2], x.t()[:130]):
        same(getattr(casts, name)(view), getattr(reference, name)(view.cpu()))


@pytest.mark.parametrize("exponent", [-125, -118, -100, -79, -61, 0, 60, 119])
def test_division_is_correctly_rounded(exponent: int) -> None:
    """float32 inputs on and around every midpoint between codes, times a scale: where a sloppy quotient shows."""
    codes = torch.arange(0x7F).to(torch.uint8).view(torch.float8_e4m3fn).double()
    middle = (codes[1:] + codes[:-1]) / 2
    torch.manual_seed(exponent)
    amax = ((1 + torch.rand(24, 1)) * 2.0**exponent).float()
    scale = (amax / 448).clamp(min=2.0**-126)
    x = torch.cat([(middle * scale.double()).float(), torch.zeros(24, 1), amax], dim=1)[:, -128:]
    bits = x.view(torch.int32) + torch.randint(-2, 3, x.shape, dtype=torch.int32) * (x != 0) * (x < amax)
    x = torch.minimum(bits.view(torch.float32), amax).to(DEVICE)
    same(casts.quantize_rows(x), reference.quantize_rows(x.cpu()))
    same(casts.quantize_columns(x.t()), reference.quantize_columns(x.t().cpu()))


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_requantize_columns(shape: tuple[int, int], power_of_two: bool) -> None:
    q, s = reference.quantize_rows(spread(*shape).cpu(), power_of_two)
    same(casts.requantize_columns(q.to(DEVICE), s.to(DEVICE), power_of_two),
         reference.requantize_columns(q, s, power_of_two))  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["rows", "blocks"])
@pytest.mark.parametrize("shape", SHAPES)
def test_dequantize(shape: tuple[int, int], kind: str, dtype: "torch.dtype") -> None:
    q, s = getattr(reference, f"quantize_{kind}")(spread(*shape).cpu())
    actual = getattr(casts, f"dequantize_{kind}")(q.to(DEVICE), s.to(DEVICE), dtype)
    compare.gate_bitwise(actual.cpu(), getattr(reference, f"dequantize_{kind}")(q, s, dtype))


def test_every_code_dequantizes() -> None:
    q = torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).view(2, 128)
    s = torch.tensor([[0.37], [2.0]])
    actual = casts.dequantize_rows(q.to(DEVICE), s.to(DEVICE), torch.float32)
    compare.gate_bitwise(actual.cpu(), reference.dequantize_rows(q, s, torch.float32))


def test_rounding_has_no_bias_on_non_negative_data() -> None:
    torch.manual_seed(1)
    x = torch.rand(64, 512)
    q, s = casts.quantize_rows(x.to(DEVICE))
    back = casts.dequantize_rows(q, s, torch.float32).cpu()
    compare.gate(back, x, tolerance=0.03, bias=1e-3, name="quantised")


@pytest.mark.parametrize("damage", ["row", "scale", "truncation"])
def test_the_gate_catches(damage: str) -> None:
    torch.manual_seed(1)
    x = torch.rand(64, 512)
    q, s = reference.quantize_rows(x)
    if damage == "scale":
        s[3] *= 1.03
    back = reference.dequantize_rows(q, s, torch.float32)
    if damage == "row":
        back[5] = 0
    if damage == "truncation":
        back = back.to(torch.float8_e4m3fn).float() * (1 - 2.0**-6)
    with pytest.raises(compare.GateError):
        compare.gate(back, reference.dequantize_rows(*reference.quantize_rows(x), torch.float32), bias=1e-3)


@pytest.mark.parametrize("shape", [(1, 128), (5, 256), (33, 200), (3, 7), (12, 512), (2, 129), (4, 12)])
def test_e5m6(shape: tuple[int, int]) -> None:
    x = spread(*shape)
    actual, expected = e5m6.store_e5m6(x), reference.store_e5m6(x.cpu())
    same(actual, expected)
    compare.gate_bitwise(e5m6.load_e5m6(*actual, shape[1]).cpu(), reference.load_e5m6(*expected, shape[1]))


def test_e5m6_special_values() -> None:
    same(e5m6.store_e5m6(special()), reference.store_e5m6(special().cpu()))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_e5m6_of_every_bf16_number(stored: "torch.dtype") -> None:
    """All patterns, in tiles of one sign and 128 neighbours: of the words of two numbers, and one by one."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).view(-1, 128)
    x = torch.cat([x, x[:, torch.randperm(128)].roll(7, 0), x.t().reshape(-1, 128)]).to(stored)
    same(e5m6.store_e5m6(x.to(DEVICE)), reference.store_e5m6(x))


def test_e5m6_every_midpoint() -> None:
    """float32 numbers on and beside every midpoint of 12-bit codes, subnormals and the last binade included."""
    codes = torch.arange(0x7C0, dtype=torch.int16)
    values = (codes << 4).view(torch.float16).float()
    middle = (values[1:] + values[:-1]) / 2
    near = torch.stack([torch.nextafter(middle, torch.tensor(0.0)), middle, torch.nextafter(middle, torch.tensor(9e9))])
    x = torch.nn.functional.pad(near.flatten(), (0, -near.numel() % 127)).view(-1, 127)
    x = torch.cat([torch.full((x.shape[0], 1), 65024.0), -x], dim=1)
    same(e5m6.store_e5m6(x.to(DEVICE)), reference.store_e5m6(x))


def test_e5m6_every_code_loads() -> None:
    codes = torch.arange(4096, dtype=torch.int32).view(32, 128)
    packed, s = reference.pack_12(codes), torch.full((32, 1), 2.0)
    actual = e5m6.load_e5m6(packed.to(DEVICE), s.to(DEVICE), 128, torch.float32)
    compare.gate_bitwise(actual.cpu(), reference.load_e5m6(packed, s, 128, torch.float32))


@pytest.mark.parametrize("shape", [(0, 128), (4, 0)])
def test_nothing_to_do(shape: tuple[int, int]) -> None:
    x = torch.empty(shape, dtype=torch.bfloat16, device=DEVICE)
    for name in QUANTIZERS:
        same(getattr(casts, name)(x), getattr(reference, name)(x.cpu()))
    assert casts.dequantize_rows(*casts.quantize_rows(x)).shape == shape
    assert e5m6.load_e5m6(*e5m6.store_e5m6(x), shape[1]).shape == shape


def test_errors_say_what_is_wrong() -> None:
    x = torch.zeros(4, 256, dtype=torch.bfloat16, device=DEVICE)
    with pytest.raises(ValueError, match="a matrix is needed"):
        casts.quantize_rows(x[0])
    with pytest.raises(ValueError, match=r"\[4, 256\] codes in 1x128 tiles have \[4, 2\] scales; got \[4, 1\]"):
        casts.dequantize_rows(x.to(torch.float8_e4m3fn), torch.ones(4, 1, device=DEVICE))
    with pytest.raises(ValueError, match="take 384 bytes a row; got 4"):
        e5m6.load_e5m6(torch.zeros(1, 4, dtype=torch.uint8, device=DEVICE), torch.ones(1, 2, device=DEVICE), 256)


@pytest.mark.parametrize("n, k", [(128, 128), (256, 384), (100, 200), (130, 3), (1, 1), (7, 129)])
def test_codes_turn(n, k):
    """Every one of the 256 codes, NaN's two included."""
    q = (torch.arange(n * k) * 37 % 256).to(torch.uint8).view(n, k).view(torch.float8_e4m3fn)
    found = casts.transpose_codes(q)
    compare.gate_bitwise(found, reference.transpose_codes(q))
    assert found.is_contiguous() and torch.equal(found.view(torch.uint8), q.view(torch.uint8).t())


def test_codes_of_strided_rows_turn():
    q = torch.arange(64 * 96).to(torch.uint8).view(64, 96).view(torch.float8_e4m3fn)[:, 16:80]
    assert torch.equal(casts.transpose_codes(q).view(torch.uint8), q.view(torch.uint8).t())


def test_nothing_turns():
    assert casts.transpose_codes(torch.empty(0, 8).to(torch.float8_e4m3fn)).shape == (8, 0)


@pytest.mark.parametrize("rows, pitch", [(1024, 1056), (1000, 1000)])
def test_columns_lie_apart_where_they_would_share_a_power_of_two(monkeypatch, rows: int, pitch: int) -> None:
    monkeypatch.setattr(casts, "PAD", 8)
    x = spread(rows, 64)
    q, s = casts.quantize_columns(x)
    expected, expected_s = reference.quantize_columns(x.cpu())
    assert q.stride() == (pitch, 1)
    compare.gate_bitwise(q.cpu().contiguous(), expected)
    compare.gate_bitwise(s.cpu(), expected_s)
