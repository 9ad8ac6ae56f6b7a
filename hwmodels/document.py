"""YAML files as plain values that remember where each key was written, and how two of them merge.

Scalars follow the YAML 1.2 core schema, which PyYAML alone does not: an exponent makes a number also without a dot,
and no, on and yes are text.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from hwmodels.refused import Refused, plain

KeyPath = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Place of something written: a file with line and column (from 1), or a source such as the command line.

    cited: numbers written here must say their kind and source (the files of hwmodels).
    """

    file: str
    line: int = 0
    column: int = 0
    cited: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a document: where, under which dotted key, and what to write instead."""

    place: Place
    key: str
    message: str

    def __str__(self) -> str:
        said = not self.key or f" {self.key}=" in str(self.place)
        text = f"{self.place}: {self.message}" if said else f"{self.place}: {self.key}: {self.message}"
        return plain(text)


class DocumentError(Refused):
    """A refusal of a document: everything wrong with it, in one line a problem; file, line and key are of the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))
        first = self.problems[0]
        self.file, self.line, self.key = first.place.file, first.place.line, first.key

    def __reduce__(self) -> tuple[type, tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


@dataclass(frozen=True)
class Document:
    """Plain content (mappings, lists, scalars) and the place of each key path in it; () is the whole."""

    content: Any
    places: Mapping[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place:
        """Place of `path`; that of the nearest enclosing key when it was not written at all."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place("<mapping>"))

    def value(self, *path: str | int) -> Any:
        """The content under `path`; None where there is none."""
        content = self.content
        for key in path:
            if isinstance(content, list) and isinstance(key, int):
                content = content[key] if key < len(content) else None
            else:
                content = content.get(key) if isinstance(content, Mapping) else None
        return content

    @cached_property
    def _below(self) -> Mapping[str | int, Mapping[KeyPath, Place]]:
        """Places at and below each key of the whole, as paths from there."""
        below: dict[str | int, dict[KeyPath, Place]] = {}
        for path, place in self.places.items():
            if path:
                below.setdefault(path[0], {})[path[1:]] = place
        return below

    def at(self, *path: str | int) -> "Document":
        """The part under `path`; its content is None where there is none."""
        inner, rest = (self._below.get(path[0], {}), path[1:]) if path else (self.places, ())
        if size := len(rest):
            inner = {p[size:]: place for p, place in inner.items() if p[:size] == rest}
        return Document(self.value(*path), inner or {(): self.place(path)})

    def without(self, *path: str) -> "Document":
        """This document but for what stands at `path`; itself where nothing does."""
        key, *rest = path
        if not isinstance(self.content, Mapping) or key not in self.content:
            return self
        content = {name: value for name, value in self.content.items() if name != key}
        if rest:
            content[key] = self.at(key).without(*rest).content
        size = len(path)
        return Document(content, {p: place for p, place in self.places.items() if p[:size] != path})

    def under(self, *path: str) -> "Document":
        """This document moved below `path`: at(*path) of the answer is this document again."""
        content, places = self.content, {path + p: place for p, place in self.places.items()}
        for depth in range(len(path), 0, -1):
            content = {path[depth - 1]: content}
            places[path[: depth - 1]] = self.place(())
        return Document(content, places)


def dotted(path: Sequence[str | int]) -> str:
    """A key path as people write it: cluster.node.nic, placement[3]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def did_you_mean(word: object, legal: Iterable[str]) -> str:
    """ ", did you mean 'dualpipe'?" with the nearest legal word, or "" when none is near."""
    near = get_close_matches(str(word).lower(), list(legal), n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""


def unknown(word: object, what: str, legal: Iterable[str]) -> str:
    """One line for a word that is none of `legal`: what was found, the nearest, and all that is legal."""
    legal = sorted(legal)
    return f"unknown {what} {word!r}{did_you_mean(word, legal) or ';'} legal: {', '.join(legal)}"


SHOWN = 12
"""Legal divisors that a message lists, the nearest ones."""


def indivisible(of: str, value: int, by: str, divisor: int) -> str:
    """One line for a `value`, called `of`, that `divisor`, called `by`, does not divide: what does."""
    small = [n for n in range(1, math.isqrt(value) + 1) if value % n == 0]
    legal = sorted({*small, *(value // n for n in small)})
    near = sorted(sorted(legal, key=lambda n: abs(n - divisor))[:SHOWN])
    more = ", ..." if len(legal) > SHOWN else ""
    return f"{of} cannot be divided by {by} {divisor}; legal: {', '.join(map(str, near))}{more}"


def scalar(text: str) -> Any:
    """The value of a plain YAML scalar by the 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.match(text):
        return float(text)
    if special := _SPECIAL.match(text):
        return float("nan") if special[3] else float(special[1] + "inf")
    return text


def read(path: Path, shown: str = "", cited: bool = False) -> Document:
    """The YAML document in `path`, called `shown` in messages. Raises DocumentError, also when it cannot be read."""
    place = Place(shown or str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DocumentError([Problem(place, "", "not a text file (UTF-8 expected)")]) from None
    except OSError as error:
        raise DocumentError([Problem(place, "", f"cannot be read: {error.strerror}")]) from None
    return parse(text, place.file, cited)


def parse(text: str, file: str, cited: bool = False) -> Document:
    """The YAML document `text`, called `file` in messages. Raises DocumentError: syntax, duplicate keys, tags."""
    import yaml

    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        raise DocumentError([Problem(place, "", f"not YAML: {error.problem or error.context}")]) from None
    except UnicodeEncodeError:
        raise DocumentError([Problem(Place(file), "", "not text (UTF-8 expected)")]) from None
    except yaml.YAMLError as error:
        message = " ".join(str(getattr(error, "reason", error)).split())
        raise DocumentError([Problem(Place(file), "", f"not YAML: {message}")]) from None
    return _composed(node, file, cited)


ALIASED = 1 << 16
"""Values that aliases may add to those that are written: a few lines of aliases of aliases make billions."""
DEPTH = 64
"""Of lists and mappings inside each other."""


def _composed(node: Any, file: str, cited: bool) -> Document:
    if node is not None:
        added, depth = _extent(node)
        if depth > DEPTH:
            raise DocumentError([Problem(Place(file), "", f"lists and keys lie deeper than {DEPTH} in each other")])
        if added > ALIASED:
            what = f"aliases (*name) add {added} values; legal: up to {ALIASED}"
            raise DocumentError([Problem(Place(file), "", what)])
    places: dict[KeyPath, Place] = {(): Place(file, 1, 1, cited)}
    problems: list[Problem] = []
    content = None if node is None else _value(node, (), (file, cited), places, problems, ())
    if problems:
        raise DocumentError(problems)
    return Document(content, places)


def _extent(node: Any) -> tuple[int, int]:
    """Nodes that aliases add to those written below `node`, and how deep it is with them: counted, not made.

    An alias inside itself counts once. Nothing is looked at that lies deeper than DEPTH as written.
    """
    sizes: dict[int, tuple[int, int]] = {}

    def extent(node: Any, level: int) -> tuple[int, int]:
        if id(node) not in sizes:
            sizes[id(node)] = 1, 1
            if node.id != "scalar" and level <= DEPTH:
                inside = node.value if node.id == "sequence" else [part for pair in node.value for part in pair]
                parts = [extent(part, level + 1) for part in inside]
                size, depth = sum(size for size, _ in parts), max((depth for _, depth in parts), default=0)
                sizes[id(node)] = 1 + size, 1 + depth
        return sizes[id(node)]

    size, depth = extent(node, 0)
    return size - len(sizes), depth


def _value(
    node: Any, path: KeyPath, origin: tuple[str, bool], places: dict[KeyPath, Place], problems: list[Problem],
    open_nodes: tuple[int, ...],
) -> Any:  # fmt: skip
    """Plain content of a PyYAML node; fills in places and problems on the way."""
    place = _place(node, origin)
    places.setdefault(path, place)
    if not node.tag.startswith("tag:yaml.org,2002:"):
        problems.append(Problem(place, dotted(path), f"tags such as {node.tag} mean nothing here; write a plain value"))
    if node.id == "scalar":
        return node.value if node.style else scalar(node.value)
    if id(node) in open_nodes:
        problems.append(Problem(place, dotted(path), "an alias contains itself"))
        return None
    rest = (origin, places, problems, (*open_nodes, id(node)))
    if node.id == "sequence":
        return [_value(item, (*path, index), *rest) for index, item in enumerate(node.value)]
    return _mapping(node, path, *rest)


MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key <<, which takes over the keys of other mappings."""


def _mapping(
    node: Any, path: KeyPath, origin: tuple[str, bool], places: dict[KeyPath, Place], problems: list[Problem],
    open_nodes: tuple[int, ...],
) -> dict[str, Any]:  # fmt: skip
    content: dict[str, Any] = {}
    for other in _merged(node, path, origin, problems, open_nodes):
        content |= _mapping(other, path, origin, places, problems, (*open_nodes, id(other)))
    own: set[str] = set()
    for key, item in node.value:
        name, place = (key.value if key.id == "scalar" else "?"), _place(key, origin)
        inner = (*path, name)
        if key.id != "scalar":
            problems.append(Problem(place, dotted(path), "a key is a word"))
        elif name in own:
            problems.append(Problem(place, dotted(inner), f"written twice, first at line {places[inner].line}"))
        elif key.tag != MERGE and not (not path and name.startswith(SCRATCH)):
            for old in [old for old in places if old[: len(inner)] == inner] if name in content else ():
                del places[old]
            own.add(name)
            places[inner] = place
            content[name] = _value(item, inner, origin, places, problems, open_nodes)
    return content


SCRATCH = ("x-", ".")
"""How keys at the top of a document begin that only hold anchors: what they hold is not looked at."""


def _merged(
    node: Any, path: KeyPath, origin: tuple[str, bool], problems: list[Problem], open_nodes: tuple[int, ...]
) -> list[Any]:
    """Mappings that << takes over, those whose keys win last."""
    merged: list[Any] = []
    for key, item in node.value:
        if key.tag == MERGE:
            others = item.value if item.id == "sequence" else [item]
            if any(other.id != "mapping" for other in others):
                problems.append(Problem(_place(item, origin), dotted(path), "<< takes a mapping or a list of mappings"))
            elif any(id(other) in open_nodes for other in others):
                problems.append(Problem(_place(item, origin), dotted(path), "an alias contains itself"))
            else:
                merged += reversed(others)
    return merged


def _place(node: Any, origin: tuple[str, bool]) -> Place:
    return Place(origin[0], node.start_mark.line + 1, node.start_mark.column + 1, origin[1])


def merge(base: Document, change: Document) -> Document:
    """`base` with the keys of `change`: mappings merge key by key, all else is replaced.

    A figure ({value, kind, source}) is replaced whole: a new value must not inherit the old one's source.
    """
    if not (isinstance(base.content, Mapping) and isinstance(change.content, Mapping)) or "value" in change.content:
        return change
    content = dict(base.content)
    places = {path: place for path, place in base.places.items() if not path or path[0] not in change.content}
    places[()] = change.place(())
    for key in change.content:
        old = base.at(key) if key in base.content else None
        new = merge(old, change.at(key)) if old else change.at(key)
        places |= {(key, *path): place for path, place in new.places.items()}
        content[key] = new.content
    return Document(content, places)
