"""The contract of a family: who lacks a part of it cannot be used, and those that ship keep it."""

import sys
from dataclasses import MISSING, is_dataclass
from types import ModuleType

import pytest

from hwmodels.document import DocumentError
from sim.models import family as families
from sim.models.family import CONTRACT, family, form
from sim.models.family import families as names
from sim.models.shape import ModelShape
from sim.scenario import SCENARIOS, from_mapping, load, models, schema

NAMES = {
    "Shape", "made", "mistakes", "units", "mixture", "parts", "weights", "flop", "cache", "kept", "kept_for_weight",
    "regained", "workspace",
}  # fmt: skip


def whole(monkeypatch, name="tiny", without=()):
    """A family of that name in sys.modules that has all of the contract but some."""
    module = ModuleType(f"sim.models.{name}")
    for each in set(CONTRACT) - set(without):
        setattr(module, each, lambda *args: None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    families.family.cache_clear()


def test_the_contract_is_what_the_protocol_says():
    assert set(CONTRACT) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_family_that_lacks_one_name_cannot_be_used(monkeypatch, name):
    whole(monkeypatch, without=[name])
    with pytest.raises(TypeError, match=rf"model family tiny lacks {name} \(see sim.models.family.Family\)"):
        family("tiny")


def test_all_that_is_missing_is_told_at_once(monkeypatch):
    whole(monkeypatch, without=["cache", "kept"])
    with pytest.raises(TypeError, match="lacks cache, kept "):
        family("tiny")


def test_a_whole_family_is_taken(monkeypatch):
    whole(monkeypatch)
    assert family("tiny") is sys.modules["sim.models.tiny"]


@pytest.mark.parametrize("name", names())
def test_families_that_ship_keep_it(name):
    own = family(name)
    assert issubclass(own.Shape, ModelShape) and is_dataclass(own.Shape)
    fields = form(name).model_fields
    assert set(fields) == set(own.Shape.__dataclass_fields__)
    defaults = {key: f.default for key, f in own.Shape.__dataclass_fields__.items() if f.default is not MISSING}
    assert defaults == {key: field.default for key, field in fields.items() if not field.is_required()}


@pytest.mark.parametrize("name", models())
def test_every_model_that_ships_is_whole(name):
    """Units in order, one head of its own at least; only routed blocks have experts; what is beside comes last."""
    scenario = {"cluster": {"node": "h200x8", "nodes": 16}, "model": name, "schedule": "1f1b", "precision": "bf16",
                "batch": {"micro_batches": 1}}  # fmt: skip
    shape = from_mapping(scenario).model
    own = family(shape.family)
    units = own.units(shape)
    assert not list(own.mistakes(shape))
    assert [unit.layer for unit in units if unit.block and not unit.beside] == list(range(shape.layers))
    assert [unit.beside for unit in units] == sorted(unit.beside for unit in units)
    assert (own.mixture(shape) is not None) == any(unit.routed for unit in units)
    for unit in units:
        assert bool(own.weights(shape, unit).experts) == unit.routed
    assert own.weights(shape, units[0]).table == 0, "the first unit is the one that holds the table"


def test_the_schema_has_the_keys_of_each_family():
    found = schema()["properties"]["model"]["anyOf"]
    assert found[0]["enum"] == list(models())
    keys = [set(each["properties"]) - {"base"} for each in found[1:]]
    assert keys == [set(family(name).Shape.__dataclass_fields__) for name in names()]


def test_a_model_that_does_not_say_its_family_is_told():
    scenario = {"cluster": {"node": "h200x8", "nodes": 16}, "model": {"hidden": 512}, "schedule": "1f1b",
                "batch": {"micro_batches": 1}}  # fmt: skip
    with pytest.raises(DocumentError, match=r"model\.family: missing; legal: deepseek, transformer"):
        from_mapping(scenario)


def test_keys_of_another_family_are_unknown():
    with pytest.raises(DocumentError, match="unknown key 'route_scale'; legal: activation, capacity, chunk"):
        load(str(SCENARIOS / "llama3_70b.yaml"), ["model.route_scale=8"])
