"""Hopper's forms of the products: their code, cross-compiled, and which is chosen. `check` runs them on a card."""

import itertools
import re
import struct

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


PAIRS = [wgmma.Form(2, 256, 3, pair=True), wgmma.Form(3, 128, 4, pair=True)]
CALLS = {
    **{form.name: dense(form) for form in wgmma.DENSE_FORMS}, "64 rows": dense(m=64), "128 rows": dense(m=128),
    "grouped": contiguous, "masked": masked(128), "masked, few rows": masked(64), "weight gradient": gradient(),
    "weight gradient without pairs": gradient(wgmma.WEIGHT_FORM._replace(pair=False)),
    **{form.name: dense(form) for form in PAIRS},
}  # fmt: skip


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("name", CALLS)
def test_code_for_hopper(name):
    """As few products as there can be in each of the loops and beside stores, none spilled, in a program's memory."""
    (launch,) = variants(CALLS[name])
    report = launch.compile()
    assert launch.kernel.__name__ == "_products"
    given = launch.constants
    each = given["CONSUMERS"] * given["PIECES"] * (2 if given["BLOCK_N"] == 256 else 1)
    ahead = given["MODE"] == wgmma.DENSE.value and given["BLOCK_N"] == 128 and given["CONSUMERS"] > 1
    blocks = 1 + given["PIECES"] if ahead else 1  # the first, those within, and of two pieces the last
    assert report.instructions("QGMMA") == 4 * each * blocks
    assert report.instructions("FFMA") == min(given["BLOCK_N"], 128) // 2 * each * blocks
    assert report.spills == 0
    shared = (1 if given["CONSUMERS"] == 2 else 3) if given["PAIR"] else 0
    assert report.instructions("UTMALDG.2D.MULTICAST") == shared
    assert report.shared <= 227 * 1024


def opcodes(launch, *wanted):
    """Lines of SASS of a launch that start with one of those wanted, in order."""
    lines = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(.*?);", launch.compile().sass, re.M)
    return [line for line in lines if line.startswith(wanted)]


TWO_PIECES = next(form for form in wgmma.DENSE_FORMS if form.pieces == 2)


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("call", [dense(TWO_PIECES), contiguous], ids=["rows", "columns"])
def test_sums_follow_each_other(call):
    """The second products of a consumer begin when the first are promoted, or registers would not do."""
    (launch,) = variants(call)
    names = (line[:5] for line in opcodes(launch, "QGMMA", "FFMA "))
    runs = [(name, len(list(same))) for name, same in itertools.groupby(names)]
    assert runs[0] == ("QGMMA", 4)
    assert all(count <= 2 or count >= 62 for name, count in runs if name == "FFMA "), "a sum in two parts"


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
def test_stores_lie_beside_products():
    """Of two pieces both are stored behind products that are under way: the second's last, the next tile's first."""
    (launch,) = variants(dense(TWO_PIECES))
    names = "".join(line[0] for line in opcodes(launch, "QGMMA", "UTMASTG", "WARPGROUP.DEPBAR"))
    assert names.count("QQQQUW") == 2 * 2 and names.count("U") == 3 * 2  # the last tile's second alone


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
def test_multiply_adds_let_others_in():
    """Of those that follow each other no two keep an operand for the next, of which Triton's own code keeps all."""
    (launch,) = variants(contiguous)
    kept = [".reuse" in line for line in opcodes(launch, "FFMA")]
    assert 0.4 < sum(kept) / len(kept) < 0.6


def executable(words, flags=0x4):
    """An ELF file of a header, one section of instructions, and its table."""
    body = struct.pack(f"<{len(words)}Q", *words)
    head = bytearray(64)
    struct.pack_into("<Q", head, 0x28, 64 + len(body))
    struct.pack_into("<HH", head, 0x3A, 64, 1)
    section = struct.pack("<II4QIIQQ", 0, 1, flags, 0, 64, len(body), 0, 0, 1, 0)
    return bytes(head) + body + section


