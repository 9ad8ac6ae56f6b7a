"""YAML by the 1.2 core schema, with places; documents that merge."""

import pickle
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.document import Document, DocumentError, Place, Problem, dotted, merge, parse, read

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abcdef 0123456789.:-", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"\A[a-z]{1,5}\Z"), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def problems(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse(text, "f.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("text", "value"), [
    ("1e9", 1e9), ("1.5E-3", 1.5e-3), ("no", "no"), ("on", "on"), ("yes", "yes"), ("true", True), ("False", False),
    ("null", None), ("~", None), ("''", ""), ("'5'", "5"), ("0x1F", 31), ("0o17", 15), ("017", 17), ("1_000", "1_000"),
    ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), (".inf", float("inf")), ("-.inf", float("-inf")), ("+3", 3),
    ("5 GB/s", "5 GB/s"), ("[1, no]", [1, "no"]), ("{a: 1e3}", {"a": 1000.0}), (".5", 0.5), ("5.", 5.0),
])  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = parse(text, "f.yaml").content
    assert found == value and type(found) is type(value)


@given(PLAIN)
def test_what_pyyaml_writes_reads_back(value: object) -> None:
    quoted = yaml.dump(value, default_style='"') if isinstance(value, str) else None
    text = quoted or yaml.safe_dump(_without_text_numbers(value))
    assert parse(text, "f.yaml").content == (value if quoted else _without_text_numbers(value))


def _without_text_numbers(value: object) -> object:
    """Text that is a number only in YAML 1.2 ("1e9") is written bare by PyYAML: make it text for both."""
    if isinstance(value, dict):
        return {key: _without_text_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_text_numbers(item) for item in value]
    return f"t {value}".strip() if isinstance(value, str) else value


def test_every_key_knows_its_place() -> None:
    document = parse("a:\n  b: {c: 1, d: [5, 6]}\n", "f.yaml")
    assert str(document.place(("a",))) == "f.yaml:1:1"
    assert str(document.place(("a", "b", "d"))) == "f.yaml:2:13"
    assert str(document.place(("a", "b", "d", 1))) == "f.yaml:2:20"
    assert str(document.place(("a", "b", "x", "y"))) == "f.yaml:2:3"
    assert document.at("a", "b").place(("c",)) == document.place(("a", "b", "c"))
    assert document.at("a", "z").content is None


def test_under_and_at_undo_each_other() -> None:
    document = parse("x: 1\ny: {z: 2}\n", "f.yaml")
    assert document.under("p", "q").content == {"p": {"q": {"x": 1, "y": {"z": 2}}}}
    assert document.under("p", "q").at("p", "q") == document


def test_mistakes_of_form() -> None:
    assert problems("a: 1\na: 2\nb: {c: 1, c: 2}\n") == [
        "f.yaml:2:1: a: written twice, first at line 1", "f.yaml:3:11: b.c: written twice, first at line 3",
    ]  # fmt: skip
    assert problems("? [1]\n: 2\n") == ["f.yaml:1:3: a key is a word"]
    assert problems("a: !x 1\n") == ["f.yaml:1:4: a: tags such as !x mean nothing here; write a plain value"]
    assert problems("a: &a [*a]\n") == ["f.yaml:1:4: a[0]: an alias contains itself"]
    assert problems("a: 1\n---\nb: 2\n") == ["f.yaml:2:1: not YAML: but found another document"]
    assert problems("a: 'x\n") == ["f.yaml:2:1: not YAML: found unexpected end of stream"]
    assert problems("a: \x00\n")[0].startswith("f.yaml: not YAML: ")


def test_aliases_of_aliases_are_counted_before_they_are_made() -> None:
    """9^7 values in seven lines: one short line, at once. What aliases are for stays legal."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 7)]
    begin = time.process_time()
    assert problems("\n".join(lines)) == [f"f.yaml: aliases (*name) add {6_053_427} values; legal: up to 65536"]
    assert time.process_time() - begin < 0.5
    assert parse("\n".join(lines[:4]), "f.yaml").content["a3"][8][8][8] == ["x"] * 9
    assert problems("a: &a [*a, *a]")[0] == "f.yaml:1:4: a[0]: an alias contains itself"


CHAIN = "x-a0: &a0 [1]\n" + "".join(f"x-a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 400))


@pytest.mark.parametrize("text", ["{a: " * 70 + "}" * 70, "[" * 70 + "]" * 70, CHAIN])
def test_what_lies_too_deep_is_one_line(text: str) -> None:
    assert problems(text) == ["f.yaml: lists and keys lie deeper than 64 in each other"]


def test_scratch_keys_hold_anchors_and_merge_keys_take_over() -> None:
    """Explicit keys win wherever they stand, the first of several mappings wins over the next; places follow."""
    text = """
