"""Settings in files: those that ship, and everything wrong with one at once."""

import pytest

pytest.importorskip("torch")

from hwmodels.document import DocumentError
from numerics.training import command, settings


@pytest.mark.parametrize("name, millions", [("study", 27.3), ("wide", 234.9)])
def test_those_that_ship(name, millions):
    from numerics.layers.model import Model

    run = settings.load(command.RUNS / f"{name}.yaml")
    with __import__("torch").device("meta"):
        parameters = sum(p.numel() for p in Model(run.config).parameters())
    assert round(parameters / 1e6, 1) == millions


def refused(tmp_path, old, new):
    text = (command.RUNS / "study.yaml").read_text()
    assert old in text
    (tmp_path / "run.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(DocumentError) as error:
        settings.load(tmp_path / "run.yaml")
    return str(error.value)


@pytest.mark.parametrize("old, new, said", [
    ("precision: fp8", "precision: fp7", "precision: unknown value 'fp7'; did you mean 'fp8'?"),
    ("steps: 1832", "stepps: 1832", "unknown key 'stepps'"),
    ("steps: 1832", "steps: 0", "steps: expected 1 or more; found 0"),
    ("batch: 32", "batch: many", "batch: expected int; found 'many'"),
    ("peak: 1.0e-3", "peek: 1.0e-3", "rate.peek: unknown key 'peek'; did you mean 'peak'?"),
    ("rate: {", "rate: 3 #", "rate: expected a mapping with peak, floor"),
    ("experts_per_token: 4", "experts_per_token: 40", "40 experts a token, but its groups hold 16"),
    ("experts: 32", "experts: 33", "33 experts do not divide into 4 groups"),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(tmp_path, old, new, said):
    text = refused(tmp_path, old, new)
    assert said.split("; did")[0] in text and "run.yaml:" in text


def test_all_at_once(tmp_path):
    text = refused(tmp_path, "batch: 32\nsteps: 1832", "batch: x\nstps: 1832")
    assert "batch" in text and "stps" in text and "steps" in text
