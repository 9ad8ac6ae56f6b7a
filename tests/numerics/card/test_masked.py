"""Masked products of experts: what is drawn, and where there is no card."""

import numpy as np
import pytest

from numerics.card import masked


def test_rows_are_drawn_about_their_mean() -> None:
    """Within the spread that is said, both ends among them, and the mean of many is the size that the row has."""
    each = np.array([masked.drawn(8, 100, np.random.default_rng(seed)) for seed in range(500)])
    assert (each.min(), each.max()) == (70, 130)
    assert each.mean() == pytest.approx(100, abs=1)


def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert masked.main(["--rivals", "nowhere", "--out", f"{tmp_path}/rows.csv"]) == 2
    assert "nothing can be measured here" in capsys.readouterr().err
