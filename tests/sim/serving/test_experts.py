"""How unalike experts are liked: one measured figure, and another that follows from it."""

import numpy as np
import pytest

from sim.scenario.values import Routing
from sim.serving.experts import loads
from sim.serving.rows import LIKED
from tests.sim.serving.instances import stepper


@pytest.mark.parametrize("copies, above, within", [(0, 1.564, 0.05), (32, 0.109, 0.02)])
def test_busiest_rank_with_and_without_copies(copies: int, above: float, within: float) -> None:
    """TensorRT-LLM on R1, EP32, without and with EPLB of 9 slots a rank (row TRT-IMB): rows of the busiest rank above
    the mean, on average over layers. Without copies is what `LIKED` stands for; with them is a prediction."""
    gating = stepper("h100x8", 1, 32, routing=Routing("sampled", spread=LIKED, redundant_experts=copies)).gating
    assert gating is not None
    told = np.mean([load.above for load in loads(gating, 65_536)]) - 1
    assert told == pytest.approx(above, abs=within)
