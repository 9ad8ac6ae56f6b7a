"""The router's choice: the reference against a plain reading of the papers, the kernel against the reference."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import gate as kernels  # noqa: E402
from numerics.reference import gate as reference  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = {
    "V3": (256, 8, 4, 8, "sigmoid", True),
    "V2": (160, 8, 3, 6, "softmax", False),
    "V2-Lite": (64, 1, 1, 6, "softmax", False),
    "softmax with a bias": (24, 4, 2, 3, "softmax", True),
    "tiny": (6, 3, 2, 2, "sigmoid", True),
    "groups of one": (8, 8, 4, 4, "sigmoid", True),
    "all": (4, 1, 1, 4, "sigmoid", False),
}  # experts, groups, chosen groups, k, score, bias


def operands(tokens: int, experts: int, biased: bool) -> tuple:
    """Logits that are never close: a shuffled grid, so that ulps of the exponential cannot reorder them."""
    torch.manual_seed(experts)
    order = torch.stack([torch.randperm(experts) for _ in range(tokens)])
    bias = torch.linspace(-0.2, 0.2, experts)[torch.randperm(experts)] if biased else None
    return 6 * (order + 0.5) / experts - 3, bias


def by_hand(logits, bias, groups, chosen, k, score, scale) -> tuple[list[int], list[float]]:
    """One token, as the papers say it, in Python floats."""
    if score == "sigmoid":
        s = [1 / (1 + math.exp(-x)) for x in logits]
    else:
        s = [math.exp(x) / sum(math.exp(y) for y in logits) for x in logits]
    b = [x + y for x, y in zip(s, bias or [0.0] * len(s), strict=True)]
    size = len(s) // groups
    best = 2 if score == "sigmoid" and size > 1 else 1
    rank = [sum(sorted(b[g * size : (g + 1) * size])[-best:]) for g in range(groups)]
    kept = sorted(range(groups), key=lambda g: (-rank[g], g))[:chosen]
    members = [e for e in range(len(s)) if e // size in kept]
    idx = sorted(members, key=lambda e: (-b[e], e))[:k]
    total = sum(s[e] for e in idx) if score == "sigmoid" else 1.0
    return idx, [s[e] / total * scale for e in idx]


@pytest.mark.parametrize("case", CASES)
def test_reference_is_the_paper(case: str) -> None:
    experts, groups, chosen, k, score, biased = CASES[case]
    logits, bias = operands(12, experts, biased)
    idx, weights = reference.gate(logits, bias, groups, chosen, k, score, 2.5)
    plain = None if bias is None else bias.tolist()
    for token in range(12):
        expected = by_hand(logits[token].tolist(), plain, groups, chosen, k, score, 2.5)
        assert idx[token].tolist() == expected[0]
        torch.testing.assert_close(weights[token], torch.tensor(expected[1]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_kernel(case: str) -> None:
    experts, groups, chosen, k, score, biased = CASES[case]
    logits, bias = operands(9, experts, biased)
    moved = None if bias is None else bias.to(DEVICE)
    idx, weights = kernels.gate(logits.to(DEVICE), moved, groups, chosen, k, score, 2.5)
    expected = reference.gate(logits, bias, groups, chosen, k, score, 2.5)
    assert idx.dtype == torch.int32 and torch.equal(idx.cpu(), expected[0])
    torch.testing.assert_close(weights.cpu(), expected[1], rtol=2e-6, atol=0)


@pytest.mark.parametrize("module", [kernels, reference])
def test_equal_scores_go_to_the_lower_index(module) -> None:
    idx, weights = module.gate(torch.zeros(3, 16, device=DEVICE), None, 4, 2, 3)
    assert idx.cpu().tolist() == [[0, 1, 2]] * 3
    torch.testing.assert_close(weights.cpu(), torch.full((3, 3), 1 / 3))


@pytest.mark.parametrize("module", [kernels, reference])
def test_bias_chooses_but_does_not_weigh(module) -> None:
    """arXiv 2412.19437 eq. 16: a huge bias brings an expert in; its weight is its own small score's."""
    logits = torch.tensor([[4.0, 3.0, -3.0, 2.0]], device=DEVICE)
    idx, weights = module.gate(logits, torch.tensor([0.0, 0.0, 9.0, 0.0], device=DEVICE), 1, 1, 2)
    assert idx.cpu().tolist() == [[2, 0]]
    s = torch.sigmoid(logits.cpu())[0, [2, 0]]
    torch.testing.assert_close(weights.cpu()[0], s / s.sum())


@pytest.mark.parametrize("module", [kernels, reference])
def test_groups_limit_the_choice(module) -> None:
    """The best expert alone in a poor group loses to a group with two good ones, ranked by the sum of two."""
    logits = torch.tensor([[3.0, -9.0, 2.0, 2.0]], device=DEVICE)
    assert module.gate(logits, None, 2, 1, 1)[0].item() == 2
    assert module.gate(logits, None, 2, 1, 1, score="softmax")[0].item() == 0


def test_bfloat16_logits_and_strides() -> None:
    logits, bias = operands(5, 16, True)
    wide = torch.cat([logits, logits], dim=1).bfloat16().to(DEVICE)[:, :16]
    actual = kernels.gate(wide, bias.to(DEVICE), 4, 2, 3)
    expected = reference.gate(wide.cpu(), bias, 4, 2, 3)
    assert torch.equal(actual[0].cpu(), expected[0])
    torch.testing.assert_close(actual[1].cpu(), expected[1], rtol=2e-6, atol=0)
    assert kernels.gate(wide[:0], None, 4, 2, 3)[0].shape == (0, 3)


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 3, 1, 1), "16 experts do not divide into 3 groups"),
        ((None, 4, 5, 1), "4 groups of which 5 are chosen"),
        ((None, 4, 2, 9), "9 experts cannot be chosen from 2 groups of 4"),
        ((torch.zeros(4), 4, 2, 3), r"bias has shape \[4\]; 16 experts need \[16\]"),
        ((None, 4, 2, 3, "relu"), "score is one of"),
    ],
)
def test_errors(module, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module.gate(torch.zeros(2, 16, device=DEVICE), *arguments)
