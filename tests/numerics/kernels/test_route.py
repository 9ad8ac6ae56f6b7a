import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import variants  # noqa: E402
from numerics.kernels.route import route  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()


def int32(*values):
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize("sms", [1, 2, 7])
def test_each_row_comes_where_it_belongs_and_nothing_else_is_touched(sms):
    """Three memories, found by their addresses alone, rows of a width that no block has."""
    source = torch.arange(4 * 6).reshape(4, 6)
    memories = [torch.full((3, 6), -1) for _ in range(3)]
    pointers = torch.tensor([each.data_ptr() for each in memories])
    route(source, pointers, int32(3, 0, 3, 1), int32(0, 2, 2, 1), int32(1, 0, 2, 2), sms, warps=1)
    expected = [torch.full((3, 6), -1) for _ in range(3)]
    expected[0][1], expected[2][0], expected[2][2], expected[1][2] = source[3], source[0], source[3], source[1]
    assert all(torch.equal(found, right) for found, right in zip(memories, expected, strict=True))


@pytest.mark.parametrize("source, rows, words", [
    (torch.zeros(1, 2, dtype=torch.int64), int32(0, 0), "as many rows as peers"),
    (torch.zeros(1, 3, dtype=torch.int64), int32(0), "even number of int64"), (torch.zeros(1, 2), int32(0), "int64"),
])  # fmt: skip
def test_other_rows_and_lists_of_unlike_lengths_are_refused(source, rows, words):
    with pytest.raises(ValueError, match=words):
        route(source, torch.zeros(1), rows, int32(0), int32(0), 1)


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("row_bytes", [7392, 14336, 2112, 4096])
def test_code_for_hopper_moves_16_bytes_a_thread_for_rows_of_every_exchange(row_bytes):
    source = torch.empty(64, row_bytes // 8, dtype=torch.int64, device="meta")
    way = [torch.empty(100, dtype=torch.int32, device="meta")] * 3
    pointers = torch.empty(8, dtype=torch.int64, device="meta")
    (launch,) = variants(lambda: route(source, pointers, *way, 20))
    report = launch.compile()
    assert report.spills == 0
    assert report.sass.count("LDG.E.128") == report.sass.count("STG.E.128") > 0
