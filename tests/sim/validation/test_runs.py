"""Published runs: what rows say, what they become, and what is refused."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hwmodels.refused import Refused
from sim.__main__ import main
from sim.models.family import family, main_units, weights
from sim.scenario import from_mapping
from sim.validation.runs import models, words
from sim.validation.runs.rows import FILE, UNSEEN, asked, read

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
        table = set(words.table("words")[column])
        later = {phrase for run in read(UNSEEN) for phrase in words.phrases(run, column)}
        assert phrases <= table <= phrases | later, column


def test_every_model_and_family_of_every_row_is_known():
    for run in ROWS.values():
        assert run.family in words.table("families")
        assert models.model(run)["base"]


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


COUNTED = {
    "llama2-13b": 13.02, "llama3.2-1b": 1.236, "llama3.2-3b": 3.213, "codellama-34b": 33.74, "mistral-7b": 7.242,
    "mistral-nemo-12b": 12.25, "mistral-small-24b": 23.57, "mistral-large-123b": 122.6, "qwen2.5-0.5b": 0.494,
    "qwen2.5-1.5b": 1.544, "qwen2.5-3b": 3.086, "qwen2.5-7b": 7.616, "qwen2-7b": 7.616, "qwen2.5-14b": 14.77,
    "qwen2.5-32b": 32.76, "qwen2.5-72b": 72.71, "qwen2-72b": 72.71, "qwen3-1.7b": 1.721, "qwen3-4b": 4.022,
    "qwen3-14b": 14.77, "qwen3-coder-480b-a35b": 480.2, "nemotron-22b": 21.3, "nemotron-h-4b": 4.49,
    "nemotron-nano-9b-v2": 8.89, "nemotron-nano-12b-v2": 12.31, "nemotron-3.5-lightning": 31.58, "gpt3-126m": 0.126,
    "gpt3-350m": 0.357, "gpt3-1.3b": 1.315, "gpt3-6.7b": 6.66, "gpt3-13b": 12.85, "gpt3-40b": 39.1, "gpt-3.6B": 3.6,
    "gpt-310.1B": 310.1, "gpt-529.6B": 529.6, "gpt-1008B": 1008.0, "gpt-175B": 174.6, "gpt-530B": 529.6,
    "gpt-2.1B": 2.1, "gpt-4.2B": 4.2, "gpt-8.3B": 8.3, "gpt-19.7B": 19.7, "gpt-41B": 41, "gpt-78B": 78,
    "gpt-148B": 148, "gpt-177B": 177, "gpt-314B": 314, "gpt-462B": 462, "mpt-125m": 0.126, "mpt-350m": 0.357,
    "mpt-760m": 0.762, "deepseek-7b": 6.91, "deepseek-moe-16b": 16.38, "glm-4-9b": 9.40, "gemma-2b": 2.506,
    "gemma-7b": 8.538, "gemma2-2b": 2.614, "gemma2-9b": 9.242, "gemma2-27b": 27.23, "gemma3-1b": 1.0,
    "gemma3-4b": 3.88, "gemma3-12b": 11.77, "gemma3-27b": 27.01, "phi-3-mini-3.8b": 3.821, "phi-4-14b": 14.66,
    "phi-3.5-moe-42b": 41.87, "dbrx-132b": 131.6, "starcoder2-3b": 3.030, "starcoder2-7b": 7.174,
    "starcoder2-15b": 15.96, "baichuan2-7b": 7.506, "baichuan2-13b": 13.90, "yi-34b": 34.39, "bloom-176b": 176.2,
    "olmoe-7b-a1b": 6.92, "minimax-m2": 228.7, "qwen3-next-80b-a3b": 79.7, "deepseek-v4-flash": 284,
}  # fmt: skip
"""Model that no row has -> billions of its published weights, or as its paper prints them."""


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_models_that_no_row_has_have_their_published_total(name):
    run = replace(ROWS["TT-002"], model=name, sequence_length=2048)
    assert parameters(models.model(run)) / 1e9 == pytest.approx(COUNTED[name], rel=0.021)


@pytest.mark.parametrize(("spelled", "base", "changes"), [
    ("LLAMA3.1_405B", "llama3_405b", {}), ("Llama 3.1 70B", "llama3_70b", {}), ("meta-llama3-8b", "llama3_8b", {}),
    ("GPT OSS 120B", "gpt_oss_120b", {}), ("Qwen3_30B_a3B (tokendrop)", "qwen3_30b_a3b", {}),
    ("DeepSeekV3 (w/o MTP)", "deepseek_v3", {"mtp_depth": 0}), ("Kimi_K2", "kimi_k2", {}),
    ("Nemotron_3_Nano", "nemotron3_nano_30b_a3b", {}), ("llama3-70b (SFT)", "llama3_70b", {}),
    ("llama3-70b (16-layer proxy)", "llama3_70b", {"layers": 16}), ("Mixtral-8x7B, 4 layers", "mixtral_8x7b", None),
    ("deepseek-v3 (2-layer proxy)", "deepseek_v3", {"layers": 2, "dense_layers": 2}),
    ("qwen3-30b-a3b 12-layer proxy", "qwen3_30b_a3b", {"layers": 12}),
])  # fmt: skip
def test_models_under_other_spellings(spelled, base, changes):
    document = models.model(replace(ROWS["TT-002"], model=spelled))
    assert document == {"base": base} | (changes if changes is not None else {"layers": 4})


def test_a_model_by_its_dimensions():
    run = replace(ROWS["PAP-018"], model="our-gpt", parameters="39B: 48 layers, 8192 hidden, 64 heads, vocab 51200")
    document = models.model(run)
    assert (document["layers"], document["hidden"], document["heads"], document["intermediate"]) == (
        48,
        8192,
        64,
        32768,
    )
    assert parameters(document) / 1e9 == pytest.approx(39.1, rel=0.01)


@pytest.mark.parametrize(("name", "told"), [
    ("llama3-8bb", "did you mean 'llama3-8b'"), ("llama3-70b (LoRA)", "adapters beside frozen weights"),
    ("secret-12b", "its dimensions are not given (12B dense)"),
])  # fmt: skip
def test_a_model_that_nobody_knows_is_refused_with_the_reason(name, told):
    with pytest.raises(Refused, match=re.escape(told)):
        models.model(replace(ROWS["TT-002"], model=name, parameters="12B dense"))


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
