"""docs/planning.ipynb: its cells run, one after another, as a notebook would run them."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "planning.ipynb"


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook, names = json.loads(NOTEBOOK.read_text(encoding="utf-8")), dict[str, Any]()
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, text in enumerate(cells):
        exec(compile(text, f"cell {number}", "exec"), names)
    assert len(cells) == 5 and names["answer"].winner.front
    assert names["answer"].winner.facts.step_s <= names["step"].summary["step_time_s"]
