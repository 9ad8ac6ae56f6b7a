"""A campaign on the command line: its folder, its page, its exit codes, and a sweep over it."""

import json
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.scenario import SCENARIOS, load

CAMPAIGN = str(SCENARIOS / "campaign_v3.yaml")
FEW = ("campaign.seeds=20",)


def test_a_folder_like_any_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([CAMPAIGN, *FEW, "--out", str(out), "--format", "json"]) == 0
    stdout, stderr = capsys.readouterr()
    summary = json.loads((out / "result.json").read_text())
    assert json.loads(stdout) == summary and summary["campaign"]["seeds"] == 20
    assert sum(summary["campaign"]["hours_s"].values()) == pytest.approx(summary["campaign"]["days"]["mean"] * 86400)
    assert "Goodput" in stderr and "written to" in stderr
    assert set(summary["files"]) == {"report.html", "scenario.yaml"}
    again = tmp_path / "again"
    assert main([str(out / "scenario.yaml"), "--out", str(again), "-q"]) == 0
    assert json.loads((again / "result.json").read_text())["campaign"] == summary["campaign"]
    assert main([CAMPAIGN, *FEW, "outputs=[result]", "--out", str(out), "-q"]) == 0
    assert not (out / "report.html").exists()


def test_the_page_says_what_published_hours_are(tmp_path: Path) -> None:
    assert main([CAMPAIGN, *FEW, "--out", str(tmp_path / "out"), "-q"]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    hours = "180 thousand a trillion tokens x 14.8 exactly, so no failure, restart or growing batch"
    for words in ("Calendar", "Where the hours go", "Failures and checkpoints", "Cost, with intervals", hours):
        assert words in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = [CAMPAIGN, *FEW, "campaign.deadline=50 days"]
    assert main([*late, "--out", str(tmp_path / "a"), "-q"]) == 1
    assert capsys.readouterr().err.startswith(f"{CAMPAIGN}: infeasible: misses its deadline of 50.0 days")
    assert main(["check", *late]) == 1
    assert main(["check", CAMPAIGN, *FEW]) == 0
    assert main([CAMPAIGN, "campaign.spares=-1", "--out", str(tmp_path / "b")]) == 2
    assert main([CAMPAIGN, "campaign.checkpoint.storage=1 MB/s", "--out", str(tmp_path / "c"), "-q"]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "a checkpoint takes" in line and not (tmp_path / "c").exists()


def test_a_step_is_no_campaign() -> None:
    from hwmodels.refused import Refused

    with pytest.raises(Refused, match="is a campaign, not a training step; run it with: python -m sim FILE"):
        load(CAMPAIGN)


def test_a_sweep_over_campaigns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Spares, prices and intervals share the steps; the same seeds meet the same failures."""
    sweep = tmp_path / "s.yaml"
    sweep.write_text(
        f"scenario: {CAMPAIGN}\noverrides: [campaign.seeds=20]\n"
        "axes: {campaign.spares: [0, 8], prices.gpu_hour: [2 USD, 4 USD]}\n"
    )
    kept = tmp_path / "s.jsonl"
    assert main(["sweep", str(sweep), "--out", str(kept), "-q"]) == 0
    records = [json.loads(line) for line in kept.read_text().splitlines() if line.startswith('{"scenario_hash"')]
    own = [record["summary"]["campaign"] for record in records]
    assert len(own) == 4
    assert own[0]["days"]["mean"] > own[2]["days"]["mean"]  # without spares nodes are waited for
    assert own[1]["dollars"]["mean"] == pytest.approx(2 * own[0]["dollars"]["mean"])
    assert own[0]["days"] == own[1]["days"]
    assert "goodput" in capsys.readouterr().out
    assert main(["sweep", str(sweep), "--out", str(kept), "-q", "--jobs", "2"]) == 0
