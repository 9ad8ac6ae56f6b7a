"""Scenarios in files: YAML to values, all mistakes at once; and what ships, by name.

`load` and `from_mapping` give a frozen, picklable Scenario or raise DocumentError, which lists all that is wrong.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwmodels import device as devices
from hwmodels import fabric as fabrics
from hwmodels import keys
from hwmodels import node as nodes
from hwmodels.document import Document, Place
from hwmodels.refused import Refused
from sim.models.family import families, form
from sim.scenario import shelves
from sim.scenario.shelves import models
from sim.scenario.values import Scenario
from sim.schedules import program


def load(
    scenario: Scenario | str | Path | Mapping[str, Any], overrides: Sequence[str] | str = (), **changes: Any
) -> Scenario:
    """The scenario in a YAML file, one that ships by its name, or plain values; changed by overrides.

    overrides: `key=value` each, as on the command line, or one; changes: the same by name. They come one after another.
    Raises DocumentError.
    """
    from sim.scenario.resolve import resolve

    words = [*_words(overrides), *(f"{key}={_text(value)}" for key, value in changes.items())]
    if isinstance(scenario, Scenario):
        return _changed(scenario, words) if words else scenario
    if isinstance(scenario, Mapping):
        return from_mapping(scenario, words)
    if not isinstance(scenario, str | Path):
        raise Refused(f"expected a scenario: a file, a name, a mapping or one that is loaded; found {scenario!r}")
    return resolve(shelves.document(str(scenario)), words, shelves.place(str(scenario)))


def _changed(scenario: Scenario, words: Sequence[str]) -> Scenario:
    """A scenario with further overrides."""
    changed = from_mapping({**scenario.resolved, "name": scenario.name}, words)
    asked = tuple(dict.fromkeys((*scenario.asked, *changed.asked)))
    first = scenario.source or changed.source
    assert first is not None
    source = replace(first, overrides=(*first.overrides, *words))
    return replace(changed.overridden(*scenario.overrides, *words), asked=asked, source=source)


def _words(overrides: Any) -> Sequence[str]:
    """Overrides as a list; one alone is a list of one. Raises Refused for what is none."""
    if isinstance(overrides, Mapping) or not isinstance(overrides, Iterable):
        form = "['comm.sms=12'], or by name **{'comm.sms': 12}"
        raise Refused(f"expected overrides, such as {form}; found {overrides!r}")
    words = [overrides] if isinstance(overrides, str) else list(overrides)
    if odd := [word for word in words if not isinstance(word, str)]:
        raise Refused(f"expected overrides, each as text such as 'comm.sms=12'; found {odd[0]!r}")
    return words


def _text(value: Any) -> str:
    """A value as an override has it: text as it is, all else as JSON, which is YAML."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def others(scenario: Scenario, key: str, *defaults: Any) -> Iterator[Scenario]:
    """A scenario as it is without a dotted key: with what the key builds on, with what its file has where it is
    overridden, and with each default; as far as that is a scenario, and another one."""
    from sim.scenario.overrides import apply, touches
    from sim.scenario.resolve import resolve

    source = scenario.source
    if source is None:
        return
    changed, _ = apply(source.document, source.overrides)
    rest = [word for word in source.overrides if not touches(word, key)]
    ways = [(changed.without(*key.split(".")), ()), (source.document, tuple(rest))]
    ways += [(source.document, (*source.overrides, f"{key}={json.dumps(value)}")) for value in defaults]
    for document, words in ways:
        with suppress(Refused):
            other = resolve(document, words, source.path)
            if other.scenario_hash != scenario.scenario_hash:
                yield other


def from_mapping(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> Scenario:
    """The scenario that plain values (as in YAML) describe, changed by overrides. Raises DocumentError."""
    from sim.scenario.resolve import resolve

    return resolve(Document(mapping, {(): Place("<mapping>")}), overrides, None)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the YAML form, with the names that are known now."""
    from sim.scenario.form import ScenarioForm

    content = ScenarioForm.described()
    cluster, schedules = content["$defs"]["ClusterForm"]["properties"], {"enum": list(program.names())}
    device = _named(devices.available(), keys.properties(keys.DEVICE))
    node = keys.properties(keys.NODE)
    node["device"] |= device
    cluster["node"] |= _named(nodes.available(), node)
    cluster["fabric"] |= _named(fabrics.available(), keys.properties(keys.FABRIC))
    forms = [form(name).described()["properties"] for name in families()]
    content["properties"]["model"] |= _named(models(), *forms)
    content["properties"]["schedule"] |= {"anyOf": [schedules, {"$ref": "#/$defs/ScheduleForm"}]}
    content["$defs"]["ScheduleForm"]["properties"]["name"] |= schedules
    words = {"enum": ["recipe", "none", "full", "selective_op"]}
    content["properties"]["recompute"] |= {"anyOf": [words, {"$ref": "#/$defs/RecomputeForm"}]}
    named = (content["properties"][key] for key in ("model", "schedule", "recompute"))
    for whole in (cluster["node"], cluster["fabric"], *named):
        for key in ("$ref", "type"):
            whole.pop(key, None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


def _named(legal: Sequence[str], *kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Schema of a document: a name, or a mapping of the keys of one of its kinds that may build on a name."""
    words: dict[str, Any] = {"enum": list(legal)}
    each: list[dict[str, Any]] = [{**kind, "base": words} for kind in kinds]
    mappings = ({"type": "object", "properties": part, "additionalProperties": False} for part in each)
    return {"anyOf": [words, *mappings]}
