"""What pydantic found wrong in a form, a line each in our words."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from hwmodels.document import Document, KeyPath, Problem, did_you_mean, dotted, unknown
from sim.models.form import Form


def mistakes(form: type[Form], error: ValidationError) -> list[tuple[KeyPath, str]]:
    """Each mistake pydantic found in a `form`, as the key path and one line in our words."""
    return [(_path(item["loc"], item["type"]), _message(form, item)) for item in error.errors(include_url=False)]


def problems(form: type[Form], error: ValidationError, document: Document, key: KeyPath = ()) -> list[Problem]:
    """The same with their places in the document."""
    errors = mistakes(form, error)
    return [Problem(document.place(path), dotted((*key, *path)), message) for path, message in errors]


def _path(loc: tuple[int | str, ...], kind: str) -> KeyPath:
    """The key path of a location; pydantic adds the names of union members and validators, which are no keys. An
    unknown key comes last, whatever it is."""
    last = loc[-1:] if kind in ("extra_forbidden", "invalid_key") else ()
    above = loc[: len(loc) - len(last)]
    return (*(part for part in above if isinstance(part, int) or part.isidentifier()), *last)


def _message(form: type[Form], item: Mapping[str, Any]) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "invalid_key":
        return f"a key is a word; found {value!r}"
    if kind == "extra_forbidden":
        return _unknown(form, item["loc"])
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        legal = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"found {value!r}{did_you_mean(value, legal) or ';'} legal: {', '.join(legal)}"
    expected = _bounded(form, item["loc"], context) if kind in _OUT_OF_BOUNDS else _EXPECTED.get(kind, item["msg"])
    if kind in ("model_type", "model_attributes_type"):
        expected = f"a mapping with {', '.join(keys(form, item['loc']))}"
    if kind == "tuple_type" and isinstance(value, Mapping) and all(str(key).isdecimal() for key in value):
        return f"no list is written that has item {', '.join(value)}; write it whole: {item['loc'][-1]}=[...]"
    if kind == "missing":
        last = item["loc"][-1]
        known = _OF_FAULTS if item["loc"][0] == "faults" else _MISSING
        return f"missing; expected {known.get(last) or _wanted(form, item['loc'])}"
    return f"expected {expected}; found {value!r}"


_SHORT = {"tp": "tensor", "pp": "pipeline", "ep": "expert", "cp": "context", "sp": "sequence", "etp": "expert_tensor"}
"""What launch files call kinds of parallelism."""
_LEFT = ("dp", "data", "data_parallel")
"""What they call the kind that has no key."""


def _unknown(form: type[Form], loc: KeyPath) -> str:
    """A key that is none, with what is meant where other software has it."""
    word, line = str(loc[-1]), unknown(loc[-1], "key", keys(form, loc[:-1]))
    if loc[-2:-1] != ("parallel",):
        return line
    if word in _LEFT:
        return f"{line}; data parallelism is what tensor, context and pipeline leave of the GPUs"
    meant = _SHORT.get(word)
    return line.replace(f"{word!r};", f"{word!r}, did you mean {meant!r}?", 1) if meant else line


def _wanted(form: type[Form], loc: KeyPath) -> str:
    """What stands at `loc`, by its field's type."""
    annotation = _fields(_part(form, loc[:-1]))[str(loc[-1])].annotation
    inner = next(_forms(annotation), None)
    listed = get_origin(annotation) is tuple
    if inner:
        return f"{'a list of mappings' if listed else 'a mapping'} with {', '.join(_fields(inner))}"
    plain: dict[Any, str] = {str: "text", int: "a whole number", float: "a number"}
    return "a list" if listed else plain.get(annotation, "a value")


def _bounded(form: type[Form], loc: KeyPath, missed: Mapping[str, Any]) -> str:
    """What the number at `loc` may be: by the bounds its field has, and the one it missed."""
    field = _fields(_part(form, loc[:-1]))[str(loc[-1])]
    optional = [inner for each in get_args(field.annotation) for inner in getattr(each, "__metadata__", ())]
    metadata = [*field.metadata, *(item for each in optional for item in getattr(each, "metadata", ()))]
    bounds = {key: getattr(item, key) for item in metadata for key in ("gt", "ge", "le") if hasattr(item, key)}
    bounds = {**missed, **bounds}
    kinds = [getattr(each, "__origin__", each) for each in (field.annotation, *get_args(field.annotation))]
    whole = float not in kinds
    number = "a whole number" if whole else "a number"
    if "gt" in bounds:
        return f"a finite number above {bounds['gt']:g}"
    if "le" in (missed if whole else bounds):
        least, most = (str(each) if whole else f"{each:g}" for each in (bounds.get("ge", 1), bounds["le"]))
        return f"{number} from {least} to {most}"
    return f"{number}, {bounds['ge']:g} or more"


_OUT_OF_BOUNDS = ("greater_than", "greater_than_equal", "less_than_equal", "finite_number")

_OF_FAULTS = {
    "kind": "gpu, node, link or thermal", "at": "the number of a rank, or of a node",
    "slower": "how many times as long its work takes, e.g. 1.5",
}  # fmt: skip

_MISSING = {
    "batch": "a mapping, e.g. {sequences: 15360}", "node": "e.g. h800x8",
    "nodes": "a whole number, 1 or more", "name": "text",
    **dict.fromkeys(("forward", "backward_input", "weight"), 'a time, e.g. "18.5 ms"'),
}  # fmt: skip

_EXPECTED = {
    "string_type": "text", "bool_type": "true or false", "bool_parsing": "true or false",
    "float_type": "a number", "int_type": "a whole number", "int_from_float": "a whole number", "tuple_type": "a list",
    "dict_type": "a mapping", "too_short": "an item or more",
}  # fmt: skip


def keys(form: type[BaseModel], path: KeyPath) -> tuple[str, ...]:
    """The legal keys of the part of `form` at `path`."""
    return tuple(_fields(_part(form, path)))


def _fields(form: type[BaseModel]) -> dict[str, FieldInfo]:
    """Fields of a form by their keys in YAML."""
    return {field.alias or name: field for name, field in form.model_fields.items()}


def _part(form: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    for part in path:
        inner = _fields(form).get(str(part))
        form = next(_forms(inner.annotation), form) if inner else form
    return form


def _forms(annotation: Any) -> Iterator[type[BaseModel]]:
    """Forms that an annotation speaks of, also as one of several or of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _forms(inner)
