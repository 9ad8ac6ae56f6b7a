"""Lengths of documents in a scenario: a distribution, a file, or pairs; what is wrong has its line."""

from pathlib import Path

import pytest

from hwmodels.refused import Refused
from sim.experiments.unfelt import unfelt
from sim.scenario import SCENARIOS, load
from sim.scenario.values import Lengths

MAIN = str(SCENARIOS / "llama3_8b_one_node.yaml")


def lengths(*words):
    return load(MAIN, words).batch.lengths


def test_kinds():
    assert lengths() is None and load(MAIN).batch.packed
    assert lengths("batch.lengths={kind: fixed, length: 512}") == Lengths("fixed", length=512)
    uniform = lengths("batch.lengths.kind=uniform", "batch.lengths.from=5", "batch.lengths.to=9")
    assert uniform == Lengths("uniform", low=5, high=9) and uniform.mean == 7
    lognormal = lengths("batch.lengths={kind: lognormal, median: 100, sigma: 2}")
    assert lognormal == Lengths("lognormal", median=100, sigma=2) and lognormal.mean == pytest.approx(738.9, abs=0.1)


def test_a_file_stands_for_its_rows(tmp_path):
    (tmp_path / "scenario.yaml").write_text(
        Path(MAIN).read_text(encoding="utf-8").replace("micro_batch: 1", "micro_batch: 1, lengths: told.csv"), "utf-8"
    )
    (tmp_path / "told.csv").write_text("length,count\n900, 2  # long\n\n# short\n100,5\n100,1\n30,0\n", "utf-8")
    scenario = load(str(tmp_path / "scenario.yaml"))
    assert scenario.batch.lengths == Lengths("recorded", histogram=((100, 6), (900, 2)))
    assert scenario.batch.lengths.mean == 300
    (tmp_path / "told.csv").unlink()
    again = load(scenario.resolved)
    assert again.batch == scenario.batch and again.scenario_hash == scenario.scenario_hash


def test_what_is_wrong_in_a_file_has_its_line(tmp_path):
    file = tmp_path / "told.csv"
    file.write_text("length,count\n100,2\n0,5\n7,x\n5\n", "utf-8")
    with pytest.raises(Refused) as refused:
        load(MAIN, [f"batch.lengths={file}"])
    told = str(refused.value)
    assert f"{file}:3:1" in told and "length: expected a whole number from 1" in told
    assert f"{file}:4:1" in told and "count: expected a whole number from 0" in told
    assert f"{file}:5:1" in told and "expected a length and a count" in told
    file.write_text("100,0\n", "utf-8")
    with pytest.raises(Refused, match="no length has any documents"):
        load(MAIN, [f"batch.lengths={file}"])


@pytest.mark.parametrize(
    ("lengths", "alike"),
    [
        (Lengths("fixed", length=512), 512), (Lengths("fixed", length=600), 0), (Lengths("fixed", length=2048), 1024),
        (Lengths("fixed", length=1500), 0), (Lengths("uniform", low=256, high=256), 256),
        (Lengths("uniform", low=256, high=257), 0), (Lengths("recorded", histogram=((128, 9),)), 128),
        (Lengths("recorded", histogram=((128, 9), (256, 1))), 0), (Lengths("lognormal", median=256, sigma=0.0), 0),
    ],
)  # fmt: skip
def test_documents_that_fit_sequences_are_alike(lengths, alike):
    assert lengths.alike(1024) == alike


def test_too_many_documents_are_refused():
    with pytest.raises(Refused, match=r"makes about 715915264 documents a step; legal: up to 67108864"):
        load(MAIN, ["batch.lengths={kind: uniform, from: 1, to: 2}", "batch.sequences=131072",
                    "batch.sequence_length=8192"])  # fmt: skip


def test_packing_of_nothing_is_told():
    (line,) = unfelt(load(MAIN, ["batch.packed=false"]))
    assert line == "batch.packed changes nothing: without batch.lengths a sequence is one document"
