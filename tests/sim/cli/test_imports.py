"""The command `import`: streams, exit codes, and files of others."""

from pathlib import Path

import pytest

from sim.__main__ import main
from sim.scenario.files import load
from sim.scenario.launchers.scenario import MARK
from tests.sim.scenario.launchers.launched import FIXTURES, loads

PLAIN = """\
model: {num_layers: 4, hidden_size: 1024, num_attention_heads: 8, vocab_size: 32000, seq_length: 2048,
        position_embedding_type: rope, tensor_model_parallel_size: 1}
train: {micro_batch_size: 1, global_batch_size: 16}
checkpoint: {save: here}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(PLAIN, encoding="utf-8")
    return str(path)


def test_a_scenario_goes_to_stdout_and_notes_to_stderr(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["import", recipe, "--node", "h100x8", "--nodes", "1"])
    out, err = capsys.readouterr()
    assert out.startswith(f"{MARK}{recipe}, a Megatron-Bridge or NeMo recipe.\n")
    line = f"{recipe}:4: checkpoint.save here: how often and where weights are saved or loaded is no part of a step"
    assert f"#   {line}\n" in out and line in err.splitlines()


def test_a_file_of_an_import_is_replaced_and_no_other(recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    words = ["import", recipe, "--node", "h100x8", "--nodes", "1", "--out", str(out)]
    main(words)
    first = out.read_text()
    assert first.startswith(MARK)
    main([*words, "train.global_batch_size=32"])
    assert "sequences: 32" in out.read_text()
    out.write_text("mine")
    assert main(words) == 2 and out.read_text() == "mine"
    assert main([*words[:-1], str(tmp_path)]) == 2
    assert main([*words[:-1], str(tmp_path / "none" / "x.yaml")]) == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["import", "a", "b", "--node", "h100x8"], "expected one launch file; found a, b; see"),
        (["import", "x=1"], "expected one launch file; found none"),
        (["import", "none.sh"], "none.sh: cannot be read: No such file or directory"),
        (["import", "--nodes", "0", "a"], "whole numbers, 1 or more; found '0'"),
        (["import", "--vocabulary", "many", "a"], "whole numbers, 1 or more; found 'many'"),
        (["import", "a", "--nod", "h100x8"], "unrecognized arguments: --nod"),
        (["import", str(FIXTURES / "llama3_70b.sh")], "says no machine; add --node NAME, one of a100x8"),
        (["import", str(FIXTURES / "bridge.yaml"), "--node", "h100x8"], "does not say on how many nodes it runs"),
        (["import", str(FIXTURES / "nemo.yaml"), "--node", "h100x8", "--model", "lama"], "unknown model 'lama'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and line in err


def test_help_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and "\n  import FILE" in capsys.readouterr().out
    assert main(["import", "--help"]) == 0 and "--vocabulary N" in capsys.readouterr().out
    assert main(["import"]) == 2


def test_a_scenario_that_is_refused_is_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the launcher may do and the simulator may not is left to whoever edits it."""
    path, out = tmp_path / "small.yaml", tmp_path / "mine.yaml"
    path.write_text(PLAIN.replace("global_batch_size: 16", "global_batch_size: 15"), encoding="utf-8")
    assert main(["import", str(path), "--node", "h100x8", "--nodes", "1", "--out", str(out)]) == 2
    assert out.read_text().startswith(MARK)
    assert f"{out}:" in capsys.readouterr().err


@loads
@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.iterdir()))
def test_what_is_imported_loads(name: str, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    nodes = [] if name.endswith("70b.toml") else ["--nodes", "8"]
    assert main(["import", str(FIXTURES / name), "--node", "h200x8", *nodes, "--out", str(out)]) == 0
    assert load(out).cluster is not None
