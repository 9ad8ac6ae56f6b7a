"""Scenarios that ship with the layout of a published row say what the row does."""

import pytest

from sim.scenario import SCENARIOS, load
from sim.scenario.files import from_mapping
from sim.validation.runs import rows, scenario

ROWS = {run.id: run for run in rows.read(SCENARIOS / "published" / "training_runs.csv")}


@pytest.mark.parametrize(("file", "row"), [("qwen3_235b_ep8", "MB-100"), ("llama3_70b_fsdp", "TT-019")])
def test_a_scenario_has_the_layout_and_batch_of_its_row(file: str, row: str) -> None:
    """All but the power and memory of cards that nobody else has, and the fabric, which rows do not say."""
    ours = load(str(SCENARIOS / f"{file}.yaml"))
    theirs = from_mapping(dict(scenario.mapped(ROWS[row]).plain))
    assert ours.cluster is not None and theirs.cluster is not None
    assert ours.cluster.gpus == theirs.cluster.gpus and ours.data_parallel == theirs.data_parallel
    for key in ("model", "precision", "stack", "parallel", "batch", "recompute", "states", "placement", "schedule"):
        assert getattr(ours, key) == getattr(theirs, key), key
    for overlap in (ours.overlap, theirs.overlap):
        assert not overlap.expert and not overlap.tensor
