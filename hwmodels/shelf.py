"""Shelves: folders of documents of one kind, where one document names another or builds on it with `base:`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from hwmodels.document import Document, DocumentError, KeyPath, Problem, dotted, merge, read, unknown


def names(folder: Path) -> tuple[str, ...]:
    """Names of the documents in `folder`: the stems of its .yaml files, sorted."""
    return tuple(sorted(file.stem for file in folder.glob("*.yaml")))


@dataclass(frozen=True)
class Shelf:
    """A folder of documents of one kind: `what` names the kind in messages, `inner` the keys that hold others.

    shown: how the folder is called in messages. cited: numbers in its files must say kind and source.
    """

    what: str
    folder: Path
    shown: str
    inner: Mapping[str, "Shelf"] = field(default_factory=dict)
    cited: bool = True


def expand(document: Document, shelf: Shelf, key: KeyPath = (), trail: tuple[str, ...] = ()) -> Document:
    """`document` with every name and `base:` replaced by what it stands for. Raises DocumentError.

    A document is a name on the shelf, or a mapping that may say `base: name` and then only what differs.
    key: where the document sits in a larger one, for messages. trail: names being expanded, to find loops.
    """
    content, word_at = document.content, document.place(())
    if isinstance(content, Mapping):
        if "base" not in content:
            return _expand_inner(document, shelf, key)
        word_at, key_of_word = document.place(("base",)), (*key, "base")
        content = content["base"]
    else:
        key_of_word = key
    if content not in _legal(shelf):
        raise DocumentError([Problem(word_at, dotted(key_of_word), _unknown(content, shelf))])
    if content in trail:
        loop = " -> ".join((*trail, content))
        raise DocumentError([Problem(word_at, dotted(key_of_word), f"base goes in a circle: {loop}")])
    # Our own machine files do not change while we run; a user's model beside a scenario may.
    reader = _stored if shelf.cited else read
    entry = reader(shelf.folder / f"{content}.yaml", f"{shelf.shown}/{content}.yaml", shelf.cited)
    base = expand(entry, shelf, (), (*trail, content))
    if not isinstance(document.content, Mapping):
        return base
    return merge(_without(base, *_named_inner(document, shelf)), _expand_inner(_without(document, "base"), shelf, key))


def _unknown(word: object, shelf: Shelf) -> str:
    """One line for a word that is no name on the shelf; a path to a file is told how files are named."""
    legal = _legal(shelf)
    if word is None:
        return f"missing; legal: {', '.join(legal)}"
    if not (isinstance(word, str) and (word.endswith((".yaml", ".yml")) or "/" in word)):
        return unknown(word, shelf.what, legal)
    beside = "" if shelf.cited else f"; one in {shelf.folder.name}/ beside the scenario has a name too"
    return (
        f"{word!r} is a file; a {shelf.what} is named, or written out with its keys; legal: {', '.join(legal)}{beside}"
    )


def _legal(shelf: Shelf) -> tuple[str, ...]:
    return (_stored_names if shelf.cited else names)(shelf.folder)


_stored_names = cache(names)


@cache
def _stored(path: Path, shown: str, cited: bool) -> Document:
    return read(path, shown, cited)


def _without(document: Document, *keys: str) -> Document:
    content = {key: value for key, value in document.content.items() if key not in keys}
    return Document(content, {path: place for path, place in document.places.items() if not {*path[:1]} & {*keys}})


def _named_inner(document: Document, shelf: Shelf) -> list[str]:
    """Keys of inner documents that are named, or built on a name: they replace the base's, they do not change it."""
    parts = {name: document.content[name] for name in shelf.inner if name in document.content}
    return [name for name, part in parts.items() if not isinstance(part, Mapping) or "base" in part]


def _expand_inner(document: Document, shelf: Shelf, key: KeyPath) -> Document:
    """The documents inside a document expanded, where they are names or say `base:`."""
    for name in _named_inner(document, shelf):
        part = document.at(name)
        whole = expand(part, shelf.inner[name], (*key, name))
        rest = {path: place for path, place in document.places.items() if path[:1] != (name,)}
        places = rest | {(name, *path): place for path, place in whole.places.items()} | {(name,): part.place(())}
        document = Document({**document.content, name: whole.content}, places)
    return document
