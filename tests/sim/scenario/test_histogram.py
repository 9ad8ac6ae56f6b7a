"""Recorded histograms: three kinds of files, the scenario itself, and each mistake with its line."""

import json
from pathlib import Path

import numpy as np
import pytest

from hwmodels.document import DocumentError
from sim.scenario import Routing, from_mapping, load
from sim.scenario.histogram import histogram
from sim.scenario.values import PROFILE_SPREAD

ROWS = [[5, 0, 3], [1, 2, 9]]
LITE = {
    "cluster": {"node": "h800x8", "nodes": 16}, "model": "deepseek_v2_lite", "precision": "bf16",
    "parallel": {"pipeline": 2, "expert": 8}, "schedule": "zb1p", "batch": {"sequences": 1024},
}  # fmt: skip


def document(content):
    from hwmodels.document import Document, Place

    return Document(content, {(): Place("scenario.yaml", 8, 27)})


def write(folder: Path, name: str) -> str:
    if name.endswith("csv"):
        (folder / name).write_text("# tokens of a day\n5, 0, 3\n\n1,2,9 # the last\n")
    elif name.endswith("npz"):
        np.savez(folder / name, tokens=np.array(ROWS, dtype=np.float32))
    else:
        (folder / name).write_text("- [5, 0, 3]\n- [1, 2, 9]\n")
    return name


@pytest.mark.parametrize("name", ["counts.csv", "counts.npz", "counts.yaml", "COUNTS.YML"])
def test_files(name, tmp_path):
    found = histogram(document(write(tmp_path, name)), ("routing", "histogram"), tmp_path)
    assert found == ((5, 0, 3), (1, 2, 9))
    assert all(type(value) is int for row in found for value in row)


def test_a_spreadsheets_mark_of_the_encoding_is_no_token(tmp_path):
    (tmp_path / "marked.csv").write_text("5,0,3\n1,2,9\n", encoding="utf-8-sig")
    assert histogram(document("marked.csv"), ("routing", "histogram"), tmp_path) == ((5, 0, 3), (1, 2, 9))


def message(content, folder):
    with pytest.raises(DocumentError) as caught:
        histogram(document(content), ("routing", "histogram"), folder)
    return str(caught.value).replace(f"{folder}/", "")


def test_lines_of_a_csv_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n# note\n1,x\n3\n0,0\n1,2.5\n1,nan\n")
    assert message("a.csv", tmp_path).splitlines() == [
        "a.csv:3:1: routing.histogram[1]: expected whole numbers of tokens, 0 or more; found 'x'",
        "a.csv:4:1: routing.histogram[2]: length 1; the first layer has 2",
        "a.csv:5:1: routing.histogram[3]: all tokens are 0; leave the layer out or give one line for all layers",
        "a.csv:6:1: routing.histogram[4]: expected whole numbers of tokens, 0 or more; found 2.5",
        "a.csv:7:1: routing.histogram[5]: expected whole numbers of tokens, 0 or more; found nan",
    ]


