"""Published runs: what rows say, what they become, and what is refused."""

import csv
import re
from pathlib import Path

import pytest

from hwmodels.refused import Refused
from sim.__main__ import main
from sim.models.family import family, main_units, weights
from sim.scenario import from_mapping
from sim.validation.runs import models, words
from sim.validation.runs.rows import FILE, asked, read

ROWS = {run.id: run for run in read(FILE)}
ASKED = list(asked(list(ROWS.values())))
GOOD = {
    "id": "A", "family": "torchtitan", "model": "llama3-8b", "gpu": "H100", "n_gpus": "8", "precision": "BF16",
    "tp": "1", "cp": "1", "pp": "1", "vpp": "1", "ep": "", "etp": "", "dp_kind": "fsdp", "mbs": "2", "gbs": "16",
    "seq": "8192", "recompute": "none", "overlap": "FSDP2", "other": "", "step_s": "2.5",
}  # fmt: skip
HEAD = list(GOOD)


def test_as_many_rows_are_asked_as_have_a_layout_a_step_and_confidence():
    assert (len(ROWS), len(ASKED)) == (633, 537)
    assert all(run.source and run.where for run in ASKED)


def test_every_phrase_of_every_row_is_in_the_table_and_every_phrase_of_the_table_in_a_row():
    found = {column: {phrase for run in ROWS.values() for phrase in words.phrases(run, column)}
             for column in words.COLUMNS}  # fmt: skip
    for column, phrases in found.items():
        assert phrases == set(words.table("words")[column]), column


def test_every_model_and_family_of_every_row_is_known():
    for run in ROWS.values():
        assert run.family in words.table("families")
        try:
            models.model(run)
        except Refused as refused:
            assert "none of our blocks" in str(refused) or "not given" in str(refused)


BILLIONS = re.compile(r"([\d.]+)(B|T) dense")


def parameters(document):
    plain = {"cluster": {"node": "h200x8", "nodes": 16}, "model": document, "schedule": "1f1b", "precision": "bf16",
             "batch": {"micro_batches": 1}}  # fmt: skip
    shape = from_mapping(plain).model
    return weights(shape, main_units(family(shape.family).units(shape))).total


@pytest.mark.parametrize("said", sorted({(run.model, run.parameters, run.sequence_length) for run in ASKED
                                         if BILLIONS.match(run.parameters) and "proxy" not in run.model}))  # fmt: skip
def test_dense_models_have_the_parameters_that_rows_say(said):
    run = next(r for r in ASKED if (r.model, r.parameters, r.sequence_length) == said)
    count, unit = BILLIONS.match(run.parameters).groups()
    published = float(count) * (1e12 if unit == "T" else 1e9)
    off = parameters(models.model(run)) / published - 1
    assert abs(off) <= max(0.01, 0.51 * 10 ** -len(count.partition(".")[2]) / float(count)), f"{off:+.2%}"


@pytest.mark.parametrize(("name", "billions"), [
    ("gpt-1.7B", 1.65), ("gpt-7.5B", 7.5), ("gpt-18.4B", 18.4), ("gpt-39.1B", 39.1), ("gpt-76.1B", 76.1),
    ("gpt-145.6B", 145.6), ("gpt-1T", 1008.0), ("qwen2-57b-a14b", 57.41), ("mixtral-8x22b-g8t8", 141),
    ("gpt3-20b", 20.3), ("nemotron-8b", 8.54),
])  # fmt: skip
def test_models_of_papers_have_their_published_total(name, billions):
    """Narayanan et al. table 1 (1.65 B by its formula, printed 1.7; 1,008 B: of the same shape); the index of
    Qwen2-57B-A14B's weights: 57.41 B."""
    run = next(run for run in ROWS.values() if run.model == name)
    assert parameters(models.model(run)) / 1e9 == pytest.approx(billions, rel=0.01)


def written(path: Path, *lines: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEAD)
        writer.writeheader()
        writer.writerows(lines)
    return path


@pytest.mark.parametrize(("change", "told"), [
    ({"n_gpus": "many"}, ":2: gpus (n_gpus): expected a whole number above zero, or ?; found 'many'"),
    ({"tp": "-8"}, ":2: tensor (tp): expected a whole number above zero, or ?; found '-8'"),
    ({"vpp": "1.5"}, ":2: chunks (vpp): expected a whole number above zero, or ?; found '1.5'"),
    ({"seq": "9" * 40}, ":2: sequence_length (seq): expected a whole number above zero, or ?; found"),
    ({"step_s": "fast"}, ":2: step_s: expected seconds above zero, or nothing; found 'fast'"),
    ({"step_s": "nan"}, ":2: step_s: expected seconds above zero, or nothing; found 'nan'"),
])  # fmt: skip
def test_a_wrong_cell_is_one_line(tmp_path, capsys, change, told):
    path = written(tmp_path / "runs.csv", GOOD | change)
    assert main(["validate", "--runs", str(path)]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


@pytest.mark.parametrize(("content", "told"), [
    (b"", "columns are missing: id, model, gpu, gpus (or n_gpus)"),
    (b"id,family\n1,2\n", "columns are missing: model, gpu, gpus (or n_gpus), sequences (or gbs)"),
    (b"\xff\xfe\x00", "is no CSV file in UTF-8"),
    (",".join(HEAD).encode() + b"\n", "has no rows of runs"),
    (",".join(HEAD).encode() + b"\nA,B\n", ":2: expected 20 columns, as the first line has; found 2"),
])  # fmt: skip
def test_a_file_that_is_no_table_of_runs_is_one_line(tmp_path, capsys, content, told):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    assert main(["validate", "--runs", str(path)]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_a_missing_file_and_a_wrong_option_are_one_line(tmp_path, capsys):
    path = written(tmp_path / "runs.csv", GOOD)
    for args, told in (
        (["--runs", str(tmp_path / "none.csv")], "cannot be read: No such file or directory"),
        (["--runs", str(path), "--jobs", "0"], "--jobs expects a whole number, 1 or more; found 0"),
        (["--runs"], "--runs: expected one argument"),
    ):
        assert main(["validate", *args]) == 2
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1
    good = written(tmp_path / "good.csv", GOOD)
    assert main(["validate", "--runs", str(good), "--out", str(tmp_path / "x.txt")]) == 2
    assert "ends in .csv" in capsys.readouterr().err
    assert main(["validate", "--runs", str(good), "--family", "torchtitn"]) == 2
    assert "unknown family 'torchtitn', did you mean 'torchtitan'?" in capsys.readouterr().err
