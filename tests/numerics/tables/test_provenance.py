"""Digests follow what a program does and nothing else; stale tables are named, with the file that changed."""

import ast
import json
import shutil
from pathlib import Path

import pytest

from hwmodels.tables import FOLDER
from numerics.card import campaign
from numerics.tables import provenance, recording
from numerics.tables.provenance import ROOT, canonical, content, digest, program, stale

PROGRAM = {
    "rail/__init__.py": "",
    "rail/fits.py": "import math\nSLACK = 2\ndef fit(x):\n    return x + SLACK\ndef unused(x):\n    return -x\n",
    "rail/shape.py": "class Shape:\n    wide = 3\n    def area(self):\n        return self.wide * 2\n",
    "rail/made.py": "from rail import fits as f\nfrom rail.shape import Shape as S\n"
    "def tables(x: int) -> int:\n    import math\n    from rail import fits, shape as s\n"
    "    return f.fit(x) + S().area()\n",
}  # fmt: skip
ENTRY = ["rail.made:tables"]
ENTRIES = [*recording.ENTRIES, "numerics/traces/rules/deepseek.yaml", "numerics/traces/rules/torch.yaml"]


@pytest.fixture
def tree(tmp_path):
    for name, text in PROGRAM.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def changed(tree, name, old, new):
    """Files whose digest differs after an edit."""
    before = program(ENTRY, tree)
    text = (tree / name).read_text()
    assert old in text
    provenance._parsed.cache_clear()
    (tree / name).write_text(text.replace(old, new))
    after = program(ENTRY, tree)
    return sorted(f for f in before.keys() | after.keys() if before.get(f) != after.get(f))


def test_a_digest_is_blake2b():
    """RFC 7693's function at 16 bytes; the value is coreutils' `printf abc | b2sum -l 128`."""
    assert digest(b"abc") == "cf4ab791c62b8d2b2109c90275287816"
    assert content({"b": 1, "a": [2]}) == content({"a": [2], "b": 1}) != content({"a": [2], "b": 2})


def test_only_files_that_are_reached_count(tree):
    assert list(program(ENTRY, tree)) == ["rail/fits.py", "rail/made.py", "rail/shape.py"]
    assert list(program(["rail.fits:unused"], tree)) == ["rail/fits.py"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("rail/fits.py", "x + SLACK", "x - SLACK"),
        ("rail/fits.py", "SLACK = 2", "SLACK = 3"),  # a constant behind a function
        ("rail/shape.py", "self.wide * 2", "self.wide * 4"),  # a method of a class reached under another name
        ("rail/made.py", "f.fit(x) +", "f.fit(x) -"),
        ("rail/made.py", "    import math", "    import cmath"),  # what an import inside a function brings
        ("rail/made.py", "import fits, shape as s", "import fits, made as s"),
        ("rail/made.py", "import fits, shape as s", "import fits, shape as t"),
    ],
)
def test_what_the_program_does_counts(tree, name, old, new):
    assert changed(tree, name, old, new) == [name]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("rail/fits.py", "def unused(x):\n    return -x", "def unused(x):\n    return x"),
        ("rail/fits.py", "SLACK = 2", "SLACK = 2  # why"),
        ("rail/fits.py", "def fit(x):\n", 'def fit(x):\n    """A fit."""\n'),
        ("rail/fits.py", "def fit(x)", "def fit(x: float) -> float"),
        ("rail/fits.py", "x + SLACK", "(\n        x\n        + SLACK\n    )"),
        ("rail/fits.py", "import math", "import cmath"),
        ("rail/made.py", "x: int", "x: 'fits.Number'"),
        ("rail/made.py", "from rail import fits, shape as s", "from a import shape as s\n    from b import fits"),
    ],
)
def test_what_it_says_does_not(tree, name, old, new):
    assert changed(tree, name, old, new) == []


def test_order_does_not_count(tree):
    parts = "SLACK = 2\n", "def fit(x):\n    return x + SLACK\n"
    assert changed(tree, "rail/fits.py", parts[0] + parts[1], parts[1] + parts[0]) == []


def test_an_entry_that_is_gone(tree):
    with pytest.raises(ValueError, match=r"rail\.made:nothing is not defined"):
        program(["rail.made:nothing"], tree)


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("x is None", "x"), ("f'{a}'", "f'{a!r}'"), ("'1'", "1")])
def test_canonical_tells_values_apart(one, other):
    assert canonical(ast.parse(one)) != canonical(ast.parse(other))


