"""The reference of a scenario's keys in docs/REFERENCE.md, made from the schema that editors check with."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hwmodels import keys as machines
from sim.models.family import families
from sim.models.family import form as form_of
from sim.models.form import Form
from sim.scenario.files import schema

HEAD = "| key | what it is | values | default |\n|---|---|---|---|"
PLAIN = "| key | what it is |\n|---|---|"
EMPTY = ("null", "{}", "[]")

Part = Mapping[str, Any]


def keys(others: Mapping[str, type[Form]]) -> str:
    """Tables of Markdown: the keys of a scenario, of other kinds by their names, of machines, and of models by
    family."""
    whole = schema()
    parts = {"Scenario": [HEAD, *_rows(whole, whole["$defs"])]}
    for name, other in others.items():
        form = other.described()
        parts[name] = [HEAD, *_rows(form, form.get("$defs", {}))]
    for name, described in (("Node", machines.NODE), ("Device", machines.DEVICE), ("Fabric", machines.FABRIC)):
        parts[name] = [PLAIN, *(f"| `{key}` | {text} |" for key, text in described.items())]
    for name in families():
        form = form_of(name).described()
        parts[f"Model of family {name}"] = [HEAD, *_rows(form, form.get("$defs", {}))]
    return "\n\n".join("\n".join((f"### {name}\n", *lines)) for name, lines in parts.items()) + "\n"


def _rows(form: Part, shared: Mapping[str, Part]) -> Iterator[str]:
    for key, part in _walk(form, shared):
        yield _line(key, part)


def _walk(form: Part, shared: Mapping[str, Part], above: str = "") -> Iterator[tuple[str, Part]]:
    """Dotted keys of a form with their parts of the schema, those of forms inside it after their own."""
    for name, part in form["properties"].items():
        key = f"{above}{name}"
        yield key, {**part, "required here": name in form.get("required", ())}
        for inner, item in _inside(part, shared):
            yield from _walk(inner, shared, f"{key}{'[N]' if item else ''}.")


def _inside(part: Part, shared: Mapping[str, Part]) -> Iterator[tuple[Part, bool]]:
    """Forms that a key may hold, each with whether it holds a list of them."""
    for each in (part, *part.get("anyOf", ())):
        if "$ref" in each:
            yield shared[each["$ref"].rpartition("/")[2]], False
        if "$ref" in (items := each.get("items", {})):
            yield shared[items["$ref"].rpartition("/")[2]], True


def _line(key: str, part: Part) -> str:
    default = "required" if part["required here"] else json.dumps(part["default"]) if "default" in part else ""
    text = " ".join(part.get("description", "").split()).replace("|", "\\|")
    shown = "" if default in EMPTY or default.startswith("{") else default
    return f"| `{key}` | {text} | {_values(part)} | {shown.strip(chr(34))} |"


def _values(part: Part) -> str:
    """What may be written, in a few words."""
    words = [_value(each) for each in part.get("anyOf", (part,))]
    return " or ".join(dict.fromkeys(word for word in words if word))


def _value(part: Part) -> str:
    if "enum" in part or "const" in part:
        return ", ".join(map(str, part.get("enum", [part.get("const")])))
    if "examples" in part:
        return f"{part['format']}, e.g. {part['examples'][0]}"
    if "$ref" in part or part.get("type") in ("object", ["string", "object"]):
        return "mapping" if part.get("type") != ["string", "object"] else "name or mapping"
    if part.get("type") == "integer":
        low, high = part.get("minimum", ""), part.get("maximum", "")
        return f"whole number, {low} to {high}" if high != "" else f"whole number, {low} or more"
    if part.get("type") == ["string", "array"]:
        return "file or list"
    plain = {"string": "text", "number": "number", "boolean": "true or false", "array": "list"}
    return plain.get(str(part.get("type")), "")