x-slow: &slow {kind: gpu, slower: 2}
.late: &late {start: 1 s, slower: 3}
faults:
- {<<: *slow, at: 3}
- slower: 4
  <<: [*slow, *late]
  at: {x-y: 1}
"""
    document = parse(text, "f.yaml")
    assert document.content == {"faults": [
        {"kind": "gpu", "slower": 2, "at": 3}, {"start": "1 s", "slower": 4, "kind": "gpu", "at": {"x-y": 1}},
    ]}  # fmt: skip
    places = {key: str(document.place(("faults", 1, key))) for key in ("kind", "slower", "start", "at")}
    assert places == {"kind": "f.yaml:2:16", "slower": "f.yaml:6:3", "start": "f.yaml:3:15", "at": "f.yaml:8:3"}
    assert parse("a: {b: {c: 1}}\n", "f").content == parse("x-a: &a {b: {d: 2}}\na: {<<: *a, b: {c: 1}}", "f").content
    assert parse("x-a: &a {b: {d: 2}}\na: {<<: *a, b: 1}", "f").places.keys() == {(), ("a",), ("a", "b")}
    assert problems("a: {<<: 3}") == ["f.yaml:1:9: a: << takes a mapping or a list of mappings"]
    assert problems("a: &a {<<: *a}") == ["f.yaml:1:4: a: an alias contains itself"]
    assert problems("a: {b: 1, <<: {b: 2}, b: 3}") == ["f.yaml:1:23: a.b: written twice, first at line 1"]
    assert parse("a: {'<<': 3}", "f").content == {"a": {"<<": 3}}


def test_a_message_is_one_line_whatever_it_speaks_of() -> None:
    line = str(Problem(Place("a\nb.yaml"), "key", "found 'x\x1b[2J\u2028y'" + "z" * 9999))
    assert line.startswith(r"a\x0ab.yaml: key: found 'x\x1b[2J\u2028y'zz") and len(line) < 1300
    assert len(line.splitlines()) == 1


def test_an_unreadable_file(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(DocumentError) as caught:
            read(path)
        assert str(caught.value) == f"{path}: cannot be read: {why}"
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(DocumentError, match=r"shown: not a text file \(UTF-8 expected\)"):
        read(tmp_path / "binary", "shown")


def test_a_problem_is_not_named_twice() -> None:
    assert str(Problem(Place("<command line> a.b=3"), "a.b", "no")) == "<command line> a.b=3: no"
    assert str(Problem(Place("<command line> a=3"), "a.b", "no")) == "<command line> a=3: a.b: no"
    assert dotted(("a", 3, "b")) == "a[3].b"


def test_merge_is_deep_and_replaces_figures_whole() -> None:
    base = parse("a: {b: 1, c: 2}\nf: {value: 1 s, kind: measured, source: paper}\nl: [1, 2]\n", "base")
    change = parse("a: {c: 3}\nf: {value: 2 s}\nl: [4]\nn: 5\n", "change")
    merged = merge(base, change)
    assert merged.content == {"a": {"b": 1, "c": 3}, "f": {"value": "2 s"}, "l": [4], "n": 5}
    assert str(merged.place(("a", "b"))) == "base:1:5"
    assert str(merged.place(("a", "c"))) == "change:1:5"
    assert base.content["a"] == {"b": 1, "c": 2}


@given(PLAIN, PLAIN)
def test_merging_nothing_or_the_same_again_changes_nothing(a: object, b: object) -> None:
    one, other = Document({"x": a}), Document({"x": b})
    assert merge(one, Document({})).content == one.content
    assert merge(merge(one, other), other).content == merge(one, other).content


def test_the_error_travels_between_processes() -> None:
    with pytest.raises(DocumentError) as caught:
        parse("a: 1\na: 2\n", "f.yaml")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)
