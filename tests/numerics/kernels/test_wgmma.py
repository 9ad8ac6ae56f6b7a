"""Hopper's forms of the products: their code, cross-compiled, and which is chosen. `check` runs them on a card."""

import itertools
import re

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import cluster, gemm, grouped, wgmma, wgrad  # noqa: E402
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


def gradient(form=None):
    out = torch.empty(2112, 7168, device="meta")
    return lambda: wgrad.wgrad_gemm(*rows(2112, 4096), *rows(7168, 4096), out, config=form)


PAIRS = {form.name: form for form in (
    wgmma.Form(2, 128, 3, 2, pair=True), wgmma.Form(3, 128, 4, pair=True), wgmma.Form(2, 192, 4, pair=True)
)}  # fmt: skip
CALLS = {
    **{form.name: dense(form) for form in wgmma.DENSE_FORMS}, "64 rows": dense(m=64), "128 rows": dense(m=128),
    "grouped": contiguous, "masked": masked(128), "masked, few rows": masked(64), "weight gradient": gradient(),
    "weight gradient of two pieces": gradient(wgmma.Form(2, 128, 3, 2)),
    "weight gradient of pairs": gradient(wgmma.Form(2, 128, 3, 2, pair=True)),
    **{name: dense(form) for name, form in PAIRS.items()},
}  # fmt: skip


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("name", CALLS)
def test_code_for_hopper(name):
    """As few products as there can be, none spilled, in a program's shared memory."""
    (launch,) = variants(CALLS[name])
    report = launch.compile()
    assert launch.kernel.__name__ == "_products"
    given = launch.constants
    each = given["PIECES"] * (2 if given["BLOCK_N"] == 192 else 1)
    assert report.instructions("QGMMA") == 4 * each * given["CONSUMERS"]
    assert report.instructions("FFMA") == min(given["BLOCK_N"], 192) // 2 * given["PIECES"] * given["CONSUMERS"]
    assert report.spills == 0
    shared = given["CONSUMERS"] * given["PIECES"] if given["PAIR"] else 0
    assert report.instructions("UTMALDG.2D.MULTICAST") == shared
    assert report.shared <= 227 * 1024


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("pieces", [1, 2])
def test_pieces_follow_each_other(pieces):
    """The second products of a consumer begin when the first are promoted, or registers would not do."""
    (launch,) = variants(dense(wgmma.Form(2, 128, 3, pieces)))
    names = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(QGMMA|FFMA)\b", launch.compile().sass, re.M)
    runs = [(name, len(list(same))) for name, same in itertools.groupby(names)]
    assert runs == [("QGMMA", 4), ("FFMA", 64)] * 2 * pieces


def test_a_kernel_of_pairs():
    """Blocks meet, a marked copy goes to both, every warp arrives at both, and nothing gathers a warpgroup for it."""
    out = cluster.paired(PTX, 4)
    assert out.count(".explicitcluster\n.reqnctapercluster 2, 1, 1") == 1
    assert out.count("barrier.cluster.arrive") == 2 and out.count("barrier.cluster.wait") == 1
    assert re.findall(r"tensor\.(\dd)\.shared::(\w+)", out) == [("2d", "cluster"), ("1d", "cta")]
    assert out.count("multicast") == 1 and "[%r3], [%rd1, {%r4, %r1}], [%r5], both;" in out
    assert [out.count(f"mapa.shared::cluster.u32 there, %r7, {block};") for block in (0, 1, 2)] == [1, 1, 0]
    assert "bar.sync \t2, 128" not in out and "bar.sync \t3, 128" in out


@pytest.mark.parametrize("gone", [".maxnreg 168", "@%p1 cp.async", "\t@%p2 mbarrier"])
def test_ptx_that_cannot_be_paired_is_refused(gone):
    with pytest.raises(ValueError, match="a kernel of pairs"):
        cluster.paired(PTX.replace(gone, "x"), 4)
    assert cluster.paired(PTX.replace("// meet the pair", ""), 4) == PTX.replace("// meet the pair", "")


PTX = """.visible .entry _products(
\t.param .u32 a
)
.reqntid 384
.maxnreg 168
{
\t.reg .pred \t%p<9>;
\t.reg .b32 \t%r<9>;
\tbarrier.cluster.arrive.release; barrier.cluster.wait.acquire; // meet the pair
\tbar.sync \t2, 128;
\t// begin inline asm
\t
{
\t.reg .pred complete;
}
\tmov.b32 %r1, %r2; // copy to the pair
\t@%p1 cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes [%r3], [%rd1, {%r4, %r1}], [%r5];
\t@%p1 cp.async.bulk.tensor.1d.shared::cta.global.mbarrier::complete_tx::bytes [%r9], [%rd1, {%r4}], [%r5];
\tbar.sync \t2, 128;
\t// begin inline asm
\t@%p2 mbarrier.arrive.shared::cta.b64 _, [%r7];
\tbar.sync \t3, 128;
\tst.shared.b32 [%r8], %r1;
}
"""


@pytest.mark.parametrize("m, n, k, tile", [
    (4096, 7168, 16384, (256, 128)), (4096, 2112, 7168, (192, 128)), (4096, 32768, 512, (192, 128)),
    (64, 7168, 2048, (64, 64)), (64, 32768, 512, (64, 128)), (128, 4096, 7168, (128, 32)), (128, 2112, 7168, (128, 16)),
    (1024, 1024, 7168, (128, 128)),
])  # fmt: skip
def test_the_fewest_waves_are_chosen(m, n, k, tile):
    form = wgmma.choose(m, n, k, 132)
    assert (form.block_m, form.block_n) == tile


def test_tiles_of_192_columns_come_in_pairs():
    form = wgmma.Form(2, 192, 4)
    assert [form.columns(n) for n in (1, 192, 384, 385)] == [2, 2, 2, 4]
    assert form.tiles(129, 384) == 4
    assert wgmma.Form(3, 128, 4, pair=True).tiles(4096, 2112) == 22 * 18


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
