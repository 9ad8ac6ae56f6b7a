"""Measured steps over two and four GPUs: which of them run, and what of them must hold whatever prices are."""

from functools import cache

import pytest

from sim.assembly import machine
from sim.layout.buckets import gradients
from sim.layout.plan import lay_out
from sim.scenario.files import from_mapping
from sim.validation.torch_pairs import FILES, KINDS, Compared, compared, runs, scenario

SHARDED = ("fsdp", "zero2")


@cache
def rows(gpus: int) -> list[Compared]:
    return list(compared(gpus))


def test_all_are_there_and_all_run() -> None:
    assert {gpus: len(rows(gpus)) for gpus in FILES} == {2: 7, 4: 9}
    assert {run["kind"] for gpus in FILES for run in runs(gpus)} == set(KINDS)
    assert not [row.refused for gpus in FILES for row in rows(gpus) if row.simulated is None]


@pytest.mark.parametrize("gpus", FILES)
def test_each_rank_trains_on_its_own_micro_batch(gpus: int) -> None:
    """Unless several work on the same ones."""
    for run in runs(gpus):
        plain = from_mapping(scenario(run, gpus))
        assert plain.batch.sequences == plain.data_parallel * run["mbs"] * run.get("micro_batches", 1)
        assert plain.data_parallel == {"tp2_fsdp": 2}.get(
            run["kind"], 1 if run["kind"] in ("tp2sp", "tp_sp", "pp2_1f1b", "1f1b") else gpus
        )


@pytest.mark.parametrize("gpus", FILES)
def test_what_stays_exposed_is_of_the_size_that_was_measured(gpus: int) -> None:
    """The gather of what is no layer before the first, and its reduction after the last (1.05 billion parameters)."""
    for row in rows(gpus):
        if row.kind in SHARDED:
            assert row.simulated is not None
            assert 0.8 < row.simulated.exposed_ms / row.measured.exposed_ms < 1.2


def test_memory_is_what_torch_allocated() -> None:
    """On rank 0, but under DDP, where a copy of the gradients is not known here."""
    for row in rows(2):
        if row.kind != "ddp":
            assert row.simulated is not None
            assert abs(row.simulated.peak_bytes / row.measured.peak_bytes - 1) < 0.02


def test_layers_that_are_shared_alone_have_no_buckets() -> None:
    """Nothing is reduced over ranks that hold different parts of each layer, experts or not."""
    run = next(run for run in runs(2) if run["kind"] == "tp2sp")
    alone, both = scenario(run, 2), scenario(run, 2)
    both |= {"cluster": {"node": {"base": "h200x1", "gpus": 4}, "nodes": 1}}
    both["batch"] = both["batch"] | {"sequences": 2 * run["mbs"]}
    plans = [lay_out(from_mapping(each)) for each in (alone, both)]
    (none, whole), (kept, same) = (gradients(plan, machine(plan), 0) for plan in plans)
    assert none == 0.0 and whole == same == kept
