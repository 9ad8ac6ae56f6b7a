"""A campaign's page and study: parts that add up, a page that is whole without scripts, tables from points."""

import re
from html import unescape
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from reports import campaign
from reports.studies import campaign as study
from sim.campaign.answer import run
from sim.experiments.kinds import load

SPREAD = {"mean": 2.0, "p5": 1.0, "p25": 1.5, "p50": 2.0, "p75": 2.5, "p95": 3.0}
HOURS = {"work": 7200.0, "checkpoints": 360.0, "evaluation": 0.0, "changes": 0.0, "slow": 0.0, "recomputed": 1800.0,
         "detection": 60.0, "replacement": 0.0, "restart": 180.0}  # fmt: skip


def phase(name: str, length: int) -> dict[str, Any]:
    return {
        "name": name, "learning_rate": "2e-4", "sequence_length": length, "sequences": [8, 16], "steps": 10,
        "tokens": 100,
        "begins_days": 0.0, "work_s": 3600.0, "gpu_hours": 8.0, "step_s": [1.0, 2.0], "simulated": 3, "batches": 9,
        "peak_bytes": 6e10, "capacity_bytes": 8e10, "layout": "PP2 <CP4>",
    }  # fmt: skip


def summary(**changes: Any) -> dict[str, Any]:
    times = ("snapshot_s", "write_s", "stall_s", "lag_s", "load_s", "every_s", "optimum_s", "young_s")
    own = {
        "seeds": 5, "nodes": 4, "spares": 1, "steps": 20, "tokens": 200, "ideal": {"days": 2.0},
        "phases": [phase("grows", 4096), phase("short", 4096), phase("long", 32768), phase("longer", 131072)],
        "days": SPREAD, "gpu_hours": SPREAD, "goodput": SPREAD, "dollars": SPREAD, "energy_j": SPREAD, "hours_s": HOURS,
        "intervals_90": {"days": [0.5, 4.5], "gpu_hours": [1.0, 9.0], "dollars": [1e6, 9e6], "energy_j": [1.0, 9.0]},
        "interruptions": {**dict.fromkeys(campaign.KINDS, SPREAD), "mean_s": 7200.0},
        "checkpoint": {"kind": "blocking", "phase": "grows", "count": 3, "total_bytes": 1e12, "node_bytes": 1e10,
                       "send_s": 0.0, **dict.fromkeys(times, 1.0)},
        "published": [
            {"what": "pre-training", "published": 10.0, "simulated": 9.0, "error": -0.1, "source": "a <table>"}
        ],
        "seeds_by_days": {"first": 1.0, "last": 3.0, "seeds": [1, 3, 1]}, "power_w": {"busy": 1300.0, "idle": 400.0},
    }  # fmt: skip
    return {
        "scenario": "Run & all", "scenario_hash": "abc", "overrides": ["seed=1"], "gpus": 32, "feasible": True,
        "infeasible": [], "campaign": own | changes,
    }  # fmt: skip


def test_the_page_has_its_parts_and_no_script() -> None:
    text = campaign.render(summary(), {"name": "x"})
    parts = re.findall(r'<section id="(\w+)"', text)
    assert parts == ["calendar", "hours", "failures", "cost", "scenario"]
    assert "<script" not in text and "PP2 &lt;CP4&gt;" in text and "a &lt;table&gt;" in text
    assert "3 of 9 batches of grows" in text and "with seed=1" in text
    assert "with steps' interval 0.5 to 4.5 (90" in unescape(text) and "0.50 to 4.50" in text


def test_docs_say_what_a_run_says_today() -> None:
    """The study's point as it is: other points move with it. `python -m sim study campaign` renews them."""
    own = run(load("campaign_v3", ["campaign.seeds=400"])).summary["campaign"]
    text = (Path(__file__).parents[2] / "docs" / "CAMPAIGN.md").read_text(encoding="utf-8")
    assert study._published(own) in text and study._hours(own) in text


def test_the_waterfall_ends_where_the_hours_do() -> None:
    text = campaign.render(summary(), {})
    bars = [(float(a), float(b)) for a, b in re.findall(r'left:([\d.]+)%;width:([\d.]+)%"></i></span>', text)]
    assert len(bars) == 4  # causes of nothing are left out
    for (left, width), (after, _) in pairwise(bars):
        assert abs(left + width - after) < 0.02
    assert abs(sum(bars[-1]) - 100) < 0.02


def test_what_nobody_says_is_left_out() -> None:
    text = campaign.render(summary(dollars=None, published=[]), {})
    assert "USD" not in text and "Published" not in text


def test_the_terminal_has_the_same_figures() -> None:
    stream = StringIO()
    campaign.show(summary(), stream)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Run & all, with seed=1"
    assert any(line.startswith("Days") and "2.0" in line for line in lines)
    assert any("done again" in line and "0.5 h" in line for line in lines)


def test_the_study_has_a_row_a_point() -> None:
    names = [study.BASE, "interval 5 min", "interval optimum", "kind blocking", "spares 2", "if it rains", "nodes 8",
             "32 K, PP2", "128 K, PP4"]  # fmt: skip
    points = [({"point": name}, {"summary": summary()}) for name in names]
    points[1][1]["summary"]["campaign"]["checkpoint"] |= {"every_s": 300.0}
    points[2][1]["summary"]["campaign"]["checkpoint"] |= {"every_s": 3000.0}
    text, charts = study.tell(points)
    assert list(charts) == ["campaign.svg"] and text.count("### ") == 8 and "(campaign.svg)" in text
    assert all(f">{word}<" in charts["campaign.svg"] for word in ("at checkpoints", "done again", "both", "5", "50"))
    assert "| GPU-hours of pre-training, K | 0.0 | 0.0 | −10.0 % |" in text
    for name in (
        "| 5 min |",
        "| optimum |",
        "| blocking |",
        "| 2 |",
        "| it rains |",
        "| 8 |",
        "| 32 K, PP2 |",
        "| 128 K, PP4 |",
    ):
        assert name in text
