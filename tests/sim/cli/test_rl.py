"""Reinforcement learning on the command line: its folder, its page, its exit codes, and a sweep over it."""

import json
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.scenario import SCENARIOS

ON, OFF = (str(SCENARIOS / name) for name in ("rl_v3_256gpu.yaml", "rl_v3_512gpu_one_off.yaml"))
FEW = ("rl.steps=1",)


def test_a_folder_like_any_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([ON, *FEW, "--out", str(out), "--format", "json"]) == 0
    stdout, stderr = capsys.readouterr()
    summary = json.loads((out / "result.json").read_text())
    assert json.loads(stdout) == summary and summary["rl"]["steps"] == 1
    assert "GPUs" in stderr and "written to" in stderr and "published 134 s" in stderr
    assert set(summary["files"]) == {"report.html", "scenario.yaml"}
    again = tmp_path / "again"
    assert main([str(out / "scenario.yaml"), "--out", str(again), "-q"]) == 0
    assert json.loads((again / "result.json").read_text())["rl"] == summary["rl"]


def test_the_page_shows_who_waits(tmp_path: Path) -> None:
    assert main([OFF, *FEW, "--out", str(tmp_path / "out"), "-q"]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in ("Timeline", "Where the time goes", "GPUs that train", "waiting for the last answer", "none (GRPO)"):
        assert words in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", ON, *FEW]) == 0 and "nothing wrong" in capsys.readouterr().out
    assert main([ON, "rl.stale=1", "--out", str(tmp_path / "a"), "-q"]) == 2
    assert "rl.stale=1: found 1, but" in capsys.readouterr().err
    assert main([ON, *FEW, "recompute=none", "--out", str(tmp_path / "b"), "-q"]) in (0, 1)


def test_a_sweep_over_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"scenario: {ON}\noverrides: [rl.steps=1]\naxes: {{rl.samples: [8, 16]}}\n", encoding="utf-8")
    assert main(["sweep", str(sweep), "--out", str(tmp_path / "runs.jsonl"), "-q"]) == 0
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert len(lines) == 3 and "rollout (s)" in lines[0]
