"""A recipe's rounding against the casts that the FP8 products read, and as a kernel."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import rounding as kernels  # noqa: E402
from numerics.reference import casts, compare  # noqa: E402
from numerics.reference import rounding as reference  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(150, 200) * torch.logspace(-3, 3, 200)


@pytest.mark.parametrize("module", [kernels, reference])
def test_e4m3_is_what_the_casts_give(x, module):
    rows = casts.dequantize_rows(*casts.quantize_rows(x), torch.float32)
    columns = casts.dequantize_rows(*casts.quantize_columns(x), torch.float32).t()
    blocks = casts.dequantize_blocks(*casts.quantize_blocks(x), torch.float32)
    for tile, wanted in (((1, 128), rows), ((128, 1), columns), ((128, 128), blocks)):
        compare.gate_bitwise(module.rounded(x, *tile), wanted.contiguous())


@pytest.mark.parametrize("tile", reference.TILES)
@pytest.mark.parametrize("fmt", reference.FORMATS)
def test_the_kernel_has_the_references_bits(x, tile, fmt):
    compare.gate_bitwise(kernels.rounded(x, *tile, fmt), reference.rounded(x, *tile, fmt))


def test_e5m2_rounds_twice_as_coarsely():
    """E5M2 has one fraction bit less than E4M3: twice its error, where neither underflows."""
    torch.manual_seed(0)
    x = torch.rand(64, 128) + 0.5
    e4m3, e5m2 = ((reference.rounded(x, 1, 128, fmt) - x).norm() for fmt in ("e4m3", "e5m2"))
    assert 1.8 < e5m2 / e4m3 < 2.2


def test_other_tiles_are_refused(x):
    for module in (kernels, reference):
        with pytest.raises(ValueError, match="tiles are"):
            module.rounded(x, 64, 128)
