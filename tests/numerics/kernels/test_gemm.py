import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import gemm as kernels  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import recorded, variants  # noqa: E402
from numerics.reference import compare  # noqa: E402
from numerics.reference import gemm as reference  # noqa: E402
from tests.numerics import interpreter  # noqa: E402
from tests.numerics.kernels.tensor_core import blocks, exact, product, rows  # noqa: E402

interpreter.install()

SHAPES = [(128, 128, 256), (130, 200, 256), (64, 96, 144), (70, 130, 77), (1, 1, 1), (5, 300, 128)]
FORMS = {**kernels.VARIANTS, "few rows": kernels.Config(64, 32, 6, 4)}


@pytest.fixture
def operands():
    x, a, a_s = rows(130, 300)
    w, b, b_s = blocks(200, 300)
    return x, a, a_s, w, b, b_s


@pytest.mark.parametrize("m, n, k", SHAPES)
def test_reference_against_fp64(m, n, k):
    (_, a, a_s), (_, b, b_s) = rows(m, k), blocks(n, k)
    wanted = product(a, a_s, b, b_s)
    if m * n > 1:  # one rounding to BF16 may cost 2^-8, the gate is of many
        compare.gate(reference.gemm(a, a_s, b, b_s), wanted)
    compare.gate(reference.gemm(a, a_s, b, b_s, out_dtype=torch.float32), wanted, tolerance=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("m, n, k", SHAPES)
def test_kernel_is_exact_where_sums_are(m, n, k, form):
    a, a_s = exact(m, k)
    b, _ = exact(n, k, seed=1)
    b_s = exact(-(-n // 128), k, seed=2)[1]
    found = kernels.gemm(a, a_s, b, b_s, config=FORMS[form])
    compare.gate_bitwise(found, reference.gemm(a, a_s, b, b_s))


@pytest.mark.parametrize("form", FORMS)
def test_kernel_against_the_fp64_product(operands, form):
    _, a, a_s, _, b, b_s = operands
    compare.gate(kernels.gemm(a, a_s, b, b_s, config=FORMS[form]), product(a, a_s, b, b_s))


def test_end_to_end(operands):
    x, a, a_s, w, b, b_s = operands
    compare.gate(kernels.gemm(a, a_s, b, b_s), x.double() @ w.double().t(), tolerance=compare.END_TO_END)


def test_no_bias_on_non_negative_data():
    a, a_s = exact(128, 512)
    b, b_s = exact(128, 512, seed=3)[0], exact(1, 512, seed=4)[1]
    a, b = (x.float().abs().to(torch.float8_e4m3fn) for x in (a, b))
    compare.gate(kernels.gemm(a, a_s, b, b_s), product(a, a_s, b, b_s), bias=2e-4)


@pytest.mark.parametrize("spoil", ["row", "column", "scale", "one scale"])
def test_the_gate_catches(operands, spoil):
    _, a, a_s, _, b, b_s = operands
    found, wanted = kernels.gemm(a, a_s, b, b_s), product(a, a_s, b, b_s)
    if spoil == "row":
        found[77] = 0
    elif spoil == "column":
        found[:, 199] = 0
    elif spoil == "scale":
        found = kernels.gemm(a, a_s * 1.03, b, b_s)
    else:
        found = kernels.gemm(a, torch.cat([a_s[:64] * 1.03, a_s[64:]]), b, b_s)
    with pytest.raises(compare.GateError):
        compare.gate(found, wanted)


@pytest.mark.parametrize("form", ["flat", "descriptor", "pointer"])
@pytest.mark.parametrize("promote", [256, 512, 0])
def test_promotion_intervals(promote, form):
    k = 700
    spans = -(-k // promote) if promote else 1
    a, a_s = exact(70, k, spans=spans)
    b, b_s = exact(130, k, seed=1)[0], exact(2, k, seed=2, spans=spans)[1]
    found = kernels.gemm(a, a_s, b, b_s, torch.float32, promote=promote, config=kernels.VARIANTS[form])
    compare.gate_bitwise(found, reference.gemm(a, a_s, b, b_s, torch.float32, promote=promote))
    spread = a_s.repeat_interleave(promote or k, 1)[:, :k], b_s.repeat_interleave(promote or k, 1)[:, :k]
    whole = (a.double() * spread[0]) @ (b.double() * spread[1].repeat_interleave(128, 0)[:130]).t()
    assert torch.equal(found.double(), whole)


def test_scales_of_one_width_with_promotions_of_another_are_refused(operands):
    _, a, a_s, _, b, b_s = operands
    with pytest.raises(ValueError, match=r"a_s is float32 \[130, 2\] with promote=256"):
        kernels.gemm(a, a_s, b, b_s, promote=256)


@pytest.mark.parametrize("module", [kernels, reference])
def test_wrong_operands_are_refused(operands, module):
    _, a, a_s, _, b, b_s = operands
    with pytest.raises(ValueError, match="promote is one of 128, 256, 512, 0; got 64"):
        module.gemm(a, a_s, b, b_s, promote=64)
    with pytest.raises(ValueError, match="float8_e4m3fn"):
        module.gemm(a.float(), a_s, b, b_s)
    with pytest.raises(ValueError, match=r"\[M, K\] and \[N, K\]"):
        module.gemm(a, a_s, b[:, :256], b_s)


def test_operands_across_k_are_refused(operands):
    _, a, a_s, _, b, b_s = operands
    with pytest.raises(ValueError, match="contiguous along K"):
        kernels.gemm(a.t().contiguous().t(), a_s, b, b_s)


def test_strided_operands_and_scales(operands):
    _, a, a_s, _, b, b_s = operands
    wanted = kernels.gemm(a, a_s, b, b_s)
    wide = torch.zeros(130, 512, dtype=torch.uint8)
    wide[:, :300] = a.view(torch.uint8)
    view = wide.view(torch.float8_e4m3fn)[:, :300]
    found = kernels.gemm(view, a_s.t().contiguous().t(), b, b_s)
    compare.gate_bitwise(found, wanted)


def test_empty():
    a, b = torch.empty(0, 128).to(torch.float8_e4m3fn), torch.empty(8, 128).to(torch.float8_e4m3fn)
    assert kernels.gemm(a, torch.empty(0, 1), b, torch.ones(1, 1)).shape == (0, 8)
    a, b = torch.empty(4, 0).to(torch.float8_e4m3fn), torch.empty(8, 0).to(torch.float8_e4m3fn)
    assert kernels.gemm(a, torch.empty(4, 0), b, torch.ones(1, 0)).abs().max() == 0


@pytest.mark.parametrize("sms, grid", [(None, 132), (112, 112), (1, 1), (500, 132)])
def test_grid_is_persistent(sms, grid):
    assert kernels.programs(torch.empty(0), 1000, sms, kernels.VARIANTS["flat"]) == grid
    assert kernels.programs(torch.empty(0), 7, sms, kernels.VARIANTS["flat"]) == min(7, grid)


@pytest.mark.parametrize("sms", [1, 3])
def test_fewer_sms_change_nothing(operands, sms):
    _, a, a_s, _, b, b_s = operands
    compare.gate_bitwise(kernels.gemm(a, a_s, b, b_s, sms=sms), kernels.gemm(a, a_s, b, b_s))


def test_two_programs_an_sm_cannot_be_confined(operands):
    _, a, a_s, _, b, b_s = operands
    with pytest.raises(ValueError, match="2 programs an SM cannot be confined to 112 SMs"):
        kernels.gemm(a, a_s, b, b_s, sms=112, config=kernels.VARIANTS["twin"])
    with pytest.raises(ValueError, match="1 or more; got 0"):
        kernels.gemm(a, a_s, b, b_s, sms=0)


@pytest.mark.parametrize("m", [1, 64, 128, 4096])
def test_no_tile_is_below_wgmma(m):
    for n, k in ((2112, 7168), (24576, 1536), (7168, 2048)):
        assert kernels.choose(m, n, k, 132).block_m >= 64


def test_small_m_spreads_over_the_sms():
    few, many = kernels.choose(64, 2112, 7168, 132), kernels.choose(64, 32768, 512, 132)
    assert few.block_n < many.block_n == 128
    assert kernels.choose(4096, 2112, 7168, 132) == kernels.VARIANTS["flat"]


def test_rows_that_the_copy_engine_cannot_take_go_by_pointers(operands):
    _, a, a_s, _, b, b_s = operands
    with recorded() as launches:
        kernels.gemm(a, a_s, b, b_s)
        kernels.gemm(*(rows(128, 256)[1:]), *blocks(128, 256)[1:])
    assert [launch.constants["DESCRIPTOR"] for launch in launches] == [False, True]


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("form", [*kernels.VARIANTS, "few rows", "never promoted", "promoted every 512"])
def test_code_for_hopper(form):
    m, n, k = 64 if form == "few rows" else 4096, 2112, 7168
    promote = {"never promoted": 0, "promoted every 512": 512}.get(form, 128)
    spans = -(-k // promote) if promote else 1
    a, b = (torch.empty(x, k, dtype=torch.float8_e4m3fn, device="meta") for x in (m, n))
    a_s, b_s = (torch.empty(x, spans, device="meta") for x in (m, -(-n // 128)))
    (launch,) = variants(lambda: kernels.gemm(a, a_s, b, b_s, promote=promote, config=kernels.VARIANTS.get(form)))
    report = launch.compile()
    assert report.instructions("QGMMA") >= 4  # 4 steps of k = 32 a block of 128
    assert report.spills == 0
    assert report.shared <= 227 * 1024  # a block's most on Hopper, CUDA programming guide, compute capability 9.0
    assert "e4m3.e4m3" in report.ptx
    assert report.instructions("HMMA") == report.instructions("HGMMA") == 0


def test_a_tile_wider_than_a_scale_is_refused(operands):
    _, a, a_s, _, b, b_s = operands
    with pytest.raises(ValueError, match="block_n divides 128, so that a tile has one scale of b; got 256"):
        kernels.gemm(a, a_s, b, b_s, config=kernels.Config(64, 256, 2, 8))
