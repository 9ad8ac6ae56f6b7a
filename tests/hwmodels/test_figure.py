"""Figures: numbers that say how they are known. A leaf without kind or source is an error in our files."""

import pytest

from hwmodels.document import DocumentError, parse
from hwmodels.figure import Figure, Reading, resolved


def reading(text: str, cited: bool = True) -> Reading:
    return Reading(parse(text, "f.yaml", cited), ("node", "nic"))


@pytest.mark.parametrize(("leaf", "message"), [
    ("5 GB/s", "speed: a figure needs kind and source: {value: ..., kind: ..., source: ...}"),
    ("{value: 5 GB/s, kind: measured}", "speed: a figure needs source: {value: ..., kind: ..., source: ...}"),
    ("{value: 5 GB/s, source: a paper}", "speed: a figure needs kind: {value: ..., kind: ..., source: ...}"),
    ("{kind: measured, source: a paper}", "speed: a figure needs value: {value: ..., kind: ..., source: ...}"),
    ("{value: 5 GB/s, kind: measured, source: ''}",
     "speed: a figure needs source: {value: ..., kind: ..., source: ...}"),
    ("{value: 5 GB/s, kind: mesured, source: a paper}",
     "speed.kind: unknown kind 'mesured', did you mean 'measured'? legal: datasheet, measured, published-effective, "
     "assumed"),
    ("{value: 5 GB/s, kind: assumed, source: x, unit: y}",
     "speed.unit: unknown key 'unit'; legal: kind, source, value"),
    ("{value: 5 GB, kind: assumed, source: x}", "speed.value: '5 GB' is data, expected data/time (e.g. \"50 GB/s\")"),
    ("{value: 5, kind: assumed, source: x}", 'speed.value: number 5 needs a unit, e.g. "5 GB/s"'),
    ("null", "speed: missing; expected {value: ..., kind: ..., source: ...}"),
])  # fmt: skip
def test_a_figure_that_is_not_whole(leaf: str, message: str) -> None:
    found = reading(f"speed: {leaf}\n")
    assert found.quantity("data/time", "speed") == 0
    with pytest.raises(DocumentError) as caught:
        found.check()
    place, text = str(caught.value).split(": ", 1)
    assert place.startswith("f.yaml:1:") and text == f"node.nic.{message}"


def test_a_whole_figure_is_kept_with_its_provenance() -> None:
    found = reading("speed: {value: 400 Gb/s, kind: datasheet, source: leaflet}\n")
    assert found.quantity("data/time", "speed") == 50e9
    assert found.figures == {"speed": Figure("400 Gb/s", 50e9, "datasheet", "leaflet")}


def test_a_bare_figure_is_an_assumption_where_files_are_not_ours() -> None:
    found = reading("speed: 5 GB/s\n", cited=False)
    assert found.quantity("data/time", "speed") == 5e9
    found.check()
    assert found.figures["speed"] == Figure("5 GB/s", 5e9, "assumed", "override")
    assert resolved({"speed": "5 GB/s", "name": "n"}, found.figures) == {
        "speed": {"value": "5 GB/s", "kind": "assumed", "source": "override"}, "name": "n",
    }  # fmt: skip


@pytest.mark.parametrize("count", ["0", "-1", "2.5", "two", "true", "'8'"])
def test_counts_are_whole_and_positive(count: str) -> None:
    found = reading(f"gpus: {count}\n", cited=False)
    assert found.count("gpus") == 0
    assert "gpus: expected a whole number, 1 or more; found " in str(found.problems[0])


def test_words_and_keys() -> None:
    found = reading("name: 5\nextra: 1\n")
    assert found.word("name") == "" and found.word("kind") == "" and found.word("tables", optional=True) == ""
    assert not found.keys(("a", "b"), "name") and not found.keys(("a",), "absent")
    assert found.keys(("name",))
    assert [str(problem) for problem in found.problems] == [
        "f.yaml:1:1: node.nic.name: expected a word; found 5",
        "f.yaml:1:1: node.nic.kind: missing; expected a word",
        "f.yaml:1:1: node.nic.name: expected a mapping with a, b; found 5",
        "f.yaml:1:1: node.nic.absent: missing; expected a mapping with a",
        "f.yaml:2:1: node.nic.extra: unknown key 'extra'; legal: name",
    ]
