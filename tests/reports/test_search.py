"""Pages of points: one file that fetches nothing, whose every point has a command line."""

import json
import re
from typing import Any

from reports import search

AXES = [{"name": "schedule", "labels": ["1f1b", "zb1p"]}, {"name": "comm.sms", "labels": ["8", "20"]},
        {"name": "seed", "labels": ["0"]}]  # fmt: skip
FIGURES = [{"name": "step", "unit": "s", "best": "min"}, {"name": "odd </script>", "unit": "", "best": "max"}]


def points(count: int) -> list[dict[str, Any]]:
    return [
        {"schedule": AXES[0]["labels"][i % 2], "comm.sms": AXES[1]["labels"][i // 2 % 2], "seed": "0", "step": 1.0 + i,
         "odd </script>": None if i == 1 else 2.0, "command": f"python -m sim s.yaml 'n=<{i}>'"}
        for i in range(count)
    ]  # fmt: skip


def data(text: str) -> Any:
    return json.loads(re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0])


def test_a_page_of_a_sweep_holds_all_it_needs() -> None:
    text = search.render_sweep({"name": "a <b>", "axes": AXES, "figures": FIGURES, "points": points(4), "count": 4})
    held = data(text)
    assert [each[3] for each in held["chart"]["points"]] == [f"python -m sim s.yaml 'n=<{i}>'" for i in range(4)]
    assert held["chart"]["points"][1][1] == [2.0, None] and "default-src 'none'" in text and search.MARK in text
    assert 'src="http' not in text and "<h1>a &lt;b&gt;</h1>" in text and 'id="heat-plot"' in text
    choices = re.findall(r'<select id="heat-x">(.*?)</select>', text)[0]
    assert re.findall(r'value="([^"]*)"', choices) == ["schedule", "comm.sms"]  # the seed has no choice


def test_a_sweep_says_where_a_figure_is_least_and_most_and_not_which_is_better() -> None:
    text = search.render_sweep({"name": "x", "axes": AXES, "figures": FIGURES, "points": points(4), "count": 4})
    verdict = re.findall(r'<p class="verdict">(.*?)</p>', text)[0]
    assert f"least {points(4)[0]['step']:.4g} with " in verdict and f"most {points(4)[3]['step']:.4g} with " in verdict
    assert data(text)["heat"]["which"] == "least" and "best" not in re.findall(r"<main>(.*)</main>", text, re.DOTALL)[0]


def test_one_axis_has_no_heat_map_and_no_figures_no_charts() -> None:
    one = search.render_sweep({"name": "x", "axes": AXES[:1], "figures": FIGURES, "points": points(2), "count": 2})
    assert 'id="heat-plot"' not in one and 'id="chart-plot"' in one
    none = search.render_sweep({"name": "x", "axes": AXES, "figures": FIGURES, "points": [], "count": 3})
    assert 'id="chart-plot"' not in none and "3 points; 3 are not shown" in none


def test_the_best_have_a_heading_for_each_cell() -> None:
    best = {
        "schedule": "1f1b", "comm.sms": "8", "seed": "0", "step": 1.0, "front": True, "head": 1.0, "peak_bytes": 1e9,
        "interval_90": [0.9, 1.2], "full": {"step_time_s": 1.0}, "error": None, "command": "python",
    }  # fmt: skip
    beside = {"axis": "schedule", "label": "zb1p", "lacks": "memory", "why": "", "ratio": None, "peak_bytes": 2e9}
    answer = {
        "name": "x", "axes": AXES, "objectives": FIGURES[:1], "legal": 4, "simulated": 2, "combinations": 8,
        "facts": [{"name": "gpus", "unit": "GPUs", "best": "min"}], "head": {"name": "step", "unit": "seconds"},
        "best": [best], "beside": [beside], "binds": ["a binds"], "lines": ["8 combinations"],
        "points": [{**each, "peak_memory_bytes": 1e9, "step_time_s": 1.0, "gpus": 8} for each in points(2)],
    }  # fmt: skip
    text = search.render(answer)
    table = text[text.index('<section id="best"') :]
    head, row = re.findall(r"<thead><tr>(.*?)</tr></thead><tbody><tr>(.*?)</tr>", table, re.DOTALL)[0]
    assert head.count("<th") == row.count("<td") == 2 + 3 + 1 + 3
    assert "misses: memory" in table and 'data-copy="python"' in table
