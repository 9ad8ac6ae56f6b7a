"""Scenarios in files: YAML to values, all mistakes at once; and what ships, by name.

`load` and `from_mapping` give a frozen, picklable Scenario or raise DocumentError, which lists all that is wrong.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwmodels import fabric as fabrics
from hwmodels import node as nodes
from hwmodels.document import Document, Place, read
from sim.models.family import families, family
from sim.scenario.shelves import models
from sim.scenario.values import Scenario
from sim.schedules import program


def load(path: str, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario in a YAML file, changed by `key=value` overrides. Raises DocumentError."""
    from sim.scenario.resolve import resolve

    return resolve(read(Path(path)), overrides, Path(path))


def without(path: str, overrides: Sequence[str], key: str) -> Scenario:
    """The scenario in a file, changed by overrides, as it is without a dotted key. Raises DocumentError, also where
    nothing else says what the key says."""
    from sim.scenario.overrides import apply
    from sim.scenario.resolve import resolve

    document, _ = apply(read(Path(path)), overrides)
    return resolve(document.without(*key.split(".")), (), Path(path))


def from_mapping(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> Scenario:
    """The scenario that plain values (as in YAML) describe, changed by overrides. Raises DocumentError."""
    from sim.scenario.resolve import resolve

    return resolve(Document(mapping, {(): Place("<mapping>")}), overrides, None)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the YAML form, with the names that are known now."""
    from sim.scenario.form import ScenarioForm

    content = ScenarioForm.model_json_schema()
    content["$defs"]["ClusterForm"]["properties"]["node"] = _named(nodes.available(), nodes.KEYS)
    content["$defs"]["ClusterForm"]["properties"]["fabric"] = _named(fabrics.available(), fabrics.KEYS)
    shapes = [family(name).Shape for name in families()]
    content["properties"]["model"] = _named(models(), *(tuple(shape.__dataclass_fields__) for shape in shapes))
    content["properties"]["schedule"] = {"anyOf": [{"enum": list(program.names())}, {"$ref": "#/$defs/ScheduleForm"}]}
    content["$defs"]["ScheduleForm"]["properties"]["name"]["enum"] = list(program.names())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


def _named(legal: Sequence[str], *kinds: Sequence[str]) -> dict[str, Any]:
    """Schema of a document: a name, or a mapping of the keys of one of its kinds that may build on a name."""
    words: dict[str, Any] = {"enum": list(legal)}
    each: list[dict[str, Any]] = [{key: {} for key in keys} | {"base": words} for keys in kinds]
    mappings = ({"type": "object", "properties": keys, "additionalProperties": False} for keys in each)
    return {"anyOf": [words, *mappings]}