def test_other_mistakes(tmp_path):
    lists = "expected a list of lists: for each layer the tokens of each expert"
    (tmp_path / "flat.yaml").write_text("[1, 2, 3]\n")
    assert message("flat.yaml", tmp_path) == f"flat.yaml:1:1: routing.histogram: {lists}"
    assert message([], tmp_path) == f"scenario.yaml:8:27: routing.histogram: {lists}"
    (tmp_path / "empty.csv").write_text("# nothing\n")
    assert message("empty.csv", tmp_path) == f"empty.csv: routing.histogram: {lists}"
    assert message("no.npz", tmp_path).endswith("no.npz cannot be read: No such file or directory")
    (tmp_path / "bad.npz").write_text("not a zip")
    assert message("bad.npz", tmp_path).endswith("routing.histogram: bad.npz cannot be read: not what its name says")
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe")
    assert message("bad.csv", tmp_path).endswith("bad.csv cannot be read: not what its name says")
    np.savez(tmp_path / "other.npz", load=np.ones((2, 3)))
    assert message("other.npz", tmp_path).endswith("other.npz has no array named tokens; found load")
    np.savez(tmp_path / "line.npz", tokens=np.ones(3))
    assert message("line.npz", tmp_path) == f"line.npz: routing.histogram: {lists}"
    gone = "gone.yaml cannot be read: No such file or directory"
    assert message("gone.yaml", tmp_path) == f"scenario.yaml:8:27: routing.histogram: {gone}"
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    assert message("bad.yaml", tmp_path).endswith("routing.histogram: bad.yaml cannot be read: not what its name says")
    assert "cannot be read" in message("nul\0.csv", tmp_path) and "cannot be read" in message("nul\0.npz", tmp_path)
    for row in ("[1.5e+308, 1.5e+308]", f"[1.0, {10**400}]", f"[{2**53}, 1]"):
        (tmp_path / "many.yaml").write_text(f"- {row}\n")
        assert message("many.yaml", tmp_path).endswith(f"routing.histogram[0]: more than {2**53} tokens in all")
    (tmp_path / "open.yaml").write_text("- [1, 2\n")
    assert message("open.yaml", tmp_path).startswith("open.yaml:2:1: not YAML: ")


@pytest.mark.parametrize(
    ("routing", "found"),
    [
        ("sampled", Routing("sampled", spread=PROFILE_SPREAD)),
        ({"kind": "sampled", "spread": "12 %"}, Routing("sampled", spread=0.12)),
        ({"kind": "sampled", "spread": 0}, Routing("sampled", spread=0.0)),
        ({"kind": "skewed", "max_vio": 0.5}, Routing("skewed", max_vio=0.5)),
        ({"kind": "skewed", "max_vio": 0.5, "redundant_experts": 16}, Routing("skewed", None, 0.5, None, 16)),
        ({"kind": "recorded", "histogram": [list(range(64))]},
         Routing("recorded", histogram=(tuple(range(64)),))),
        ({"redundant_experts": 8}, Routing("balanced", redundant_experts=8)),
        ("balanced", Routing("balanced")),
    ],
)  # fmt: skip
def test_scenarios_say_it_and_reload(routing, found):
    scenario = from_mapping(LITE | {"routing": routing})
    assert scenario.routing == found
    again = from_mapping(json.loads(json.dumps(scenario.resolved)))
    assert again == scenario and again.scenario_hash == scenario.scenario_hash
    assert hash(again) == hash(scenario)


def test_a_balanced_scenario_resolves_as_it_did():
    assert from_mapping(LITE).resolved["routing"] == {"kind": "balanced"}


def test_the_file_is_beside_the_scenario_and_is_written_out(tmp_path):
    import yaml

    counts = np.arange(26 * 64).reshape(26, 64)
    np.savez(tmp_path / "day.npz", tokens=counts)
    file = tmp_path / "scenario.yaml"
    file.write_text(yaml.safe_dump(LITE | {"routing": {"kind": "recorded", "histogram": "day.npz"}}))
    scenario = load(str(file))
    assert scenario.routing.histogram == tuple(map(tuple, counts.tolist()))
    assert from_mapping(scenario.resolved).routing == scenario.routing
    assert load(str(file), ["routing.histogram=day.npz"]) == scenario
    counts[0, 0] = 7
    np.savez(tmp_path / "day.npz", tokens=counts)
    assert load(str(file)).scenario_hash != scenario.scenario_hash


def test_chunk_times_have_no_experts():
    times = {"forward": "1 ms", "backward_input": "1 ms", "weight": "1 ms"}
    with pytest.raises(DocumentError, match="sampled routing needs a model; chunk_times have no experts"):
        from_mapping({"schedule": "zb1p", "batch": {"micro_batches": 4}, "chunk_times": times, "routing": "sampled"})


@pytest.mark.parametrize("routing", ["sampled", {"kind": "skewed", "max_vio": 0.0}])
def test_dense_models_have_no_experts_to_route_to(routing):
    with pytest.raises(
        DocumentError, match=r"routing needs experts; legal: balanced \(DeepSeek-V2-Lite has no experts\)$"
    ):
        from_mapping(LITE | {"model": {"base": "deepseek_v2_lite", "dense_layers": 27}, "routing": routing})


