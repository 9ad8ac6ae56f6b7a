"""Stage loads: the slowest is named, and how far it is from the mean."""

import pytest

from reports import stages
from reports.ranks import HEALTHY
from sim.result import StageLoad
from tests.reports import sample


def load(stage: int, *seconds: float) -> StageLoad:
    return StageLoad(stage, stage, f"layers <{stage}>", 4, 10, *seconds)


def test_imbalance_is_the_slowest_over_the_mean() -> None:
    loads = (load(0, 1.0, 1.0, 1.0), load(1, 2.0, 2.0, 2.0))
    assert stages.load_s(loads[1]) == 6.0
    assert stages.imbalance(loads) == pytest.approx(6.0 / 4.5 - 1)
    assert "stage 1 (layers &lt;1&gt;): 6.000 s, 33.3 %" in stages.spread_text(loads)


def test_every_stage_with_its_contents() -> None:
    result = sample.result()
    made = stages.section(result)
    assert made is not None and made.data is not None
    assert [s["contents"] for s in made.data["stages"]] == [s.contents for s in result.stages]
    assert made.data["mean"] == pytest.approx(sum(map(stages.load_s, result.stages)) / sample.RANKS)


def test_no_stages_no_section() -> None:
    assert stages.section(sample.chunk_times()) is None


def test_runs_of_equal_stages() -> None:
    loads = (load(0, 2.0, 1.0, 1.0), load(1, 1.0, 1.0, 1.0), load(2, 1.0, 1.0, 1.0), load(3, 2.0, 1.0, 1.0))
    assert [(first.stage, last.stage) for first, last in stages.alike(loads)] == [(0, 0), (1, 2), (3, 3)]


def test_loads_that_stand_for_no_rank_say_so() -> None:
    made, alike = stages.section(sample.differing()), stages.section(sample.result())
    assert made is not None and made.lead.endswith(HEALTHY)
    assert alike is not None and HEALTHY not in alike.lead
    assert ">position 3</td>" in alike.body
