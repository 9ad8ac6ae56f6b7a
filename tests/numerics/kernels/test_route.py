import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels.route import route  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()


def int32(*values):
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize("sms", [1, 2, 7])
def test_each_row_comes_where_it_belongs_and_nothing_else_is_touched(sms):
    """Three memories, found by their addresses alone, rows of a width that no block has."""
    source = torch.arange(4 * 5).reshape(4, 5)
    memories = [torch.full((3, 5), -1) for _ in range(3)]
    pointers = torch.tensor([each.data_ptr() for each in memories])
    route(source, pointers, int32(3, 0, 3, 1), int32(0, 2, 2, 1), int32(1, 0, 2, 2), sms, warps=1)
    expected = [torch.full((3, 5), -1) for _ in range(3)]
    expected[0][1], expected[2][0], expected[2][2], expected[1][2] = source[3], source[0], source[3], source[1]
    assert all(torch.equal(found, right) for found, right in zip(memories, expected, strict=True))


def test_lists_of_unlike_lengths_are_refused():
    with pytest.raises(ValueError, match="as many as peers and places"):
        route(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1), int32(0, 0), int32(0), int32(0), 1)
