"""Measured steps over two GPUs: which of them run, and what of them must hold whatever prices are."""

from sim.scenario.files import from_mapping
from sim.validation.torch_pairs import KINDS, compared, runs, scenario

ROWS = list(compared())


def test_all_seven_are_there_and_those_of_data_parallelism_run() -> None:
    assert len(ROWS) == 7 and {run["kind"] for run in runs()} == set(KINDS)
    assert all(row.simulated for row in ROWS if row.kind in ("ddp", "fsdp", "zero2", "pp2_1f1b"))
    assert all(row.refused for row in ROWS if row.simulated is None)


def test_each_rank_trains_on_its_own_micro_batch() -> None:
    """Unless both work on the same ones."""
    for run in runs():
        if run["kind"] in ("ddp", "fsdp", "zero2"):
            plain = from_mapping(scenario(run))
            assert plain.data_parallel == 2 and plain.batch.sequences == 2 * run["mbs"]


def test_what_stays_exposed_is_of_the_size_that_was_measured() -> None:
    """The gather of what is no layer before the first, and its reduction after the last (1.05 billion parameters)."""
    for row in ROWS:
        if row.kind in ("fsdp", "zero2"):
            assert row.simulated is not None
            assert 0.8 < row.simulated.exposed_ms / row.measured.exposed_ms < 1.2


def test_memory_of_shards_is_what_torch_allocated() -> None:
    for row in ROWS:
        if row.kind in ("fsdp", "zero2"):
            assert row.simulated is not None
            assert abs(row.simulated.peak_bytes / row.measured.peak_bytes - 1) < 0.02