def test_canonical_leaves_out_empty_fields():
    """Versions of Python differ in empty fields (3.12 has type_params): none may show."""
    expected = "Module(body=[FunctionDef(name='f', args=arguments(), body=[Return()])])"
    assert canonical(ast.parse("def f(): return")) == expected


def test_a_document_counts_by_what_it_says(tree):
    """Rules in YAML: a comment changes nothing, a pattern does; one that is gone is told."""
    path = tree / "rail" / "rules.yaml"
    path.write_text("kernels: [{class: gemm, match: a}]\n")
    before = program([*ENTRY, "rail/rules.yaml"], tree)
    assert list(before)[-1] == "rail/rules.yaml" and len(before) == 4
    path.write_text("# why\nkernels:\n  - {match: a, class: gemm}\n")
    assert program([*ENTRY, "rail/rules.yaml"], tree) == before
    path.write_text("kernels: [{class: gemm, match: b}]\n")
    assert program([*ENTRY, "rail/rules.yaml"], tree) != before
    path.unlink()
    with pytest.raises(ValueError, match=r"rules\.yaml is not there"):
        program([*ENTRY, "rail/rules.yaml"], tree)


def test_a_file_is_digested_in_pieces(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(b"abc" * 1_000_000)
    assert provenance.digest_of(path) == digest(path.read_bytes())


def test_tables_of_a_card_count_their_kernels():
    """The sources of the kernels that are timed, and what they call, are behind the tables of a card."""
    files = set(program([*campaign.ENTRIES, "sim.models.deepseek:parts"]))
    assert {f"numerics/kernels/{name}.py" for name in ("gemm", "wgrad", "grouped", "attention", "casts")} <= files
    assert {f"numerics/card/{name}.py" for name in ("rig", "needs", "measure")} <= files
    assert "sim/models/stacks/deepseek/experts.py" in files


# --- the tables -------------------------------------------------------------------------------------------------------


def test_the_committed_tables_are_fresh():
    """Fails when the program behind them changes: run the command the tables name, and look at the difference."""
    assert stale("h800") == []


def test_the_program_behind_them():
    """The files whose definitions decide what the H800 tables say; the kernel models of the ladder do not."""
    files = program(ENTRIES)
    assert {
        "numerics/tables/calibrate.py", "numerics/fits.py", "hwmodels/op.py", "sim/models/deepseek/attention.py",
        "sim/models/stacks/deepseek/experts.py", "sim/models/stacks/deepseek/exchange.py",
        "sim/models/stacks/deepseek/linear.py",
    } <= set(files)  # fmt: skip
    assert {f"numerics/traces/{name}" for name in ("importer.py", "joins.py", "rules/deepseek.yaml")} <= set(files)
    assert not {f"numerics/tables/{name}.py" for name in ("recording", "provenance")} & set(files)
    assert not {"sim/engine/events.py", "hwmodels/tables.py"} & set(files)


@pytest.mark.parametrize("path", sorted((FOLDER / "h800").glob("*.json")), ids=lambda p: p.stem)
def test_every_table_says_where_it_comes_from(path):
    said = json.loads(path.read_text())["provenance"]
    for key in ("device", "version", "command", "repetitions", "quantiles"):
        assert isinstance(said[key], str) and said[key], key
    for key in ("driver", "clocks", "versions"):
        assert said[key]["value"] is None and said[key]["reason"], key
    assert said["measured"] == "2025-02-25"
    for found in (said["inputs"], said["program"]["files"]):
        assert found and all(len(d) == 2 * provenance.DIGEST_BYTES for d in found.values())


def doctored(tmp_path, change):
    """A copy of the tables with the provenance of one of them changed."""
    shutil.copytree(FOLDER / "h800", tmp_path / "h800")
    path = tmp_path / "h800" / "gemm.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    return tmp_path


def test_a_doctored_digest_is_stale(tmp_path):
    def change(table):
        table["provenance"]["program"]["files"]["numerics/fits.py"] = "0" * 32

    (line,) = stale("h800", doctored(tmp_path, change))
    assert line.startswith("h800/gemm.json: stale, numerics/fits.py changed since it was written; write it again: ")


def test_a_table_without_provenance_is_reported(tmp_path):
    (line,) = stale("h800", doctored(tmp_path, lambda table: table.pop("provenance")))
    assert line == "h800/gemm.json: no provenance; nothing says which program wrote it"


def test_a_program_that_is_gone_is_reported(tmp_path):
    def change(table):
        table["provenance"]["program"]["entries"] = ["numerics.tables.calibrate:long_gone"]

    (line,) = stale("h800", doctored(tmp_path, change))
    assert "stale, its program is gone (numerics.tables.calibrate:long_gone is not defined)" in line


def test_an_edited_program_makes_every_table_stale(tmp_path):
    """The program itself changed, one figure of the K block in a fit: all five tables say so."""
    for name in program(ENTRIES):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    for package in ("sim", "sim/models", "hwmodels", "numerics", "numerics/traces", "numerics/tables"):
        (tmp_path / package / "__init__.py").touch()
    assert stale("h800", root=tmp_path) == []
    path = tmp_path / "numerics" / "tables" / "calibrate.py"
    path.write_text(path.read_text().replace("w * -(-k // 128)", "w * -(-k // 64)"))
    lines = stale("h800", root=tmp_path)
    assert len(lines) == len(list((FOLDER / "h800").glob("*.json")))
    assert all("numerics/tables/calibrate.py changed" in line for line in lines)


# --- files that moved -------------------------------------------------------------------------------------------------


@pytest.fixture
def told(tree):
    """One table of the program in `tree`, a document among its entries."""
    (tree / "rail" / "rules.yaml").write_text("kernels: []\n")
    entries = [*ENTRY, "rail.fits:fit", "rail/rules.yaml"]
    said = {"entries": entries, "files": program(entries, tree)}
    (tree / "tables" / "abacus").mkdir(parents=True)
    (tree / "tables" / "abacus" / "gemm.json").write_text(json.dumps({"provenance": {"program": said}, "rows": [1]}))
    return tree


def shelved(tree):
    """Moves two files of the program, and its document, into a room of their own."""
    (tree / "rail" / "shelf").mkdir()
    for name in ("fits.py", "made.py", "rules.yaml"):
        (tree / "rail" / name).rename(tree / "rail" / "shelf" / name)
    made = tree / "rail" / "shelf" / "made.py"
    made.write_text(made.read_text().replace("from rail import fits", "from rail.shelf import fits"))


def test_files_that_moved_get_new_places(told):
    tables = told / "tables"
    assert provenance.moved("abacus", tables, told) == {}
    before = json.loads((tables / "abacus" / "gemm.json").read_text())["provenance"]["program"]["files"]
    shelved(told)
    (line,) = stale("abacus", tables, told)
    assert "its program is gone" in line
    table = provenance.moved("abacus", tables, told)["gemm"]
    now = table["provenance"]["program"]
    assert now["entries"] == ["rail.shelf.made:tables", "rail.shelf.fits:fit", "rail/shelf/rules.yaml"]
    assert list(now["files"]) == ["rail/shape.py", "rail/shelf/fits.py", "rail/shelf/made.py", "rail/shelf/rules.yaml"]
    assert sorted(now["files"].values()) == sorted(before.values()) and table["rows"] == [1]
    (tables / "abacus" / "gemm.json").write_text(json.dumps(table))
    assert stale("abacus", tables, told) == [] and provenance.moved("abacus", tables, told) == {}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("rail/shelf/fits.py", "SLACK = 2", "SLACK = 3"),  # moved and changed
        ("rail/shape.py", "wide = 3", "wide = 4"),  # stayed and changed
        ("rail/shelf/rules.yaml", "[]", "[1]"),
        ("rail/shelf/made.py", "def tables", "def tablets"),  # gone
        ("rail/shelf/made.py", "def tables", "def tables(:"),  # no Python
    ],
)
def test_a_program_that_changed_stays_stale(told, name, old, new):
    shelved(told)
    text = (told / name).read_text()
    assert old in text
    (told / name).write_text(text.replace(old, new))
    assert provenance.moved("abacus", told / "tables", told) == {}
    assert len(stale("abacus", told / "tables", told)) == 1


def test_a_file_with_a_double_is_not_guessed(told):
    shelved(told)
    (told / "rail" / "attic").mkdir()
    shutil.copy(told / "rail" / "shelf" / "made.py", told / "rail" / "attic" / "made.py")
    assert provenance.moved("abacus", told / "tables", told) == {}


def test_a_device_without_tables():
    with pytest.raises(FileNotFoundError, match="abacus"):
        stale("abacus", Path("tables"))
