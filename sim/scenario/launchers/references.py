"""Values of a recipe in YAML that stand for others of it, as OmegaConf reads them: `${model.seq_length}` by its place
in the whole, `${.hidden_size}` beside the value itself and a dot more for each level above (omegaconf.readthedocs.io,
"Variable interpolation"); of functions those that NVIDIA's launcher of NeMo adds (NeMo-Framework-Launcher,
launcher_scripts/main.py): multiply, divide_ceil, divide_floor. What else stands there stays as it is written.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from hwmodels.document import Document

Path = tuple[str | int, ...]

REFERENCE = re.compile(r"\$\{\s*(\.*)([\w.\-]+)\s*\}\Z")
SUM = re.compile(r"\$\{\s*(\w+)\s*:\s*([^,]+?)\s*,\s*([^,]+?)\s*\}\Z")
"""A reference, and a function of two numbers or references, each alone in its value."""
FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "multiply": lambda a, b: a * b, "divide_ceil": lambda a, b: -(-a // b), "divide_floor": lambda a, b: a // b,
}  # fmt: skip
DEPTH = 16
"""References that lead on to others, at most."""


def followed(document: Document) -> Document:
    """The document with values in the place of what refers to them."""
    return Document(_content(document.content, (), document), document.places)


def _content(content: Any, path: Path, document: Document) -> Any:
    if isinstance(content, Mapping):
        return {key: _content(value, (*path, key), document) for key, value in content.items()}
    return _value(content, path, document, DEPTH)


def _value(text: Any, path: Path, document: Document, left: int) -> Any:
    """What a value at `path` comes to; itself where it refers to nothing that is known."""
    if not isinstance(text, str) or "${" not in text or not left:
        return text
    if match := REFERENCE.match(text):
        dots, name = match.groups()
        above = path[: len(path) - len(dots)] if dots else ()
        target = (*above, *name.split("."))
        other = document.value(*target) if len(dots) <= len(path) else None
        return text if other is None or isinstance(other, Mapping) else _value(other, target, document, left - 1)
    if (match := SUM.match(text)) and match[1] in FUNCTIONS:
        one, two = (_number(_value(word, path, document, left - 1)) for word in match.groups()[1:])
        if one is not None and two:
            return FUNCTIONS[match[1]](one, two)
    return text


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if type(value) is int else None
