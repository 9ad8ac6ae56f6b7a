"""Hopper's casts of columns: their code, cross-compiled, and which matrices they take. `check` and `bench` run them on
a card, bit for bit."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import casts, columns  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import recorded, variants  # noqa: E402


def call(coded, power_of_two, m=4096, k=7168):
    kind = torch.float8_e4m3fn if coded else torch.bfloat16
    x = torch.empty(m, k, dtype=kind, device="meta")
    if coded:
        return lambda: casts.requantize_columns(x, torch.empty(-(-k // 128), m, device="meta").t(), power_of_two)
    return lambda: casts.quantize_columns(x, power_of_two)


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("coded, power_of_two", [(False, False), (True, False), (False, True), (True, True)])
def test_code_for_hopper(coded, power_of_two):
    (launch,) = variants(call(coded, power_of_two))
    report = launch.compile()
    assert launch.kernel.__name__ == "_turn"
    assert report.spills == 0 and report.registers <= 128
    assert report.instructions("UTMALDG") == (columns.FORMS[coded].stages + 1) * (1 + coded)
    # A strip of 16 rows a thread: codes do not go through shared memory again, and lines are written whole.
    assert report.instructions("LDS") >= 16 and (coded or report.instructions("LDS.64") == 16)
    assert report.instructions("STG.E.128") == 4 + 1 + 1 and report.instructions("STS") < 16
    assert report.instructions("F2FP.SATFINITE") == (64 + 16) // 2  # two at once; 16 of the tiles that take care


@pytest.mark.parametrize("m, k, kernel", [
    (4096, 7168, "_turn"), (16, 208, "_turn"), (1000, 7168, "_quantize_columns"), (4096, 7004, "_quantize_columns"),
])  # fmt: skip
def test_what_the_copy_engine_cannot_address_goes_to_the_twin(m, k, kernel):
    with recorded() as launches:
        call(False, False, m, k)()
    assert [launch.kernel.__name__ for launch in launches] == [kernel]


def test_scales_that_the_copy_engine_cannot_address_are_copied():
    q = torch.empty(64, 256, dtype=torch.float8_e4m3fn, device="meta")
    for s in (torch.empty(64, 2, device="meta"), torch.empty(2, 64, device="meta").t()):
        with recorded() as launches:
            casts.requantize_columns(q, s)
        assert [launch.kernel.__name__ for launch in launches] == ["_turn"]
