"""The permuted layout: the reference against plain loops, the kernels against the reference."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import permute as kernels  # noqa: E402
from numerics.reference import compare  # noqa: E402
from numerics.reference import permute as reference  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TENSORS = ("row_of_pair", "expert_of_row", "counts", "padded_offsets")
CASES = {
    "even": (16, 4, 16, 8),
    "some experts empty": (5, 2, 32, 8),
    "one expert": (10, 1, 1, 8),
    "no power of two": (30, 6, 20, 24),
    "several blocks": (70, 4, 8, 128),
    "no tokens": (0, 2, 4, 8),
}  # tokens, choices, experts, tile


def choices(tokens: int, k: int, experts: int, seed: int = 0) -> "torch.Tensor":
    torch.manual_seed(seed)
    found = [torch.randperm(experts)[:k] for _ in range(tokens)]
    return torch.stack(found).int() if found else torch.empty(0, k, dtype=torch.int32)


def with_strangers(idx: "torch.Tensor", experts: int) -> "torch.Tensor":
    """A few pairs whose experts are elsewhere."""
    idx = idx.clone()
    idx[::3, 0], idx[1::4, -1] = -1, experts
    return idx


def moved(layout: reference.Layout, device: str = DEVICE) -> reference.Layout:
    tensors = [getattr(layout, name).to(device) for name in TENSORS]
    return reference.Layout(*tensors, layout.rows, layout.tile)


def same(actual: reference.Layout, expected: reference.Layout) -> None:
    assert (actual.rows, actual.tile) == (expected.rows, expected.tile)
    for name in TENSORS:
        one, other = getattr(actual, name).cpu(), getattr(expected, name)
        assert one.dtype == torch.int32 and torch.equal(one, other), name


def test_reference_against_a_loop() -> None:
    idx = with_strangers(choices(23, 3, 7), 7)
    layout = reference.layout(idx, 7, 8)
    row, expected = 0, torch.full(idx.shape, -1, dtype=torch.int32)
    for expert in range(7):
        assert layout.padded_offsets[expert] == row
        pairs = (idx == expert).nonzero().tolist()
        assert layout.counts[expert] == len(pairs)
        for number, (token, choice) in enumerate(pairs):
            expected[token, choice] = row + number
        padded = -(-len(pairs) // 8) * 8
        assert (layout.expert_of_row[row : row + padded] == expert).all()
        row += padded
    assert torch.equal(layout.row_of_pair, expected) and layout.rows == row
    assert layout.group_of_row_block.tolist() == layout.expert_of_row[::8].tolist()


@pytest.mark.parametrize("capacity", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_layout(case: str, capacity: bool) -> None:
    tokens, k, experts, tile = CASES[case]
    idx = choices(tokens, k, experts)
    for chosen in (idx, with_strangers(idx, experts).long()):
        rows = (tokens * k // tile + experts + 1) * tile if capacity else None
        expected = reference.layout(chosen, experts, tile, rows)
        same(kernels.layout(chosen.to(DEVICE), experts, tile, rows), expected)


@pytest.mark.parametrize("case", CASES)
def test_counts_and_map_are_the_halves_of_a_layout(case: str) -> None:
    tokens, k, experts, tile = CASES[case]
    idx = with_strangers(choices(tokens, k, experts), experts)
    counts, apart = reference.expert_count(idx, experts)
    assert counts.tolist() == [int((idx == e).sum()) for e in range(experts)] == apart.sum(0).tolist()
    found = kernels.expert_count(idx.to(DEVICE), experts)
    assert all(torch.equal(one.cpu(), other) for one, other in zip(found, (counts, apart), strict=True))
    same(kernels.expert_map(idx.to(DEVICE), *found, tile), reference.layout(idx, experts, tile))


def test_more_blocks_than_a_program_sums_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr(kernels, "BLOCKS", 2)
    idx = choices(200, 4, 8)
    same(kernels.layout(idx.to(DEVICE), 8, 16), reference.layout(idx, 8, 16))


@pytest.mark.parametrize(
    ("tokens", "k", "experts", "ranks"), [(16, 4, 16, 8), (70, 6, 40, 5), (9, 2, 8, 1), (0, 2, 4, 2)]
)
def test_dispatch_layout(tokens: int, k: int, experts: int, ranks: int) -> None:
    idx = with_strangers(choices(tokens, k, experts), experts)
    expected = reference.dispatch_layout(idx, experts, ranks)
    for token in range(tokens):
        here = {e // (experts // ranks) for e in idx[token].tolist() if 0 <= e < experts}
        assert set(expected[2][token].nonzero().flatten().tolist()) == here
    assert torch.equal(expected[0], expected[2].sum(0).int())
    assert torch.equal(expected[1], reference.expert_count(idx, experts)[0])
    for given in (idx, idx.long()):
        found = kernels.dispatch_layout(given.to(DEVICE), experts, ranks)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype and torch.equal(one.cpu(), other)
    with pytest.raises(ValueError, match=f"{experts} experts do not divide among 3 ranks"):
        kernels.dispatch_layout(idx.to(DEVICE), experts, 3)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [*((case, torch.bfloat16) for case in CASES), ("even", torch.float32), ("even", torch.float8_e4m3fn)],
)
def test_permute(case: str, dtype: "torch.dtype") -> None:
    tokens, k, experts, tile = CASES[case]
    layout = reference.layout(with_strangers(choices(tokens, k, experts), experts), experts, tile)
    x = torch.randn(tokens, 96).to(dtype)
    compare.gate_bitwise(kernels.permute(x.to(DEVICE), moved(layout)).cpu(), reference.permute(x, layout))


@pytest.mark.parametrize("case", CASES)
def test_words_side_by_side_stay_so(case: str) -> None:
    """As casts write scales: the same values as of plain rows, without a copy before or behind."""
    tokens, k, experts, tile = CASES[case]
    layout = reference.layout(choices(tokens, k, experts), experts, tile)
    plain = torch.randn(tokens, 56)
    out = kernels.permute(plain.t().contiguous().t().to(DEVICE), moved(layout))
    assert torch.equal(out.cpu(), reference.permute(plain, layout))
    assert tokens < 2 or out.stride() == (1, layout.rows)


def test_permute_clears_what_lies_behind() -> None:
    layout = reference.layout(choices(6, 2, 4), 4, 8, rows=64)
    x = torch.ones(6, 4)
    out = kernels.permute(x.to(DEVICE), moved(layout)).cpu()
    assert out.shape == (64, 4) and out.sum() == 6 * 2 * 4
    assert torch.equal(out, reference.permute(x, layout))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_unpermute(case: str, weighted: bool) -> None:
    tokens, k, experts, tile = CASES[case]
    layout = reference.layout(with_strangers(choices(tokens, k, experts), experts), experts, tile)
    y, weights = torch.randn(layout.rows, 96).bfloat16(), torch.rand(tokens, k) if weighted else None
    actual = kernels.unpermute(y.to(DEVICE), moved(layout), None if weights is None else weights.to(DEVICE))
    expected = reference.unpermute(y, layout, weights)
    # The device may fuse product and sum; a sum that nearly cancels then moves by an ulp of its largest term.
    torch.testing.assert_close(actual.cpu(), expected, rtol=2.0**-7, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_unpermute_backward(weighted: bool) -> None:
    layout = reference.layout(with_strangers(choices(30, 4, 8), 8), 8, 16)
    y, dout = torch.randn(layout.rows, 96).bfloat16(), torch.randn(30, 96).bfloat16()
    weights = torch.rand(30, 4) if weighted else None
    given = None if weights is None else weights.to(DEVICE)
    dy, dweights = kernels.unpermute_backward(dout.to(DEVICE), y.to(DEVICE), moved(layout), given)
    expected = reference.unpermute_backward(dout, y, layout, weights)
    compare.gate_bitwise(dy.cpu(), expected[0], "dy")
    torch.testing.assert_close(dweights.cpu(), expected[1], rtol=1e-5, atol=1e-4)


def test_reference_gradients_are_autograds() -> None:
    layout = reference.layout(with_strangers(choices(9, 3, 5), 5), 5, 4)
    y, weights = torch.randn(layout.rows, 6, requires_grad=True), torch.rand(9, 3, requires_grad=True)
    dout = torch.randn(9, 6)
    row = layout.row_of_pair.long()
    picked = torch.where((row >= 0)[..., None], y[row.clamp(min=0)], 0.0)
    (picked * weights[..., None]).sum(dim=1).backward(dout)
    dy, dweights = reference.unpermute_backward(dout, y.detach(), layout, weights.detach())
    torch.testing.assert_close(dy, y.grad)
    torch.testing.assert_close(dweights, weights.grad)


def test_there_and_back() -> None:
    """k equal weights of 1/k bring every token home."""
    layout = reference.layout(choices(20, 4, 8), 8, 16)
    x = torch.randn(20, 64).bfloat16().to(DEVICE)
    back = kernels.unpermute(kernels.permute(x, moved(layout)), moved(layout), torch.full((20, 4), 0.25, device=DEVICE))
    compare.gate_bitwise(back, x)


@pytest.mark.parametrize("damage", ["row", "scale"])
def test_the_gate_catches(damage: str) -> None:
    layout = reference.layout(choices(40, 4, 8), 8, 16)
    y, weights = torch.randn(layout.rows, 128), torch.rand(40, 4)
    right = reference.unpermute(y, layout, weights)
    y[layout.row_of_pair[5, 2]] *= 0
    wrong = reference.unpermute(y, layout, weights) if damage == "row" else right * 1.03
    with pytest.raises(compare.GateError):
        compare.gate(wrong, right)


def test_too_small_a_capacity() -> None:
    """The reference refuses; the kernels, which do not wait for the device, drop pairs and never write outside."""
    idx = choices(20, 2, 4)
    with pytest.raises(ValueError, match="rows are needed, in multiples of 8; got a capacity of 16"):
        reference.layout(idx, 4, 8, rows=16)
    layout = kernels.layout(idx.to(DEVICE), 4, 8, rows=16)
    assert int(layout.row_of_pair.max()) < 16 < int(layout.padded_offsets[-1])
    assert kernels.permute(torch.ones(20, 4, device=DEVICE), layout).shape == (16, 4)
    with pytest.raises(ValueError, match="multiples of 8; got a capacity of 12"):
        kernels.layout(idx.to(DEVICE), 4, 8, rows=12)


def test_rows_of_odd_bytes_are_refused() -> None:
    layout = reference.layout(choices(2, 1, 2), 2, 8)
    with pytest.raises(ValueError, match="rows of 6 bytes"):
        kernels.permute(torch.zeros(2, 3, dtype=torch.bfloat16, device=DEVICE), moved(layout))
