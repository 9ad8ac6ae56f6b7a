"""Recorded histograms: three kinds of files, the scenario itself, and each mistake with its line."""

import json
from pathlib import Path

import numpy as np
import pytest

from sim.scenario import Routing, ScenarioError, from_mapping, load
from sim.tokens.histogram import histogram
from sim.tokens.popularity import PROFILE_SPREAD

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


def message(content, folder):
    from hwmodels.document import DocumentError

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
    with pytest.raises(ScenarioError, match="sampled routing needs a model; chunk_times have no experts"):
        from_mapping({"schedule": "zb1p", "batch": {"micro_batches": 4}, "chunk_times": times, "routing": "sampled"})
