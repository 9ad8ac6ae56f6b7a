"""Hopper's E5M6 store: its code, cross-compiled, which matrices it takes, and how it rounds. `check` and `bench` run it
on a card, bit for bit."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import e5m6, e5m6_pack  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import recorded, variants  # noqa: E402
from numerics.reference import casts as reference  # noqa: E402


def x(m=4096, k=16384, dtype=torch.bfloat16):
    return torch.empty(m, k, dtype=dtype, device="meta")


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
def test_code_for_hopper():
    (launch,) = variants(lambda: e5m6.store_e5m6(x()))
    report = launch.compile()
    assert launch.kernel.__name__ == "_store_eights"
    assert report.spills == 0 and report.registers <= 64
    groups = 2 * e5m6_pack.PAIRS
    assert report.instructions("LDG.E.128") == report.instructions("STG.E.128") == 2 * groups
    assert report.instructions("STS") <= 2  # words are exchanged between lanes
    assert report.instructions("SHFL.DOWN") == 2 * 3 * groups


@pytest.mark.parametrize("matrix, kernel", [
    (x(), "_store_eights"), (x(3, 128), "_store_eights"), (x(8, 136), "_store"), (x(8, 256)[:, :128], "_store"),
    (x(8, 256, torch.float32), "_store"),
])  # fmt: skip
def test_rows_of_whole_tiles_without_gaps(matrix, kernel):
    with recorded() as launches:
        e5m6.store_e5m6(matrix)
    assert [launch.kernel.__name__ for launch in launches] == [kernel]


@pytest.mark.parametrize("largest", [0x477E, 0x477F, 0x3F80, 0x0001, 0x007F, 0x0080, 0x7F7F, 0x5A31])
def test_by_way_of_twelve_numbers_are_rounded_as_e5m6_does(largest):
    """All BF16 numbers of a tile with this largest magnitude, in the kernel's steps, against the reference's codes."""
    bits = torch.arange(2**16, dtype=torch.int32)
    bits = bits[(bits & 0x7FFF) <= largest]
    numbers = bits.to(torch.int16).view(torch.bfloat16)
    tiles = torch.nn.functional.pad(numbers, (0, -len(numbers) % 127)).view(-1, 127)
    top = torch.full((len(tiles), 1), largest, dtype=torch.int16).view(torch.bfloat16)
    packed, s = reference.store_e5m6(torch.cat([top, tiles], 1))
    codes = reference.unpack_12(packed, 128)[:, 1:].flatten()[: len(bits)]
    exact = numbers.double() * (1 / s[0].double())
    half = ((exact + 12).float() - 12).half()
    assert torch.equal(half.float(), (exact + 12).float() - 12)  # nothing is rounded twice
    half = (half.view(torch.int16).int() & 0x7FFF) | (bits & 0x8000)
    half = half + ((half >> 1) & 8)
    assert torch.equal(half >> 4, codes.int())
