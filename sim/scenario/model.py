"""The model of a scenario: the document that it names, with what that builds on, and its dimensions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwmodels.document import Document, DocumentError, KeyPath, Problem, dotted, merge, read, unknown
from hwmodels.refused import Refused
from hwmodels.shelf import expand
from sim.models import hugging_face
from sim.models.config import is_config, model_of
from sim.models.family import families, family, form, is_family
from sim.models.shape import ModelShape
from sim.scenario.mistakes import problems
from sim.scenario.shelves import MODELS


def shape(whole: Document, key: KeyPath) -> tuple[ModelShape, Any]:
    """The dimensions that a document with all it builds on gives, and the same as plain values."""
    _theirs(whole, key)
    name = _family(whole, key)
    try:
        written = form(name).model_validate(whole.content)
    except ValidationError as error:
        raise DocumentError(problems(form(name), error, whole, key)) from None
    # what no model needs is not said of those that lack it
    plain = written.model_dump(exclude_defaults=True)
    plain["source"] = plain.pop("source")  # last, as in the documents
    return family(name).Shape(**written.model_dump()), plain


def shipped(part: Document, path: Path | None) -> tuple[str, int] | None:
    """File and time of change of a model that ships, which says all that this one builds on; None for others."""
    word = part.content.get("base") if isinstance(part.content, Mapping) else part.content
    if not isinstance(word, str) or _file(path, word):
        return None
    file = MODELS.folder / f"{word}.yaml"
    return (str(file), file.stat().st_mtime_ns) if file.is_file() else None


FILES = (".json", ".yaml", ".yml")
"""Ends of names that are files and not names of models."""


def document(part: Document, key: KeyPath, path: Path | None, trail: tuple[Path, ...] = ()) -> Document:
    """A model with what it builds on: a name (from `models/` beside the scenario, also inside there, or else of those
    that ship), or a file relative to the folder of the one that names it, of ours or a config.json of Hugging Face.
    trail: files being read, to find loops."""
    changes = part.content if isinstance(part.content, Mapping) else {}
    word = changes.get("base") if changes else part.content
    file = _file(path, word)
    if file is None:
        return expand(part, MODELS, key)
    if file.resolve() in trail:
        loop = " -> ".join(each.name for each in (*trail, file))
        raise DocumentError([Problem(part.place(("base",)), dotted(key), f"base goes in a circle: {loop}")])
    own = read(file, str(word) if str(word).endswith(FILES) else str(file))
    if not isinstance(own.content, Mapping | str):
        what = f"expected the keys of a model; found {own.content!r}"
        raise DocumentError([Problem(own.place(()), dotted(key), what)])
    if is_config(own.content):
        own = _translated(own, str(word), key)
    whole = document(own, key, file, (*trail, file.resolve()))
    if not changes:
        return whole
    rest = {inner: place for inner, place in part.places.items() if inner[:1] != ("base",)}
    return merge(whole, Document({name: value for name, value in changes.items() if name != "base"}, rest))


def _translated(config: Document, word: str, key: KeyPath) -> Document:
    """A config.json in our keys, all of them at its place. It is called as its file is, or as its folder."""
    file, place = Path(word), config.place(())
    name = file.parent.name if file.stem == "config" and file.parent.name else file.stem
    try:
        return Document(model_of(config.content, name), {(): place})
    except Refused as error:
        raise DocumentError([Problem(place, dotted(key), str(error))]) from None


def _theirs(whole: Document, key: KeyPath) -> None:
    """Raise DocumentError with one line where a model is written in Hugging Face's names."""
    name = whole.content.get("family") if isinstance(whole.content, Mapping) else None
    legal = family(name).Shape.__dataclass_fields__ if is_family(name) else {}
    theirs, line = hugging_face.remark(whole.content, legal)
    if line and not legal:
        line += f"; legal: {', '.join(families())}, see scenarios/models"
    if line:
        raise DocumentError([Problem(whole.place((theirs,)), dotted(key), line)])


def _family(whole: Document, key: KeyPath) -> str:
    """The family that a model says it is of."""
    name = whole.content.get("family") if isinstance(whole.content, Mapping) else None
    if not is_family(name):
        what = unknown(name, "model family", families()) if name else f"missing; legal: {', '.join(families())}"
        raise DocumentError([Problem(whole.place(("family",)), dotted((*key, "family")), what)])
    return str(name)


def _file(path: Path | None, word: object) -> Path | None:
    """The file that a word is of: it is one, or the name of one in `models/`; None for names that ship, such as that of
    the file itself that says it."""
    if not isinstance(word, str):
        return None
    folder = path.parent if path else Path()
    if word.endswith(FILES) and "\0" not in word:
        return folder / word
    near = (folder / "models", folder) if folder.name == "models" else (folder / "models",)
    named = [place / f"{word}.yaml" for place in near if path and place.resolve() != MODELS.folder]
    return next((file for file in named if file.is_file() and file != path), None)
