"""Folders of the scenarios and models that ship with the project."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hwmodels.document import Document, DocumentError, did_you_mean, read
from hwmodels.shelf import Shelf, names

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
"""Folder of the scenarios."""

MODELS = Shelf("model", SCENARIOS / "models", "scenarios/models", cited=False)
"""Shelf of the models; a scenario's own folder may have `models/` too."""

KEPT = 16
"""Documents that are kept."""


def models() -> tuple[str, ...]:
    """Names of the models that ship."""
    return names(MODELS.folder)


def scenarios() -> tuple[str, ...]:
    """Names of the scenarios that ship."""
    return names(SCENARIOS)


def document(word: str, shelf: Path = SCENARIOS) -> Document:
    """The document that `word` means. Raises DocumentError, with the nearest name where there is no such file."""
    path = place(word, shelf)
    try:
        status = path.stat() if path.exists() else None
        return _read(path, word, status.st_mtime_ns, status.st_size) if status else read(path, word)
    except DocumentError as error:
        hint = did_you_mean(path.stem, names(shelf)) if path.parent == Path() and not path.exists() else ""
        raise DocumentError([replace(each, message=each.message + hint) for each in error.problems]) from None


@lru_cache(maxsize=KEPT)
def _read(path: Path, word: str, *_: int) -> Document:
    """Kept while its file is as it was: a search asks for each point."""
    return read(path, word)


def place(word: str, shelf: Path = SCENARIOS) -> Path:
    """The file that `word` means: a path; or, where there is none, a document of `shelf` by its name, such as
    `v3_2048gpu`, `v3_2048gpu.yaml` or `scenarios/v3_2048gpu.yaml`, so that what ships runs from any folder."""
    path = Path(word)
    if path.exists():
        return path
    inner = Path("scenarios") / shelf.relative_to(SCENARIOS)
    name = path.name.removesuffix(".yaml") if path.parent in (Path(), inner) else ""
    return shelf / f"{name}.yaml" if name in names(shelf) else path


def beside(word: str, folder: Path) -> str:
    """The scenario that `word` in a file of `folder` means: a path from there; or, where there is none, one that ships,
    by its name."""
    path, name = folder / word, word.removesuffix(".yaml")
    return str(SCENARIOS / f"{name}.yaml" if name in scenarios() and not path.exists() else path)


FILES = (".csv", ".json", ".jsonl", ".npz", ".xz", ".yaml", ".yml")
"""Ends of files that a scenario names."""
WORDS = {"model": "models/{}.yaml", "base": "models/{}.yaml", "tables": "{}"}
"""Key -> what a word under it may name beside the scenario."""


def whole(content: Any, folder: Path, key: object = "") -> Any:
    """Plain values of a scenario in `folder` in which names of what lies beside it are whole, so that they can lie
    anywhere. key: that they stand under."""
    if isinstance(content, dict):
        return {name: whole(value, folder, name) for name, value in content.items()}
    if isinstance(content, list):
        return [whole(value, folder, key) for value in content]
    if not isinstance(content, str) or "\0" in content:
        return content
    named = folder / (content if content.endswith(FILES) else WORDS.get(str(key), "").format(content))
    ours = named == folder or named.parent.resolve() == MODELS.folder
    return content if ours or not named.exists() else str(named.resolve())
