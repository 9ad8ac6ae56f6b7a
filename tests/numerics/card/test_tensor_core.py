"""The question that `check` puts to a card: passed by the model, failed by exact sums, and asked of our kernel."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.card import check  # noqa: E402
from numerics.reference import hopper  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()


def test_the_model_passes_and_exact_sums_do_not():
    said = []
    assert check.tensor_core(said.append, hopper.gemm) == 0
    assert check.tensor_core(said.append, lambda a, b: (a.double() @ b.double().t()).float()) > 0
    assert "every sum is the model's" in said[0] and "answers are not the model's" in said[1]


def test_our_kernel_is_asked_unscaled():
    """Small whole numbers: exact whatever is cut, so the interpreter may stand in for the card."""
    a, b = (torch.randint(-4, 5, (rows, 128)).float() for rows in (64, 70))
    found = check.multiplied(a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn), "cpu")
    assert torch.equal(found, a @ b.t())
