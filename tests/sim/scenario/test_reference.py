"""The reference page: what programs make of the schema and of the list of figures, and no key without a sentence."""

from pathlib import Path

import pytest

from hwmodels import device, fabric, keys, node
from hwmodels.document import Document
from hwmodels.fabric import SHAPES
from hwmodels.refused import Refused
from hwmodels.shelf import Shelf, expand
from sim.__main__ import main
from sim.cli.schema import renewed
from sim.models.family import families, form
from sim.result.archive import FILES, LOADS_HEAD
from sim.result.trace import Trace
from sim.scenario import reference
from sim.scenario.files import schema

PAGE = Path(__file__).parents[3] / "docs" / "REFERENCE.md"
RENEW = "run `python -m sim schema --write`"


def test_the_page_is_what_the_programs_make() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert renewed(text) == text, RENEW
    with pytest.raises(Refused, match="the marks <!-- keys --> and <!-- /keys --> are missing"):
        renewed(text.replace("<!-- keys -->", ""))


def test_every_key_of_a_scenario_and_of_a_model_is_described() -> None:
    forms = [schema(), *(form(name).described() for name in families())]
    walks = (reference._walk(each, each.get("$defs", {})) for each in forms)
    assert [key for walk in walks for key, part in walk if not part.get("description")] == []


@pytest.mark.parametrize(("shelf", "legal", "described"), [
    (node.SHELF, node.KEYS, keys.NODE), (device.SHELF, device.KEYS, keys.DEVICE),
    (fabric.SHELF, fabric.KEYS, keys.FABRIC),
], ids=["node", "device", "fabric"])  # fmt: skip
def test_every_key_of_a_machine_is_described(shelf: Shelf, legal: tuple[str, ...], described: dict[str, str]) -> None:
    """Those that are legal, no others, and all that a document that ships has."""
    assert {key.split(".")[0] for key in described} == set(legal)
    for name in (path.stem for path in shelf.folder.glob("*.yaml")):
        content = expand(Document(name), shelf).content
        for key, value in content.items():
            inner = [f"{key}.{each}" for each in value] if isinstance(value, dict) and "value" not in value else [key]
            assert key == "device" or set(inner) <= described.keys(), name


def test_the_schema_carries_the_descriptions() -> None:
    cluster = schema()["$defs"]["ClusterForm"]["properties"]
    words, inline = cluster["node"]["anyOf"]
    assert "h800x8" in words["enum"] and cluster["node"]["description"].startswith("The server")
    assert inline["properties"]["nic"]["properties"]["bandwidth"]["description"].endswith("of each NIC.")
    hbm = inline["properties"]["device"]["anyOf"][1]["properties"]["hbm"]
    assert hbm["properties"]["capacity"]["description"] == "Bytes of the device's memory."
    shapes = {key for keys in SHAPES.values() for key in keys}
    assert shapes <= cluster["fabric"]["anyOf"][1]["properties"].keys()


def test_the_page_names_every_file_and_column() -> None:
    text = PAGE.read_text(encoding="utf-8")
    columns = {"rank" if name == "position" else name for name in Trace.COLUMNS}
    assert [name for name in (*FILES, *columns, *(head for head in LOADS_HEAD[:4])) if f"`{name}`" not in text] == []


def test_write_is_for_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["schema", "--write"]) == 2
    assert capsys.readouterr().err == "docs/REFERENCE.md: is not here; --write renews it in a checkout\n"  # type: ignore[attr-defined]
    (tmp_path / "docs").mkdir()
    stale = "<!-- keys -->yesterday<!-- /keys --> mine <!-- figures --><!-- /figures -->\n"
    (tmp_path / "docs" / "REFERENCE.md").write_text(stale)
    assert main(["schema", "--write"]) == 0
    text = (tmp_path / "docs" / "REFERENCE.md").read_text()
    assert text == renewed(text) and "| `seed` |" in text and "yesterday" not in text and " mine " in text
