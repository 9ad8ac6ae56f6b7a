"""Cards beside each other: what the committed tables say of transfer."""

import numpy as np
import pytest

from hwmodels import tables as calibration
from hwmodels.op import Memory
from hwmodels.transfer import POWER, REACHED, at_bandwidth
from numerics.accuracy import siblings
from numerics.accuracy.siblings import Both, by_side, score


def test_cards_are_those_measured_whole():
    assert siblings.measured_cards() == ("h100", "h200")
    assert set(siblings.pairs()) == {("h100", "h200"), ("h200", "h100")}


@pytest.mark.parametrize("pair", list(siblings.pairs()), ids="-".join)
def test_every_operation_is_on_both_cards_and_comes_back(pair):
    rows = siblings.transferred(*pair)
    exact = calibration.load(siblings.beside(pair[0])).exact
    assert len(rows) > 400 and {b.op for b in rows} <= set(calibration.load(siblings.beside(pair[1])).exact)
    sides = {side: score(found) for side, found in by_side(rows).items()}
    assert sides["product"].median < 0.02 and sides["attention"].median < 0.02
    assert sides["stream"].median < 0.06 and sides["latency"].median < 0.07
    assert all(b.rung == "transferred" for b in rows if b.op in exact and b.side == "product")


@pytest.mark.parametrize("pair", list(siblings.pairs()), ids="-".join)
def test_a_kind_comes_back_by_constants_it_had_no_say_in(pair):
    fits = siblings.refits(*pair)
    assert len({f.kind for f in fits}) == len(fits) > 20
    assert np.median([f.error for f in fits]) < 0.06


@pytest.mark.parametrize("pair", list(siblings.pairs()), ids="-".join)
def test_the_constants_are_unbiased_and_near_the_best(pair):
    """Rate and power trade against each other, so which of the best is the best says little."""
    known, found = (calibration.load(siblings.beside(name)) for name in pair)
    old, new = (t.reference["hbm_bytes_per_s"] for t in (known, found))
    rows = [(row["us"], op.bytes(), found.exact[op]["us"]) for op, row in known.exact.items()
            if isinstance(op, Memory) and op.bytes() and op in found.exact]  # fmt: skip

    def errors(reached, power):
        return np.array([at_bandwidth(us, size, old, new, reached, power) / true - 1 for us, size, true in rows])

    best = min(np.median(np.abs(errors(reached, power))) for reached in siblings.GRID[0] for power in siblings.GRID[1])
    chosen = errors(REACHED, POWER)
    assert abs(np.median(chosen)) < 0.005 and np.median(np.abs(chosen)) < best + 0.015
    assert max(np.abs(np.median(errors(REACHED, power))) for power in (1.0, 4.0)) > 0.02, "the power does matter"


def test_a_flat_ratio_would_be_far_worse():
    """All time scaled by bandwidth, as the ladder did before two cards were measured."""
    known, found = calibration.load("h100"), calibration.load("h200/twins")
    ratio = known.reference["hbm_bytes_per_s"] / found.reference["hbm_bytes_per_s"]
    rows = [b for b in siblings.transferred("h100", "h200") if b.side in ("stream", "latency")]
    flat = np.median([abs(known.exact[b.op]["us"] * ratio / b.us - 1) for b in rows])
    assert flat > 2.5 * score(rows).median


def test_scores_by_hand():
    made = [Both(us, priced, None, "stream", "transferred") for us, priced in ((10, 11), (10, 8), (20, 20))]
    found = score(made)
    assert (found.count, found.median, found.signed) == (3, pytest.approx(0.1), 0)
    assert found.total == pytest.approx(39 / 40 - 1) and found.p95 == pytest.approx(0.19)
    with pytest.raises(ValueError, match="nothing to score"):
        score([])
