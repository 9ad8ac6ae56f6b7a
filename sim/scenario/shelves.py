"""Folders of the scenarios and models that ship with the project."""

from pathlib import Path

from hwmodels.shelf import Shelf, names

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
"""Folder of the scenarios."""

MODELS = Shelf("model", SCENARIOS / "models", "scenarios/models", cited=False)
"""Shelf of the models; a scenario's own folder may have `models/` too."""


def models() -> tuple[str, ...]:
    """Names of the models that ship."""
    return names(MODELS.folder)
