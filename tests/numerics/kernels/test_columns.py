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


@pytest.mark.parametrize("size, each, swizzled", [(1, 4, 3), (2, 2, 7)], ids=["codes", "words of two"])
def test_no_bank_of_shared_memory_is_asked_twice(size, each, swizzled):
    """Where a warp's lanes read: 16 x 8 rows of 64 numbers, whose 16 bytes are swizzled by rows of 128 (PTX ISA, tensor
    copies). A load of 8 bytes a lane comes in two halves."""
    layout = columns._strips(each, True)
    per_word = 2 if size == 2 else 1  # numbers that are read as one
    banks = []
    for lane in range(32):
        place = [sum(base[axis] for bit, base in enumerate(layout.lane_bases) if lane >> bit & 1) for axis in range(3)]
        offset = (place[0] * 8 + place[1]) * 64 * size + place[2] * size * per_word
        offset ^= (offset >> 7 & swizzled) << 4
        banks.append([(offset // 4 + word) % 32 for word in range(each * size * per_word // 4)])
    at_once = 32 // len(banks[0])
    for first in range(0, 32, at_once):
        asked = [bank for lane in banks[first : first + at_once] for bank in lane]
        assert len(set(asked)) == len(asked) == 32


def test_every_row_and_column_is_some_threads():
    for each in (1, 2, 4):
        layout = columns._strips(each, False)
        bases = [*layout.reg_bases, *layout.lane_bases, *layout.warp_bases]
        assert sorted(base[0] + 16 * base[1] + 128 * base[2] for base in bases) == [1 << i for i in range(len(bases))]
        assert 1 << len(bases) == 128 * 16 * each
