"""Hopper's forms of the products: their code, cross-compiled, and which is chosen. `check` runs them on a card."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import gemm, grouped, wgmma, wgrad  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import recorded, variants  # noqa: E402

FP8 = torch.float8_e4m3fn


def codes(*shape):
    return torch.empty(*shape, dtype=FP8, device="meta")


def rows(m, k):
    return codes(m, k), torch.empty(-(-k // 128), m, device="meta").t()


def weight(n, k, groups=()):
    return codes(*groups, n, k), torch.empty(*groups, -(-n // 128), -(-k // 128), device="meta")


def dense(form=None, m=4096):
    return lambda: gemm.gemm(*rows(m, 7168), *weight(2112, 7168), config=form)


def contiguous():
    table = torch.empty(8, dtype=torch.int32, device="meta")
    return grouped.grouped_gemm(*rows(1024, 2048), *weight(7168, 2048, (4,)), table)


def masked(most):
    a, a_s = rows(4 * most, 2048)
    counts = torch.empty(4, dtype=torch.int32, device="meta")
    return lambda: grouped.masked_gemm(
        a.view(4, most, -1), a_s.unflatten(0, (4, most)), *weight(7168, 2048, (4,)), counts
    )


def gradient():
    return wgrad.wgrad_gemm(*rows(2112, 4096), *rows(7168, 4096), torch.empty(2112, 7168, device="meta"))


CALLS = {
    **{form.name: dense(form) for form in wgmma.DENSE_FORMS}, "64 rows": dense(m=64), "128 rows": dense(m=128),
    "grouped": contiguous, "masked": masked(128), "masked, few rows": masked(64), "weight gradient": gradient,
}  # fmt: skip
CONSUMERS = {"64 rows": 1, "masked, few rows": 1, "weight gradient": 3, wgmma.Form(3, 128, 4).name: 3}


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("name", CALLS)
def test_code_for_hopper(name):
    """As few products as there can be, none spilled, in a program's shared memory."""
    (launch,) = variants(CALLS[name])
    report = launch.compile()
    assert launch.kernel.__name__ == "_products"
    pieces = 2 if launch.constants["BLOCK_N"] == 192 else 1
    assert report.instructions("QGMMA") == 4 * pieces * CONSUMERS.get(name, 2)
    assert report.spills == 0
    assert report.shared <= 227 * 1024


@pytest.mark.parametrize("m, n, tile", [
    (4096, 7168, (192, 128)), (4096, 24576, (192, 128)), (64, 7168, (64, 64)), (64, 32768, (64, 128)),
    (128, 4096, (128, 32)), (128, 2112, (128, 16)), (1024, 1024, (128, 128)),
])  # fmt: skip
def test_the_fewest_waves_are_chosen(m, n, tile):
    form = wgmma.choose(m, n, 132)
    assert (form.block_m, form.block_n) == tile


def test_tiles_of_192_columns_come_in_pairs():
    form = wgmma.Form(2, 192, 4)
    assert [form.columns(n) for n in (1, 192, 384, 385)] == [2, 2, 2, 4]
    assert form.tiles(129, 384) == 4


def test_scales_are_turned_only_where_they_must_be():
    by_row, by_column = torch.rand(64, 4), torch.rand(4, 64).t()
    assert wgmma.by_column(by_column) is by_column
    assert torch.equal(wgmma.by_column(by_row), by_row) and wgmma.by_column(by_row).stride() == (1, 64)


@pytest.mark.parametrize("change", ["interpreter", "rows that are not aligned", "FP32 out", "promoted every 512"])
def test_what_does_not_suit_goes_to_the_twin(change):
    assert not wgmma.takes(torch.empty(8, 128, dtype=FP8), torch.empty(8, 128, dtype=FP8), torch.empty(8, 8), 128)
    k = 7160 if change == "rows that are not aligned" else 7168
    span = 512 if change == "promoted every 512" else 128
    a, b = codes(256, k), codes(256, k)
    scales = (torch.empty(256, -(-k // span), device="meta"), torch.empty(2, -(-k // span), device="meta"))
    with recorded() as launches:
        kind = torch.float32 if change == "FP32 out" else torch.bfloat16
        gemm.gemm(a, scales[0], b, scales[1], kind, promote=span)
    assert [launch.kernel.__name__ for launch in launches] == ["_products" if change == "interpreter" else "_gemm"]
