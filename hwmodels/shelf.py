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
    if content not in names(shelf.folder):
        raise DocumentError([Problem(word_at, dotted(key_of_word), unknown(content, shelf.what, names(shelf.folder)))])
    if content in trail:
        loop = " -> ".join((*trail, content))
        raise DocumentError([Problem(word_at, dotted(key_of_word), f"base goes in a circle: {loop}")])
    # Our own machine files do not change while we run; a user's model beside a scenario may.
    reader = _stored if shelf.cited else read
    found = reader(shelf.folder / f"{content}.yaml", f"{shelf.shown}/{content}.yaml", shelf.cited)
    base = expand(found, shelf, (), (*trail, content))
    if not isinstance(document.content, Mapping):
        return base
    return merge(base, _expand_inner(_without_base(document), shelf, key))


@cache
def _stored(path: Path, shown: str, cited: bool) -> Document:
    return read(path, shown, cited)


def _without_base(document: Document) -> Document:
    content = {key: value for key, value in document.content.items() if key != "base"}
    return Document(content, {path: place for path, place in document.places.items() if path != ("base",)})


def _expand_inner(document: Document, shelf: Shelf, key: KeyPath) -> Document:
    """The documents inside a document expanded, where they are names or say `base:`."""
    for name, inner in shelf.inner.items():
        part = document.at(name)
        if name not in document.content or (isinstance(part.content, Mapping) and "base" not in part.content):
            continue
        whole = expand(part, inner, (*key, name))
        rest = {path: place for path, place in document.places.items() if path[:1] != (name,)}
        places = rest | {(name, *path): place for path, place in whole.places.items()} | {(name,): part.place(())}
        document = Document({**document.content, name: whole.content}, places)
    return document