def test_only_multiply_adds_that_follow_another_are_changed():
    kept, stays = 2 << 58, 1 << 45
    add, other = 0x7223, 0x7220
    code = [add, kept | stays, add, kept | stays, add, kept | stays, other, kept | stays, add, kept | stays,
            add, stays, add, kept | stays, add, kept, add, kept | stays]  # fmt: skip
    words = struct.unpack_from(f"<{len(code)}Q", cluster.interleaved(executable(code)), 64)
    assert [i // 2 for i in range(1, len(code), 2) if words[i] != code[i]] == [1, 6]
    assert words[3] == words[13] == 0 and words[::2] == tuple(code[::2])
    data = executable(code, flags=0)
    assert cluster.interleaved(data) == data


def test_a_kernel_of_pairs():
    """Blocks meet, a marked copy goes to both, every warp arrives at both, and nothing gathers a warpgroup for it."""
    out = cluster.rewritten(PTX, 4)
    assert out.count(".explicitcluster\n.reqnctapercluster 2, 1, 1") == 1
    assert out.count("barrier.cluster.arrive") == 2 and out.count("barrier.cluster.wait") == 1
    assert re.findall(r"tensor\.(\dd)\.shared::(\w+)", out) == [("2d", "cluster"), ("1d", "cta")]
    assert out.count("multicast") == 1 and "[%r3], [%rd1, {%r4, %r1}], [%r5], both;" in out
    assert [out.count(f"mapa.shared::cluster.u32 there, %r7, {block};") for block in (0, 1, 2)] == [1, 1, 0]
    assert "bar.sync \t2, 128" not in out and "bar.sync \t3, 128" in out


def test_a_kernel_without_pairs():
    """Every warp arrives and waits by itself, at its own block's barriers; the rest stays."""
    out = cluster.rewritten(PTX.replace("// meet the pair", "").replace("// copy to the pair", ""), 4)
    assert "@first mbarrier.arrive.shared::cta.b64 _, [%r7];" in out and "shared::cluster" not in out
    assert out.count("barrier.cluster.arrive") == 1 and "multicast" not in out
    assert "bar.sync \t2, 128" not in out and "bar.sync \t3, 128" in out


@pytest.mark.parametrize("gone", [".maxnreg 168", "@%p1 cp.async", "\t@%p2 mbarrier", "\t.reg .pred complete"])
def test_ptx_that_cannot_be_rewritten_is_refused(gone):
    with pytest.raises(ValueError, match="a kernel of products"):
        cluster.rewritten(PTX.replace(gone, "x"), 4)
    plain = PTX.replace("// every warp by itself", "")
    assert cluster.rewritten(plain, 4) == plain


PTX = """.visible .entry _products(
\t.param .u32 a
)
.reqntid 384
.maxnreg 168
{
\t.reg .pred \t%p<9>;
\t.reg .b32 \t%r<9>;
\tbarrier.cluster.arrive.release; barrier.cluster.wait.acquire; // meet the pair
\tmov.u32 %r2, 0; // every warp by itself, 1
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
    (4096, 7168, 16384, (256, 128)), (4096, 2112, 7168, (192, 128)), (4096, 32768, 512, (256, 128)),
    (16384, 4096, 7168, (192, 128)), (256, 7168, 2048, (128, 128)),
    (64, 7168, 2048, (64, 64)), (64, 32768, 512, (64, 128)), (128, 4096, 7168, (128, 32)), (128, 2112, 7168, (128, 16)),
    (1024, 1024, 7168, (128, 128)),
])  # fmt: skip
def test_the_fewest_waves_are_chosen(m, n, k, tile):
    form = wgmma.choose(m, n, k, 132)
    assert (form.block_m, form.block_n) == tile


def test_tiles_of_pairs_come_in_pairs():
    assert [wgmma.Form(2, 128, 5, pair=True).columns(n) for n in (1, 128, 256, 257)] == [2, 2, 2, 4]
    assert wgmma.Form(3, 128, 4, pair=True).tiles(4096, 2112) == 22 * 18
    assert wgmma.Form(3, 128, 4).tiles(4096, 2112) == 22 * 17


@pytest.mark.parametrize("pair, tiles, k, sms, expected", [
    (True, 896, 16384, 132, 128), (True, 896, 512, 132, 132), (True, 896, 16384, 113, 112), (True, 2, 512, 132, 2),
    (False, 374, 7168, 132, 125), (False, 374, 512, 132, 132), (False, 100, 7168, 132, 100), (True, 48, 4096, 2, 2),
])  # fmt: skip
def test_long_products_run_no_more_programs_than_their_waves_need(pair, tiles, k, sms, expected):
    count = wgmma.programs(wgmma.Form(2, 128, 5, pair=pair), tiles, k, sms)
    assert count == expected <= sms
    assert -(-tiles // count) == -(-tiles // (sms // 2 * 2 if pair else sms))


def test_two_pieces_take_two_blocks_of_k():
    assert wgmma.choose(4096, 7168, 256, 132).pieces == 2 and wgmma.choose(4096, 7168, 128, 132).pieces == 1
    with pytest.raises(ValueError, match="takes at least 2 blocks of K; got K = 128"):
        gemm.gemm(*rows(256, 128), *weight(256, 128), config=TWO_PIECES)


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
