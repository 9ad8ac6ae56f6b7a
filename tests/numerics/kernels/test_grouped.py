import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import gemm as dense  # noqa: E402
from numerics.kernels import grouped as kernels  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import variants  # noqa: E402
from numerics.reference import compare  # noqa: E402
from numerics.reference import gemm as reference  # noqa: E402
from tests.numerics import interpreter  # noqa: E402
from tests.numerics.kernels.tensor_core import product, rows, stacked  # noqa: E402

interpreter.install()

FORMS = {"few rows": kernels.FEW_ROWS, **dense.VARIANTS}
N, K = 136, 272


def contiguous(table):
    _, a, a_s = rows(128 * len(table), K)
    return a, a_s, *stacked(3, N, K), torch.tensor(table, dtype=torch.int32)


def masked(counts, most=100):
    _, a, a_s = rows(len(counts) * most, K)
    a = a.view(torch.uint8).view(len(counts), most, K).view(torch.float8_e4m3fn)
    return a, a_s.view(len(counts), most, -1), *stacked(len(counts), N, K), torch.tensor(counts, dtype=torch.int32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("table", [[0], [0, 0, 2], [2, -1, 0, 1], [-1, -1]])
def test_contiguous(table, form):
    a, a_s, b, b_s, groups = contiguous(table)
    found = kernels.grouped_gemm(a, a_s, b, b_s, groups, config=FORMS[form])
    for block, group in enumerate(table):
        here = slice(128 * block, 128 * (block + 1))
        if group < 0:
            assert found[here].abs().max() == 0
        else:
            compare.gate(found[here], product(a[here], a_s[here], b[group], b_s[group]))
    compare.gate(reference.grouped_gemm(a, a_s, b, b_s, groups), found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("counts", [[100, 0, 37], [1, 64, 65], [0, 0]])
def test_masked(counts, form):
    a, a_s, b, b_s, filled = masked(counts)
    found = kernels.masked_gemm(a, a_s, b, b_s, filled, config=FORMS[form])
    for g, n in enumerate(counts):
        assert found[g, n:].abs().sum() == 0
        if n:
            compare.gate(found[g, :n], product(a[g, :n], a_s[g, :n], b[g], b_s[g]))
    compare.gate(reference.masked_gemm(a, a_s, b, b_s, filled), found)


def test_rows_behind_the_mask_do_not_matter():
    a, a_s, b, b_s, filled = masked([100, 0, 37])
    wanted = kernels.masked_gemm(a, a_s, b, b_s, filled)
    a.view(torch.uint8)[2, 37:] = 0x7F  # NaN in E4M3
    compare.gate_bitwise(kernels.masked_gemm(a, a_s, b, b_s, filled), wanted)


def test_a_group_mistaken_for_another_is_caught():
    a, a_s, b, b_s, groups = contiguous([0, 1])
    found = kernels.grouped_gemm(a, a_s, b, b_s, groups.flip(0))
    with pytest.raises(compare.GateError):
        compare.gate(found, reference.grouped_gemm(a, a_s, b, b_s, groups))


def test_end_to_end_with_the_permuted_layout():
    from numerics.reference import permute

    idx = torch.tensor([[0, 2], [2, 1], [2, 0], [0, 1]])
    laid = permute.layout(idx, 3)
    _, q, s = rows(4, K)
    b, b_s = stacked(3, N, K)
    y = kernels.grouped_gemm(permute.permute(q, laid), permute.permute(s, laid), b, b_s, laid.group_of_row_block)
    for token in range(4):
        for choice in range(2):
            wanted = product(q[token : token + 1], s[token : token + 1], b[idx[token, choice]], b_s[idx[token, choice]])
            compare.gate(y[laid.row_of_pair[token, choice]][None], wanted)


@pytest.mark.parametrize("module", [kernels, reference])
def test_wrong_layouts_are_refused(module):
    a, a_s, b, b_s, groups = contiguous([0, 1])
    with pytest.raises(ValueError, match=r"group_of_row_block is int32 \[2\]"):
        module.grouped_gemm(a, a_s, b, b_s, groups[:1])
    with pytest.raises(ValueError, match=r"b is \[G, N, K\]"):
        module.grouped_gemm(a, a_s, b[0], b_s[0], groups)
    a, a_s, b, b_s, filled = masked([1, 2])
    with pytest.raises(ValueError, match=r"rows \[G\]"):
        module.masked_gemm(a, a_s, b, b_s, filled[:1])


def test_a_tile_taller_than_a_row_block_is_refused():
    a, a_s, b, b_s, groups = contiguous([0, 1])
    with pytest.raises(ValueError, match="block_m divides 128"):
        kernels.grouped_gemm(a, a_s, b, b_s, groups, config=dense.Config(256, 64, 2, 8))


def test_no_tile_is_below_wgmma():
    assert min(kernels.choose(n).block_m for n in (1, 64, 65, 128, 4096)) == 64


def test_fewer_sms_change_nothing():
    operands = contiguous([2, -1, 0, 1])
    compare.gate_bitwise(kernels.grouped_gemm(*operands, sms=2), kernels.grouped_gemm(*operands))


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["contiguous", "masked"])
def test_code_for_hopper(kind, form):
    lead = (32768,) if kind == "contiguous" else (4, 128)
    a = torch.empty(*lead, 7168, dtype=torch.float8_e4m3fn, device="meta")
    b = torch.empty(4, 4096, 7168, dtype=torch.float8_e4m3fn, device="meta")
    a_s, b_s = torch.empty(*lead, 56, device="meta"), torch.empty(4, 32, 56, device="meta")
    table = torch.empty(256 if kind == "contiguous" else 4, dtype=torch.int32, device="meta")
    call = kernels.grouped_gemm if kind == "contiguous" else kernels.masked_gemm
    (launch,) = variants(lambda: call(a, a_s, b, b_s, table, config=FORMS[form]))
    report = launch.compile()
    assert report.instructions("QGMMA") >= 4
    assert report.spills == 0
