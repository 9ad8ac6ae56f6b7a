"""Products by group against FP64 products of each group, and the bits of the weight-gradient kernel."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import by_group as kernels  # noqa: E402
from numerics.kernels import wgrad  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import recorded, variants  # noqa: E402
from numerics.reference import by_group as reference  # noqa: E402
from numerics.reference import casts, compare  # noqa: E402
from numerics.reference.by_group import spread  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()

R, N, K = 512, 136, 72
OFFSETS = torch.tensor([0, 128, 128, 384], dtype=torch.int32)
"""One tile, none, two, and a tile behind the last group."""
TABLE = torch.tensor([0, 2, 2, -1], dtype=torch.int32)


@pytest.fixture
def operands():
    torch.manual_seed(0)
    return torch.randn(R, N), torch.randn(R, K), torch.randn(3, N, K)


@pytest.mark.parametrize("module", [kernels, reference])
def test_grouped_product(operands, module):
    dy, x, w = operands
    y, dx = module.grouped_product(x, w, TABLE), module.grouped_product(dy, w, TABLE, turned=True)
    for rows, group in ((slice(0, 128), 0), (slice(128, 384), 2)):
        compare.gate(y[rows], x[rows].double() @ w[group].double().t(), 1e-5)
        compare.gate(dx[rows], dy[rows].double() @ w[group].double(), 1e-5)
    assert y[384:].abs().max() == 0 and dx[384:].abs().max() == 0


@pytest.mark.parametrize("module", [kernels, reference])
def test_grouped_outer(operands, module):
    dy, x, _ = operands
    dy[384:] = torch.nan  # rows behind the last group do not matter
    dw = module.grouped_outer(dy, x, OFFSETS)
    for group, rows in enumerate((slice(0, 128), slice(0, 0), slice(128, 384))):
        wanted = dy[rows].double().t() @ x[rows].double()
        assert torch.allclose(dw[group].double(), wanted, atol=1e-3)
    assert dw[1].abs().max() == 0


@pytest.mark.parametrize("module", [kernels, reference])
def test_grouped_wgrad(operands, module):
    dy, x, _ = operands
    a, b = casts.quantize_columns(dy), casts.quantize_columns(x)
    a[1][:, 3] = torch.nan
    dw = module.grouped_wgrad(*a, *b, OFFSETS)
    for group, rows in ((0, slice(0, 128)), (2, slice(128, 384))):
        compare.gate(dw[group], dy[rows].double().t() @ x[rows].double(), compare.END_TO_END)
    assert dw[1].abs().max() == 0


@pytest.mark.parametrize("module", [kernels, reference])
def test_grouped_wgrad_not_promoted(operands, module):
    """One scale a row, applied at a group's end."""
    dy, x, _ = operands
    q = [(t.t() / t.abs().amax(0)[:, None] * 448).to(torch.float8_e4m3fn).contiguous() for t in (dy, x)]
    s = [t.abs().amax(0)[:, None] / 448 for t in (dy, x)]
    dw = module.grouped_wgrad(q[0], s[0], q[1], s[1], OFFSETS, promote=0)
    for group, rows in ((0, slice(0, 128)), (2, slice(128, 384))):
        a, b = (one[:, rows].double() * each.double() for one, each in zip(q, s, strict=True))
        compare.gate(dw[group], a @ b.t(), compare.PRODUCT)
    assert dw[1].abs().max() == 0


def test_one_group_has_the_bits_of_the_weight_gradient(operands):
    dy, x, _ = operands
    a, b = casts.quantize_columns(dy), casts.quantize_columns(x)
    wanted = wgrad.wgrad_gemm(*a, *b, torch.zeros(N, K), config=wgrad.VARIANTS["descriptor"])
    found = kernels.grouped_wgrad(*a, *b, torch.tensor([0, R], dtype=torch.int32))[0]
    compare.gate_bitwise(found, wanted)


def test_a_wrong_bound_is_caught(operands):
    dy, x, _ = operands
    wrong = OFFSETS + torch.tensor([0, 128, 128, 0], dtype=torch.int32)
    with pytest.raises(compare.GateError):
        compare.gate(kernels.grouped_outer(dy, x, wrong)[0], reference.grouped_outer(dy, x, OFFSETS)[0], 1e-3)


@pytest.mark.parametrize("rows, tiles, spans", [(32768, 16, 16), (32768, 264, 1), (1024, 1, 1), (4096, 1, 4)])
def test_spans(rows, tiles, spans):
    assert spread(rows, tiles) == spans


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("name", ["product", "turned", "outer", "wgrad"])
def test_code_for_hopper(name):
    def meta(*shape, dtype=torch.bfloat16):
        return torch.empty(*shape, dtype=dtype, device="meta")

    rows, n, k, groups = 131072, 256, 512, 32
    table, offsets = meta(rows // 128, dtype=torch.int32), meta(groups + 1, dtype=torch.int32)
    fp8, scale = torch.float8_e4m3fn, torch.float32
    calls = {
        "product": lambda: kernels.grouped_product(meta(rows, k), meta(groups, n, k), table),
        "turned": lambda: kernels.grouped_product(meta(rows, n), meta(groups, n, k), table, turned=True),
        "outer": lambda: kernels.grouped_outer(meta(rows, n), meta(rows, k), offsets),
        "wgrad": lambda: kernels.grouped_wgrad(
            meta(n, rows, dtype=fp8), meta(rows // 128, n, dtype=scale).t(),
            meta(k, rows, dtype=fp8), meta(rows // 128, k, dtype=scale).t(), offsets,
        ),
    }  # fmt: skip
    (launch,) = variants(calls[name])
    report = launch.compile()
    assert report.instructions("QGMMA" if name == "wgrad" else "HGMMA") >= 2
    assert report.spills == 0


@pytest.mark.parametrize("n, promote, kernel", [(256, 128, "_outer"), (264, 128, "_wgrad"), (256, 0, "_wgrad")])
def test_what_has_no_form_for_hopper_goes_to_the_twin(n, promote, kernel):
    """Boxes of 64 rows must not reach into the next group's matrix, and sums are promoted."""
    rows, k, blocks = 4096, 512, 1 if promote == 0 else 32
    a, b = (torch.empty(width, rows, dtype=torch.float8_e4m3fn, device="meta") for width in (n, k))
    a_s, b_s = (torch.empty(blocks, width, device="meta").t() for width in (n, k))
    with recorded() as launches:
        kernels.grouped_wgrad(a, a_s, b, b_s, torch.empty(5, dtype=torch.int32, device="meta"), promote)
    assert [launch.kernel.__name__ for launch in launches] == [kernel]