V3 = {
    "cluster": {"node": "h800x8", "nodes": 16}, "model": "deepseek_v3", "parallel": {"pipeline": 2, "expert": 64},
    "schedule": "1f1b", "batch": {"micro_batches": 2},
}  # fmt: skip


def recorded(rows):
    return {"routing": {"kind": "recorded", "histogram": rows}}


def refused(mapping):
    with pytest.raises(DocumentError) as caught:
        from_mapping(mapping)
    return str(caught.value).replace("<mapping>: ", "")


def test_rows_that_no_gate_gives_are_refused():
    """Top 8 of 256 in 8 groups, of which a token reaches 4."""
    once = "a token chooses an expert once, 8 of 256"
    even = [10] * 256
    assert refused(V3 | recorded([[1] + [0] * 255])) == (
        "routing.histogram[0]: only 1 of 256 experts have tokens; legal: 8 or more (a token chooses 8)"
    )
    assert refused(V3 | recorded([[100] + [0] * 3 + [100_000] + [100] * 251])) == (
        f"routing.histogram[0]: expert 4 has 79.87 % of all choices; legal: at most 12.5 % ({once})"
    )
    assert refused(V3 | recorded([[10 if i % 32 == 0 else 0 for i in range(256)]])) == (
        "routing.histogram[0]: a token chooses from 8 of 8 groups on average, the busiest expert of each group alone"
        " asks for so many; legal: at most 4 (model.groups_per_token)"
    )
    lines = refused(V3 | recorded([even, [0] * 255 + [1], *[even] * 55, [9] * 7 + [0] * 249])).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["routing.histogram[1]", "routing.histogram[57]"]


@pytest.mark.parametrize("row", [
    [10] * 8 + [0] * 248, [100] + [4] * 175 + [0] * 80, [10 if i % 16 == 0 else 0 for i in range(256)], [1] * 256,
])  # fmt: skip
def test_rows_at_the_limit_are_not(row):
    """Eight experts that every token chooses; one that every token chooses; 16, two in each group, half of them."""
    assert from_mapping(V3 | recorded([row])).routing.histogram == (tuple(row),)


@pytest.mark.parametrize("model", ["deepseek_v3", "deepseek_v2", "deepseek_v2_lite"])
@pytest.mark.parametrize("max_vio", [0.1, 3.0, 9.0])
def test_what_a_gate_gives_is_never_refused(model, max_vio):
    """Also when few tokens have been counted: limits hold for every token, so for any number of them."""
    from sim.models import deepseek
    from sim.routing.gate import choose, draw, gate_of
    from sim.routing.keyed import generator
    from sim.routing.popularity import skewed
    from sim.scenario.histogram import _impossible

    shape = from_mapping(V3 | {"model": model, "parallel": {"expert": 1}, "precision": "bf16"}).model
    mixture = deepseek.mixture(shape)
    gate = gate_of(mixture)
    for layer, tokens in enumerate([1, 2, 5, 40, 1000]):
        random, liked = generator(3, "tokens", layer), skewed(layer, 1, gate.experts, max_vio)[0]
        row = np.bincount(choose(gate, draw(random, gate, tokens, liked)).ravel(), minlength=gate.experts).tolist()
        assert _impossible(row, mixture) == ""


def test_a_line_of_a_file_is_named(tmp_path):
    import yaml

    (tmp_path / "day.csv").write_text(f"# layer 0\n{','.join(['0'] * 63 + ['5'])}\n")
    file = tmp_path / "scenario.yaml"
    file.write_text(yaml.safe_dump(LITE | recorded("day.csv")))
    with pytest.raises(DocumentError) as caught:
        load(str(file))
    assert str(caught.value) == (
        f"{tmp_path}/day.csv:2:1: routing.histogram[0]: only 1 of 64 experts have tokens; legal: 6 or more"
        " (a token chooses 6)"
    )
