"""Documents that name each other and build on each other."""

from pathlib import Path

import pytest

from hwmodels import node
from hwmodels.document import Document, DocumentError
from hwmodels.shelf import Shelf, expand, names
from sim.scenario import MODELS


def shelf(folder: Path, **files: str) -> Shelf:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return Shelf("thing", folder, "things", cited=False)


def test_a_document_builds_on_its_base(tmp_path: Path) -> None:
    things = shelf(tmp_path, a="n: 1\nm: {x: 1, y: 2}\n", b="base: a\nm: {y: 3}\n")
    assert expand(Document("b"), things).content == {"n": 1, "m": {"x": 1, "y": 3}}
    assert expand(Document({"base": "b", "n": 7}), things).content == {"n": 7, "m": {"x": 1, "y": 3}}
    assert expand(Document({"n": 7}), things).content == {"n": 7}
    assert names(tmp_path) == ("a", "b")


def test_inner_documents_are_changed_key_by_key_or_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    parts = shelf(tmp_path / "inner", p="x: 1\ny: 2\n", q="x: 10\n")
    things = Shelf("thing", tmp_path, "things", {"part": parts}, cited=False)
    (tmp_path / "a.yaml").write_text("part: p\n")
    assert expand(Document({"base": "a", "part": {"y": 3}}), things).content == {"part": {"x": 1, "y": 3}}
    assert expand(Document({"base": "a", "part": "q"}), things).content == {"part": {"x": 10}}
    changed = Document({"base": "a", "part": {"base": "q", "y": 3}})
    assert expand(changed, things).content == {"part": {"x": 10, "y": 3}}


@pytest.mark.parametrize(("files", "line"), [
    ({"a": "base: a\n"}, "things/a.yaml:1:1: base: base goes in a circle: a -> a"),
    ({"a": "base: b\n", "b": "x: 1\nbase: a\n"}, "things/b.yaml:2:1: base: base goes in a circle: a -> b -> a"),
    ({"a": "base: xx\n", "gpu": ""}, "things/a.yaml:1:1: base: unknown thing 'xx'; legal: a, gpu"),
    ({"a": "base: gpq\n", "gpu": ""},
     "things/a.yaml:1:1: base: unknown thing 'gpq', did you mean 'gpu'? legal: a, gpu"),
    ({"a": "base: [b]\n"}, "things/a.yaml:1:1: base: unknown thing ['b']; legal: a"),
])  # fmt: skip
def test_a_base_that_leads_nowhere(tmp_path: Path, files: dict[str, str], line: str) -> None:
    with pytest.raises(DocumentError) as caught:
        expand(Document("a"), shelf(tmp_path, **files))
    assert str(caught.value) == line


@pytest.mark.parametrize("word", ["mine.yaml", "../mine", "/a/mine.yml"])
def test_a_path_is_told_how_documents_are_named(word: str) -> None:
    with pytest.raises(DocumentError) as caught:
        expand(Document(word), node.SHELF)
    line = f"{word!r} is a file; a node is named, or written out with its keys; legal: a100x8, "
    assert str(caught.value).startswith(f"<mapping>: {line}") and "beside" not in str(caught.value)
    with pytest.raises(DocumentError, match="one in models/ beside the scenario has a name too"):
        expand(Document(word), MODELS)
