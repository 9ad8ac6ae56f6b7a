"""The data of a run as files: what is in them, byte for byte."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import yaml

from reports import folder
from sim.result import archive
from sim.result.trace import LANES, PHASES, Trace
from tests.reports import sample


def names(path: Path) -> set[str]:
    return {entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file()}


OUTPUTS = ("result", "report", "trace", "events", "links", "loads")


def write(result, path: Path, outputs: Sequence[str]) -> None:
    folder.write(result, path, outputs)
    archive.write(result, path, outputs, 1.5)


def test_all_outputs(tmp_path: Path) -> None:
    """And a folder of a run knows them all as ours."""
    write(sample.result(), tmp_path, OUTPUTS)
    traces = {f"trace/rank{rank:04d}.json.gz" for rank in range(sample.RANKS)}
    tables = {"links.csv", "loads.csv", "events.npz"}
    assert names(tmp_path) == {"result.json", "scenario.yaml", "report.html"} | tables | traces
    assert names(tmp_path) == {
        path.relative_to(tmp_path).as_posix() for each in archive.FILES for path in tmp_path.glob(each)
    }


def test_the_result_lists_what_is_beside_it_and_how_long_it_took(tmp_path: Path) -> None:
    write(sample.result(), tmp_path, OUTPUTS)
    found = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert set(found["files"]) == names(tmp_path) - {"result.json"} and found["wall_seconds"] == 1.5
    assert found["files"]["links.csv"] == blake2b((tmp_path / "links.csv").read_bytes(), digest_size=16).hexdigest()
    assert {key: found[key] for key in found if key not in ("files", "wall_seconds")} == json.loads(
        json.dumps(sample.result().summary)
    )


def test_a_run_without_a_fabric_has_no_links(tmp_path: Path) -> None:
    write(sample.chunk_times(), tmp_path, ("links",))
    assert names(tmp_path) == {"result.json", "scenario.yaml"}


@pytest.mark.parametrize("outputs", [(), ("result",)])
def test_figures_and_scenario_are_always_there(tmp_path: Path, outputs: tuple[str, ...]) -> None:
    write(sample.result(), tmp_path, outputs)
    assert names(tmp_path) == {"result.json", "scenario.yaml"}


def test_figures_are_stable_exact_and_sorted() -> None:
    result = sample.result()
    text = archive.figures(result.summary)
    assert text == archive.figures(sample.result().summary)
    found = json.loads(text)
    assert found == json.loads(json.dumps(result.summary))
    assert list(found) == sorted(found)
    assert found["step_time_s"].hex() == float(result.summary["step_time_s"]).hex()
    assert text.startswith('{\n "bubble_fraction"') and text.endswith("}\n")


def test_numpy_numbers_become_plain_ones_and_nan_is_a_bug() -> None:
    result = sample.chunk_times()
    result.summary["n"], result.summary["a"] = np.int64(3), np.array([0.5, 1.5])
    found = json.loads(archive.figures(result.summary))
    assert (found["n"], found["a"]) == (3, [0.5, 1.5])
    result.summary["n"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        archive.figures(result.summary)


def test_the_scenario_reads_back(tmp_path: Path) -> None:
    scenario = {"name": "µ: no", "on": "off", "rate": 1e9, "nested": {"list": [1, 2.5, None, True]}}
    assert yaml.safe_load(archive.scenario_text(scenario)) == scenario
    assert list(yaml.safe_load(archive.scenario_text(scenario))) == list(scenario)


def test_events_read_back_without_pickles(tmp_path: Path) -> None:
    spans = sample.traces()[1]
    archive.write_events(spans, tmp_path / "events.npz")
    with np.load(tmp_path / "events.npz", allow_pickle=False) as found:
        written = {name: "rank" if name == "position" else name for name in Trace.COLUMNS}
        assert set(found.files) == {*written.values(), "labels", "prices", "lanes", "phases"}
        for name in Trace.COLUMNS:
            assert (found[written[name]] == getattr(spans, name)).all()
        assert found["start"].dtype == found["end"].dtype == np.int64
        tables = [tuple(found[name]) for name in ("labels", "prices", "lanes", "phases")]
    assert tables == [spans.labels, spans.prices, LANES, PHASES]


def test_events_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    spans = sample.traces()[1].of_position(0)
    for name in ("a", "b"):
        archive.write_events(spans, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
