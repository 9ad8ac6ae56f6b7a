"""What pydantic finds wrong with a form, in our words: the key, what was found, what is legal."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from hwmodels.document import KeyPath, did_you_mean, unknown
from sim.models.form import Form


def mistakes(form: type[Form], error: ValidationError) -> list[tuple[KeyPath, str]]:
    """Each mistake pydantic found in a `form`, as the key path and one line in our words."""
    return [(_path(item["loc"]), _message(form, item)) for item in error.errors(include_url=False)]


def _path(loc: tuple[int | str, ...]) -> KeyPath:
    """The key path of a location; pydantic adds the names of union members and validators, which are no keys."""
    return tuple(part for part in loc if isinstance(part, int) or part.isidentifier())


def _message(form: type[Form], item: Mapping[str, Any]) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown(item["loc"][-1], "key", keys(form, item["loc"][:-1]))
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
        return f"missing; expected {_MISSING.get(item['loc'][-1], 'a value')}"
    return f"expected {expected}; found {value!r}"


def _bounded(form: type[Form], loc: KeyPath, missed: Mapping[str, Any]) -> str:
    """What the number at `loc` may be: by the bounds its field has, and the one it missed."""
    field = _part(form, loc[:-1]).model_fields[str(loc[-1])]
    bounds = {key: getattr(item, key) for item in field.metadata for key in ("gt", "ge", "le") if hasattr(item, key)}
    bounds = {**missed, **bounds}
    whole = field.annotation is not float
    number = "a whole number" if whole else "a number"
    if "gt" in bounds:
        return f"a finite number above {bounds['gt']:g}"
    if "le" in (missed if whole else bounds):
        least, most = (str(each) if whole else f"{each:g}" for each in (bounds.get("ge", 1), bounds["le"]))
        return f"{number} from {least} to {most}"
    return f"{number}, {bounds['ge']:g} or more"


_OUT_OF_BOUNDS = ("greater_than", "greater_than_equal", "less_than_equal", "finite_number")

_MISSING = {
    "schedule": "a schedule, e.g. dualpipe", "batch": "a mapping, e.g. {sequences: 15360}", "node": "e.g. h800x8",
    "nodes": "a whole number, 1 or more", "name": "text",
    **dict.fromkeys(("forward", "backward_input", "weight"), 'a time, e.g. "18.5 ms"'),
}  # fmt: skip

_EXPECTED = {
    "string_type": "text", "bool_type": "true or false", "bool_parsing": "true or false",
    "float_type": "a number", "int_type": "a whole number", "int_from_float": "a whole number", "tuple_type": "a list",
}  # fmt: skip


def keys(form: type[BaseModel], path: KeyPath) -> tuple[str, ...]:
    """The legal keys of the part of `form` at `path`."""
    return tuple(_part(form, path).model_fields)


def _part(form: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    for part in path:
        inner = form.model_fields.get(str(part))
        forms = [inner.annotation, *get_args(inner.annotation)] if inner else []
        form = next((item for item in forms if isinstance(item, type) and issubclass(item, BaseModel)), form)
    return form
