"""DeepGEMM's products at serving's sizes: what is drawn, what passes the gate, and where there is no card."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from numerics.card import deepgemm
from numerics.card.deepgemm import GEMM, GROUPED, MASKED, Product


def test_rows_are_drawn_about_their_mean() -> None:
    """Within the spread that is said, both ends among them, and the mean of many is the size that the row has."""
    each = np.array([deepgemm.drawn(8, 100, np.random.default_rng(seed)) for seed in range(500)])
    assert (each.min(), each.max()) == (70, 130)
    assert each.mean() == pytest.approx(100, abs=1)


def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert deepgemm.main(["--rivals", "nowhere", "--out", f"{tmp_path}/rows.csv"]) == 2
    assert "nothing can be measured here" in capsys.readouterr().err


def test_products_of_the_same_weights_are_beside_each_other() -> None:
    """So that weights are made once a shape: as many changes as there are sets."""
    sets = [(p.kind, p.groups, p.n, p.k) for p in deepgemm.products()]
    changes = 1 + sum(one != other for one, other in pairwise(sets))
    assert changes == len(set(sets)) == 6 + 6 + 10


def library(wrong: float = 1.0) -> Any:
    """DeepGEMM's functions in plain torch, times a factor."""

    def wide(w: Tensor, w_s: Tensor) -> Tensor:
        return w.float() * w_s.repeat_interleave(128, 0)[: len(w)].repeat_interleave(128, 1)

    def left(a: tuple[Tensor, Tensor]) -> Tensor:
        return a[0].float() * a[1].repeat_interleave(128, -1)

    def gemm(a: Any, b: Any, out: Tensor) -> None:
        out.copy_(wrong * left(a) @ wide(*b).T)

    def contiguous(a: Any, b: Any, out: Tensor, of: Tensor) -> None:
        for row, group in enumerate(of.tolist()):
            out[row] = wrong * left(a)[row] @ wide(b[0][group], b[1][group]).T

    def masked(a: Any, b: Any, out: Tensor, rows: Tensor, mean: int) -> None:
        for group, count in enumerate(rows.tolist()):
            out[group, :count] = wrong * left(a)[group, :count] @ wide(b[0][group], b[1][group]).T

    return SimpleNamespace(
        gemm_fp8_fp8_bf16_nt=gemm, m_grouped_gemm_fp8_fp8_bf16_nt_contiguous=contiguous,
        m_grouped_gemm_fp8_fp8_bf16_nt_masked=masked, get_col_major_tma_aligned_tensor=lambda scales: scales,
    )  # fmt: skip


@pytest.mark.parametrize("product", [Product(GEMM, 1, 64, 192, 256), Product(GROUPED, 3, 128, 128, 256),
                                     Product(MASKED, 2, 40, 128, 256)])  # fmt: skip
def test_nothing_is_timed_that_is_wrong(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right product passes the gate, one that is a hundredth off does not."""
    monkeypatch.setattr(deepgemm, "DEVICE", "cpu")
    monkeypatch.setattr(deepgemm, "APART_BYTES", 0)
    monkeypatch.setattr(deepgemm, "PLACES", 64)
    rows = [product.rows] * product.groups
    torch.manual_seed(0)
    deepgemm.Weights(library(), product).call(product, rows)(1)
    with pytest.raises(ArithmeticError, match="off"):
        deepgemm.Weights(library(1.01), product).call(product, rows)
