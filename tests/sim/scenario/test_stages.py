"""Layouts as Megatron Core reads them, and layers spread evenly but for the ends; what is wrong is said in one line."""

import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from hwmodels.document import DocumentError
from hwmodels.refused import Refused
from sim.layout.plan import lay_out
from sim.scenario import SCENARIOS, from_mapping, load
from sim.scenario.stages import Layout, Spread, layout, placement

V3, LITE = (str(SCENARIOS / f"{name}.yaml") for name in ("v3_2048gpu", "v2_lite"))
V3_LAYOUT = "Et*4|(t*4|)*14tmL"
UNROLLED = ["Etttt", *["tttt"] * 14, "tmL"]


def megatron(text):
    """Stages, as `parse_str_to_list` of Megatron Core (@d98e8a6) unrolls a string: brackets first, then letters."""
    text = text.replace(",", "")
    for pattern in (r"\(([^)]+)\)\*(\d+)", r"(.)\*(\d+)"):
        text = re.sub(pattern, lambda match: match[1] * int(match[2]), text)
    return tuple(text.split("|"))


PIECES = st.lists(
    st.one_of(
        st.sampled_from(["t", "t|", "|t", ",t", "t*3", "t*12|t"]),
        st.builds("({})*{}".format, st.sampled_from(["t|", "tt|t*2", "t*2|", "t,t|t"]), st.integers(1, 11)),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@given(pieces=PIECES, modules=st.sampled_from(["", "m", "|m|", "m*2"]))
def test_strings_are_read_as_megatron_reads_them(pieces, modules):
    text = f"Et{''.join(pieces)}{modules}L"
    try:
        stages = layout(text).stages
    except Refused:
        assert "" in megatron(text)
        return
    assert stages == megatron(text)


@pytest.mark.parametrize(("text", "stages"), [
    (V3_LAYOUT, UNROLLED),
    ("Ettt|(tt|)*29,m|L", ["Ettt", *["tt"] * 29, "m", "L"]),  # the examples of its docstring
    ("E|(t|)*3 L", ["E", "t", "t", "t", "L"]),
    ("E((t|)*2tt|)*2L", ["Et", "t", "tt", "t", "t", "tt", "L"]),  # what it does not read: a group in a group
    ("Et*2|L", ["Ett", "L"]),
])  # fmt: skip
def test_strings_by_hand(text, stages):
    assert placement(text) == Layout(tuple(stages))
    words = {"E": "embedding", "t": "decoder", "m": "mtp", "L": "loss"}
    assert placement([[words[letter] for letter in stage] for stage in stages]) == Layout(tuple(stages))
    assert placement([list(stage) for stage in stages]) == Layout(tuple(stages))


LEGAL = "legal: E (embedding), t (layer), m (MTP layer), L (head and loss), | (a stage ends), (...)*n and t*n"


@pytest.mark.parametrize(("text", "line"), [
    ("Ex|tL", f"character 2 of 'Ex|tL': 'x'; {LEGAL}"),
    ("Et|(t|*3L", "character 4 of 'Et|(t|*3L': '(' is not closed; legal: (...)*n"),
    ("Et|(t|)L", "character 7 of 'Et|(t|)L': ')' without *n; legal: (...)*n, e.g. (t*4|)*14"),
    ("Et*|L", "character 3 of 'Et*|L': '*' without a number; legal: t*n or (...)*n"),
    ("Et)L", f"character 3 of 'Et)L': ')' closes nothing; {LEGAL}"),
    ("*3EtL", f"character 1 of '*3EtL': '*'; {LEGAL}"),
    ("Et*99999|L", "character 2 of 'Et*99999|L': more than 8192 layers and stages"),
    ("E(((t*99)*99)*99)*99L", "character 4 of 'E(((t*99)*99)*99)*99L': more than 8192 layers and stages"),
    ("Et||L", "stage 1 of 'Et||L' holds nothing; legal: something on each stage"),
    ("t|L", "'t|L' begins with t, ends with L, has E 0 and L 1 times; legal: E ... L, each once"),
    ("EtL|tL", "'EtL|tL' begins with E, ends with L, has E 1 and L 2 times; legal: E ... L, each once"),
    ("Emt|L", "'Emt|L' has t behind m; legal: MTP layers behind all others"),
    ([["embedding", "t"], ["los"]],
     "stage 1: unknown word 'los', did you mean 'loss'? legal: decoder, embedding, loss, mtp"),
    ([["E", "t"], []], "stage 1 of the list holds nothing; legal: something on each stage"),
    ({"frist": 3}, "unknown key 'frist', did you mean 'first'? legal: embedding, first, head, last"),
    ({"first": 0}, "first: expected a whole number, 1 or more; found 0"),
    ({"head": 1}, "head: expected true or false; found 1"),
    ({"first": 2, "head": True}, "found first and head; legal: first and last, or embedding and head"),
])  # fmt: skip
def test_a_wrong_one_is_a_line(text, line):
    with pytest.raises(ValueError) as caught:
        placement(text)
    assert str(caught.value) == line


@given(
    layers=st.integers(1, 60), pipeline=st.integers(1, 6), chunks=st.integers(1, 3),
    first=st.none() | st.integers(1, 20), last=st.none() | st.integers(1, 20),
    embedding=st.booleans(), head=st.booleans(),
)  # fmt: skip
@example(layers=1, pipeline=1, chunks=1, first=1, last=None, embedding=False, head=False)
@example(layers=3, pipeline=1, chunks=2, first=3, last=None, embedding=False, head=False)
@example(layers=4, pipeline=1, chunks=2, first=None, last=4, embedding=False, head=False)
@example(layers=2, pipeline=1, chunks=1, first=1, last=1, embedding=False, head=False)
def test_spreads_are_as_megatron_divides(layers, pipeline, chunks, first, last, embedding, head):
    """`get_num_layers_to_build` of each position, where its assertions hold (@d98e8a6)."""
    if first is None and last is None:
        spread, whole = Spread(embedding=embedding, head=head), layers + embedding + head
        legal, each = whole % (pipeline * chunks) == 0, [whole // pipeline] * pipeline
    else:
        spread, ends = Spread(first, last), [n for n in (first, last) if n is not None]
        middle, rest = pipeline - len(ends), layers - sum(ends)
        legal = middle >= 0 and bool(rest) == bool(middle) and rest >= 0
        legal = legal and (not middle or rest % middle == 0)
        each = [rest // middle] * pipeline if middle > 0 else [0] * pipeline
        each[0] = first or each[0]
        each[-1] = last or each[-1]  # with one position, the one that was just said
        legal = legal and all(n % chunks == 0 for n in each)
    assert (spread.misfit(layers, pipeline, chunks) == "") == legal
    if not legal:
        return
    counts = spread.counts(layers, pipeline, chunks)
    assert sum(counts) == layers and len(counts) == pipeline * chunks
    built = [each[stage % pipeline] // chunks for stage in range(pipeline * chunks)]
    built[0] -= spread.embedding
    built[-1] -= spread.head
    assert list(counts) == built


def refusal(path, *words):
    with pytest.raises(DocumentError) as caught:
        load(path, words)
    (problem,) = caught.value.problems
    return f"{problem.key}: {problem.message}"


INTERLEAVED = ("schedule={name: interleaved, chunks: 2}", "batch.sequences=16384")


@pytest.mark.parametrize(("path", "words", "line"), [
    (V3, ["placement=Et*4|(t*4|)*14tL"], "placement: the layout has 0 m; the model has 1 MTP layers"),
    (V3, ["placement=Et*3|(t*4|)*14tmL"], "placement: the layout has 60 t; the model has 61 layers"),
    (V3, ["placement=Et*3|(t*2|)*29mL", "schedule=1f1b"],
     "placement: 1f1b with parallel.pipeline 16 has 16 stages; the layout has 31"),
    (V3, ["placement=Et|(t*2|)*30mL", "schedule=1f1b"],
     "placement: 1f1b with parallel.pipeline 16 has 16 stages; the layout has 32; schedule={name: interleaved, chunks: "
     "2} has as many"),
    (V3, ["placement={first: 3}", "schedule=1f1b"],
     "placement: first 3 leaves 61 layers over 16 positions uneven where they should be alike; nearest legal: 1"),
    (V3, ["placement={first: 4, last: 2}", "schedule=1f1b"],
     "placement: last 2 leaves 61 layers over 16 positions uneven where they should be alike; nearest legal: 1"),
    (V3, ["placement={first: 4}", *INTERLEAVED],
     "placement: first 4 leaves 61 layers over 16 positions of 2 stages uneven where they should be alike; no other "
     "fits either"),
    (V3, ["placement={embedding: true, head: true}", "schedule=1f1b"],
     "placement: model.layers 61 + embedding + head = 63 cannot be divided by parallel.pipeline 16; legal: 1, 3, 7, 9, "
     "21, 63"),
    (V3, ["placement={first: 4, last: 1}", "schedule=dualpipev"],
     "placement: stages of dualpipev do not go round the positions; legal: balanced, even, a list of layers for each "
     "stage, or a layout"),
])  # fmt: skip
def test_what_does_not_fit_the_pipeline_is_a_line(path, words, line):
    assert refusal(path, *words) == line


@pytest.mark.parametrize("words", [
    [f"placement={V3_LAYOUT}"], ["schedule=1f1b", "placement={first: 4, last: 1}"],
    ["schedule=1f1b", "model.layers=62", "placement={embedding: true, head: true}"], INTERLEAVED,
    [*INTERLEAVED, "schedule.group=32"], ["overlap.pipeline=false"],
])  # fmt: skip
def test_what_is_resolved_reloads(words):
    scenario = load(V3, words)
    again = from_mapping(yaml.safe_load(yaml.safe_dump(scenario.resolved)))
    assert again == scenario and again.scenario_hash == scenario.scenario_hash


def test_ways_to_write_a_layout_are_one_scenario():
    listed = [list(stage) for stage in UNROLLED]
    hashes = {load(V3, [f"placement={text}"]).scenario_hash for text in (V3_LAYOUT, "|".join(UNROLLED), listed)}
    assert len(hashes) == 1


@pytest.mark.parametrize("words", [["schedule.group=4"], ["schedule=1f1b", "schedule.group=4"]])
def test_a_schedule_without_groups_says_so(words):
    line = refusal(V3, *words)
    assert line.endswith("has no groups of micro-batches; they go with: interleaved")


def test_groups_that_do_not_fit_name_the_key_and_the_nearest():
    words = ["parallel.pipeline=2", "parallel.expert=8", "batch={micro_batches: 17, sequences: null}"]
    said = refusal(LITE, *words, "schedule={name: interleaved, chunks: 2, group: 16}")
    assert said == ("batch.micro_batches: interleaved with parallel.pipeline 2 and groups of 16 cannot run 17; legal: "
                    "16 or more, with 0 or 2 or more beyond multiples of 16, nearest 18")  # fmt: skip
    said = refusal(LITE, *words, "schedule={name: interleaved, chunks: 2, group: 1}")
    assert said == "schedule.group: interleaved cannot run 1; legal: 2 (the pipeline) or more, nearest 2"
    assert lay_out(load(LITE, [*words, "schedule={name: interleaved, chunks: 2, group: 15}"])).micro_batches == 17
