"""`key=value` words that change a scenario: dotted keys reach anywhere in it, also into the machine it names.

Items of a list go by their number, from 0: faults.0.slower, or faults[0].slower as messages have it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from hwmodels.document import Document, DocumentError, KeyPath, Place, Problem, dotted, merge, parse

SHORT_FORMS: dict[KeyPath, str] = {
    ("cluster", "node"): "base",
    ("cluster", "node", "device"): "base",
    ("cluster", "fabric"): "base",
    ("model",): "base",
    ("schedule",): "name",
    ("stack",): "name",
    ("routing",): "kind",
    ("recompute",): "kind",
    ("serve", "node"): "base",
    ("serve", "node", "device"): "base",
    ("serve", "fabric"): "base",
    ("serve", "model"): "base",
    ("rl", "rollout", "node"): "base",
    ("rl", "rollout", "node", "device"): "base",
}
"""Keys where a word stands for a mapping: {base: word} for documents with a file of their own."""


WHOLE: tuple[KeyPath, ...] = (("recompute",),)
"""Keys whose mappings say one thing in several ways, so that one replaces another whole."""


def apply(document: Document, overrides: Sequence[str]) -> tuple[Document, list[Problem]]:
    """`document` with each override merged in, in order, and what is wrong with those that are none."""
    problems: list[Problem] = []
    for text in overrides:
        try:
            changed = _changed(document, *override(text))
            # a key that nobody wrote is missing from the file, not from the last override
            document = Document(changed.content, {**changed.places, (): document.place(())})
        except DocumentError as error:
            problems.extend(error.problems)
    return document, problems


def merged(document: Document, change: Document) -> Document:
    """`document` with the keys of a mapping merged in, each as an override of that key would be; keys may be dotted."""
    for key in change.content:
        changed = _changed(document, tuple(key.split(".")), change.at(key))
        document = Document(changed.content, {**changed.places, (): document.place(())})
    return document


@lru_cache(maxsize=1 << 12)
def override(text: str) -> tuple[tuple[str, ...], Document]:
    """The key path and the value that `key.path=value` gives. The value is YAML, as in a file. Kept: points of a search
    have few words, each in many of them."""
    key, equals, value = text.partition("=")
    place = Place(f"<command line> {text}")
    path = tuple(part.strip() for part in re.sub(r"\[(\d+)\]", r".\1", key).split("."))
    if not equals or not all(path):
        raise DocumentError([Problem(place, "", "an override is written key=value, e.g. parallel.pipeline=8")])
    if not value.strip():
        raise DocumentError([Problem(place, "", "a value is missing; null stands for a key that is not written")])
    try:
        read = parse(value, place.file)
    except DocumentError as error:
        raise DocumentError([Problem(place, "", problem.message) for problem in error.problems]) from None
    return path, Document(read.content, dict.fromkeys(read.places, place))


def touches(text: str, key: str) -> bool:
    """Whether an override gives a dotted key, all that it lies in, or something in it."""
    path, _ = override(text)
    return all(a == b for a, b in zip(path, key.split("."), strict=False))


def _changed(document: Document, path: tuple[str, ...], value: Document, above: KeyPath = ()) -> Document:
    """`document`, which lies at `above`, with `value` merged in at `path`; short forms on the way are written out."""
    if path in WHOLE:
        document = _without(document, path[0])
    for size in range(len(path)):
        part, here = document.at(*path[:size]), (*above, *path[:size])
        if here in SHORT_FORMS and isinstance(part.content, str):
            document = merge(document, part.under(SHORT_FORMS[here]).under(*path[:size]))
        if isinstance(part.content, list):
            return merge(document, _with_item(part, path[size:], value, here).under(*path[:size]))
    return merge(document, value.under(*path))


def _without(document: Document, key: str) -> Document:
    """A mapping without one of its keys."""
    content = {name: value for name, value in document.content.items() if name != key}
    return Document(content, {path: place for path, place in document.places.items() if path[:1] != (key,)})


def _with_item(items: Document, path: tuple[str, ...], value: Document, here: KeyPath) -> Document:
    """The list `items`, which lies at `here`, with `value` merged in at `path`, which begins with an item's number."""
    word, last, place = path[0], len(items.content) - 1, value.place(())
    if not word.isdecimal() or int(word) > last:
        legal = f"0 to {last}" if last > 0 else "0" if last == 0 else "none, the list is empty"
        raise DocumentError([Problem(place, dotted(here), f"no item {word!r} in the list; legal: {legal}")])
    index = int(word)
    item = _changed(items.at(index), path[1:], value, (*here, index))
    places = {old: at for old, at in items.places.items() if old[:1] != (index,)} | {(): place}
    places |= {(index, *inner): at for inner, at in item.places.items()}
    return Document([*items.content[:index], item.content, *items.content[index + 1 :]], places)
