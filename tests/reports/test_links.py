"""Links of the fabric: the file reads back, the page says which choices it shows, all agree with result.json."""

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import links
from reports.section import Section
from sim import simulation
from sim.result import Result, archive
from sim.scenario import load
from tests.reports import sample
from tests.reports.sample import unpack


@cache
def v3() -> Result:
    return simulation.run(load("scenarios/v3_2048gpu.yaml", ["outputs=[result,links]"]), False)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def made(result: Result) -> Section:
    found = links.section(result)
    assert found is not None and found.data is not None
    return found


def with_counts(**more: Any) -> Result:
    result = sample.result()
    return replace(result, summary=result.summary | {"links": result.summary["links"] | more})


def test_the_file_has_every_link_in_use(tmp_path: Path) -> None:
    use = sample.links()[0]
    archive.write_links(use, tmp_path / "links.csv")
    rows = read(tmp_path / "links.csv")
    heads = ["class", "from", "to", "expert_bytes", "pipeline_bytes", "data_bytes"]
    assert list(rows[0]) == [*heads, "average_utilisation", "peak_utilisation"]
    assert sorted((row["from"], row["to"]) for row in rows) == sorted(use.ends)
    assert list(dict.fromkeys(row["class"] for row in rows)) == ["NIC out", "NIC in", "leaf up"]
    assert (rows[0]["from"], rows[0]["expert_bytes"], rows[0]["average_utilisation"]) == (
        "node3.nic0", "16000000000", "0.900000")  # the one with most bytes comes first  # fmt: skip


def test_the_file_and_result_json_agree(tmp_path: Path) -> None:
    result = v3()
    assert result.links is not None
    archive.write_links(result.links, tmp_path / "links.csv")
    rows = read(tmp_path / "links.csv")
    classes = result.summary["links"]["classes"]
    assert set(classes) == {row["class"] for row in rows}
    for name, said in classes.items():
        mine = [row for row in rows if row["class"] == name]
        average = np.array([float(row["average_utilisation"]) for row in mine])
        assert said["links"] == len(mine)
        assert said["mean"] == pytest.approx(average.mean(), abs=2e-6)
        assert said["busiest_average"] == pytest.approx(average.max(), abs=1e-9)
        assert said["busiest_peak"] == pytest.approx(max(float(row["peak_utilisation"]) for row in mine), abs=1e-9)
        for kind, size in said["bytes"].items():
            assert sum(int(row[f"{kind}_bytes"]) for row in mine) == pytest.approx(size, abs=len(mine))


def test_the_page_gets_the_curves_of_classes_in_use() -> None:
    result = sample.result()
    data = made(result).data
    assert data is not None and result.links is not None
    assert [each["name"] for each in data["classes"]] == ["NIC out", "NIC in", "leaf up"]
    for number, each in enumerate(data["classes"]):
        rows = unpack(each["table"])
        assert rows["busiest"] / data["steps"] == pytest.approx(result.links.busiest[number], abs=1 / data["steps"])
        for name, _, key in data["kinds"]:
            mean = result.links.mean[number, result.links.kinds.index(name)]
            assert rows[key] / data["steps"] == pytest.approx(mean, abs=1 / data["steps"])


def test_the_curves_of_v3_are_light() -> None:
    data = made(v3()).data
    assert data is not None
    assert sum(len(each["table"]["data"]) for each in data["classes"]) < 16_000  # letters


def test_the_caption_says_which_fabric_placement_and_routing() -> None:
    assert "a &lt;fabric&gt; &amp; more" in made(sample.result()).lead
    assert "Routing: adaptive (assumed: the scenario leaves it open" in made(sample.result()).lead
    chosen = made(with_counts(routing="ecmp", placement="scattered", blocking_priced=True)).lead
    assert "Placement of nodes: scattered. Routing: ecmp (whose crowding is in the prices)" in chosen
    assert "in slots as listed" in made(with_counts(placement="listed")).lead


def test_the_caption_says_what_the_curves_assume() -> None:
    plain = made(sample.result()).body
    assert "even rate" in plain and "means over 50.00 ms" in plain and "passes 100 %" in plain
    assert "Ranks differ" not in plain and "no span carries" not in plain
    assert "no span carries expert traffic" in made(with_counts(evenly_spread=["expert"])).body
    result = sample.result()
    uneven = replace(result, summary=result.summary | {"shown_replica": 7})
    assert "Ranks differ: times are those of replica 7" in made(uneven).body


def test_links_alike_share_a_row_and_the_highest_peak_is_there() -> None:
    use = sample.links()[0]
    assert links.top(use, 0) == [(3, 1), (0, 15)]
    assert links.top(use, 2) == [(33, 1), (32, 1)]
    body = made(sample.result()).body
    assert body.count("<tr>") == 1 + 2 + 1 + 2
    assert "plane0.spine&lt;1&gt;" in body and "150.0 %" in body


def test_a_link_with_the_highest_peak_joins_those_with_most_bytes() -> None:
    use = sample.links()[0]
    nics = use.of == 0
    average = np.where(nics, 0.5 - 0.01 * np.arange(len(use.of)), use.average)
    peak = np.where(np.arange(len(use.of)) == 9, 0.99, use.peak)
    assert [link for link, _ in links.top(replace(use, average=average, peak=peak), 0)] == [0, 1, 9]


def test_shares_of_kinds_are_of_the_link() -> None:
    cells = made(sample.result()).body.split("<tr>")[-1]
    assert "0.0 %" in cells and "25.0 %" in cells and "75.0 %" in cells


def test_no_links_no_section() -> None:
    result = sample.result()
    assert result.links is not None
    assert links.section(sample.chunk_times()) is None
    none = replace(result.links, ends=(), of=result.links.of[:0], size=result.links.size[:0])
    assert links.section(replace(result, links=none)) is None
