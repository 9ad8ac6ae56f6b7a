"""`key=value` words that change a scenario: dotted keys reach anywhere in it, also into the machine it names."""

from collections.abc import Sequence

from hwmodels.document import Document, DocumentError, KeyPath, Place, Problem, merge, parse

SHORT_FORMS: dict[KeyPath, str] = {
    ("cluster", "node"): "base",
    ("cluster", "node", "device"): "base",
    ("cluster", "fabric"): "base",
    ("model",): "base",
    ("schedule",): "name",
    ("routing",): "kind",
}
"""Keys where a word stands for a mapping: {base: word} for documents with a file of their own."""


def apply(document: Document, overrides: Sequence[str]) -> tuple[Document, list[Problem]]:
    """`document` with each override merged in, in order, and what is wrong with those that are none."""
    problems: list[Problem] = []
    for text in overrides:
        try:
            changed = merge(*_opened(document, *override(text)))
            # a key that nobody wrote is missing from the file, not from the last override
            document = Document(changed.content, {**changed.places, (): document.place(())})
        except DocumentError as error:
            problems.extend(error.problems)
    return document, problems


def override(text: str) -> tuple[tuple[str, ...], Document]:
    """The key path and the value that `key.path=value` gives. The value is YAML, as in a file."""
    key, equals, value = text.partition("=")
    place = Place(f"<command line> {text}")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise DocumentError([Problem(place, "", "an override is written key=value, e.g. parallel.pipeline=8")])
    if not value.strip():
        raise DocumentError([Problem(place, "", "a value is missing; null stands for a key that is not written")])
    try:
        read = parse(value, place.file)
    except DocumentError as error:
        raise DocumentError([Problem(place, "", problem.message) for problem in error.problems]) from None
    return path, Document(read.content, dict.fromkeys(read.places, place))


def _opened(document: Document, path: tuple[str, ...], value: Document) -> tuple[Document, Document]:
    """The document with the short forms on the way to `path` written out, and the change to merge into it."""
    for size in range(1, len(path)):
        part = document.at(*path[:size])
        if path[:size] in SHORT_FORMS and isinstance(part.content, str):
            document = merge(document, part.under(SHORT_FORMS[path[:size]]).under(*path[:size]))
    return document, value.under(*path)
