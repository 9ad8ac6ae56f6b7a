import re

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import wgrad as kernels  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import variants  # noqa: E402
from numerics.reference import casts, compare  # noqa: E402
from numerics.reference import gemm as reference  # noqa: E402
from tests.numerics import interpreter  # noqa: E402
from tests.numerics.kernels.tensor_core import exact, product  # noqa: E402

interpreter.install()

SHAPES = [(128, 128, 256), (130, 70, 300), (64, 200, 100), (1, 1, 1)]


def layer(tokens=300, n=130, k=70):
    """dY [tokens, n], X [tokens, k] and their 128x1 transposed casts."""
    generator = torch.Generator().manual_seed(0)
    dy, x = (torch.randn(tokens, width, generator=generator) * (1 + torch.arange(width) % 5) for width in (n, k))
    return dy, x, *casts.quantize_columns(dy), *casts.quantize_columns(x)


@pytest.mark.parametrize("form", kernels.VARIANTS)
@pytest.mark.parametrize("n, k, m", SHAPES)
def test_exact_where_sums_are(n, k, m, form):
    (a, a_s), (b, b_s) = exact(n, m), exact(k, m, seed=1)
    start = torch.arange(n * k).view(n, k).float()
    found = kernels.wgrad_gemm(a, a_s, b, b_s, start.clone(), config=kernels.VARIANTS[form])
    compare.gate_bitwise(found, reference.wgrad_gemm(a, a_s, b, b_s, start.clone()))
    compare.gate_bitwise(found, (start.double() + product(a, a_s, b, b_s, block_rows=1)).float())


@pytest.mark.parametrize("module", [kernels, reference])
def test_against_fp64_and_end_to_end(module):
    dy, x, a, a_s, b, b_s = layer()
    found = module.wgrad_gemm(a, a_s, b, b_s, torch.zeros(130, 70))
    compare.gate(found, product(a, a_s, b, b_s, block_rows=1), tolerance=1e-5)
    compare.gate(found, dy.double().t() @ x.double(), tolerance=compare.END_TO_END)


@pytest.mark.parametrize("module", [kernels, reference])
def test_accumulates_in_place_in_fp32(module):
    _, _, a, a_s, b, b_s = layer()
    out = torch.full((130, 70), 2.0**-20)
    assert module.wgrad_gemm(a, a_s, b, b_s, out) is out
    once = out.clone()
    module.wgrad_gemm(a, a_s, b, b_s, out)
    compare.gate(out.double(), 2 * once.double() - 2.0**-20, tolerance=1e-6)


def test_a_wrong_scale_of_one_row_is_caught():
    _, _, a, a_s, b, b_s = layer()
    wanted = product(a, a_s, b, b_s, block_rows=1)
    b_s[3] *= 1.03
    with pytest.raises(compare.GateError):
        compare.gate(kernels.wgrad_gemm(a, a_s, b, b_s, torch.zeros(130, 70)), wanted)


@pytest.mark.parametrize("promote", [256, 0])
def test_promotion_intervals(promote):
    spans = -(-600 // promote) if promote else 1
    (a, a_s), (b, b_s) = exact(70, 600, spans=spans), exact(66, 600, seed=1, spans=spans)
    found = kernels.wgrad_gemm(a, a_s, b, b_s, torch.zeros(70, 66), promote=promote)
    compare.gate_bitwise(found, reference.wgrad_gemm(a, a_s, b, b_s, torch.zeros(70, 66), promote=promote))


@pytest.mark.parametrize("module", [kernels, reference])
def test_wrong_gradients_are_refused(module):
    _, _, a, a_s, b, b_s = layer()
    with pytest.raises(ValueError, match=r"out is FP32 \[130, 70\]"):
        module.wgrad_gemm(a, a_s, b, b_s, torch.zeros(130, 70, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"b_s is float32 \[70, 3\]"):
        module.wgrad_gemm(a, a_s, b, b_s[:1], torch.zeros(130, 70))


def test_fewer_sms_change_nothing():
    _, _, a, a_s, b, b_s = layer()
    few, all_of_them = (kernels.wgrad_gemm(a, a_s, b, b_s, torch.zeros(130, 70), sms=sms) for sms in (1, None))
    compare.gate_bitwise(few, all_of_them)


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("form", kernels.VARIANTS)
def test_code_for_hopper(form):
    a, b = (torch.empty(x, 4096, dtype=torch.float8_e4m3fn, device="meta") for x in (7168, 2048))
    a_s, b_s, out = (torch.empty(*s, device="meta") for s in ((7168, 32), (2048, 32), (7168, 2048)))
    (launch,) = variants(lambda: kernels.wgrad_gemm(a, a_s, b, b_s, out, config=kernels.VARIANTS[form]))
    report = launch.compile()
    assert report.instructions("QGMMA") >= 4
    assert report.spills == 0
    assert "e4m3.e4m3" in report.ptx
    assert not re.search(r"\b(atom|red)\.(global|relaxed|acq)", report.ptx)  # the gradient does not depend on timing
