"""docs/MEMORY.md says what its sweep and its scenarios find."""

from functools import cache
from pathlib import Path

import pytest

import sim
from sim.experiments.sweep import read_sweep
from sim.models.family import family
from sim.scenario import SCENARIOS, load

PAGE = (Path(__file__).parents[3] / "docs" / "MEMORY.md").read_text(encoding="utf-8")


def cells(label):
    """Cells of the row of a table that begins with a label."""
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in row.split("|")[2:-1]]


KEPT = read_sweep(SCENARIOS / "sweeps" / "memory.yaml")


@pytest.mark.parametrize("point", KEPT.points, ids=lambda point: point.labels["keeps"])
def test_the_table_of_v3(point):
    found = sim.run(SCENARIOS / "v3_2048gpu.yaml", point.overrides, interval=False).summary
    worst, fits = found["worst_memory"], "yes" if found["feasible"] else "**no**"
    assert cells(point.labels["keeps"]) == [
        f"{found['step_time_s']:.3f} s", f"{worst['peak_bytes'] / 1e9:.2f} GB", str(worst["position"]), fits,
        f"{found['mfu']['causal']:.1%}".replace("%", " %"),
    ]  # fmt: skip


@cache
def summary(name):
    return sim.run(SCENARIOS / f"{name}.yaml", ["outputs=[result]"], interval=False).summary


def test_v2_and_67b_fit_and_cost_what_the_page_says():
    """Published: 172.8 and 300.6 thousand hours, 155 GFLOP, 93.3 % less cache (arXiv:2405.04434, arXiv:2505.09343)."""
    v2, dense = (summary(name) for name in ("v2_236b", "deepseek_67b"))
    assert v2["feasible"] and dense["feasible"]
    peaks = [f"{each['worst_memory']['peak_bytes'] / 1e9:.2f} GB" for each in (v2, dense)]
    assert cells("peak memory")[0::2][:2] == peaks
    assert cells("step on 1,024 GPUs")[0::2][:2] == [f"{each['step_time_s']:.2f} s" for each in (v2, dense)]
    hours = [each["gpu_hours_per_trillion_tokens"] / 1e3 for each in (v2, dense)]
    row = [f"{hours[0]:.1f}", "172.8", f"{hours[1]:.1f}", "300.6", f"{hours[0] / hours[1]:.2f}", "0.57"]
    assert cells("thousand GPU-hours a trillion tokens") == row
    assert [f"{1 - each / of:.0%}" for each, of in zip(hours, (172.8, 300.6), strict=True)] == ["31%", "25%"]


def test_cost_and_cache_of_a_token():
    v2, dense = (load(SCENARIOS / f"{name}.yaml").model for name in ("v2_236b", "deepseek_67b"))
    flop = [family(m.family).flop(m, 4096, True) / 1e9 for m in (v2, dense)]
    row = [f"{flop[0]:.1f} GFLOP", "155 GFLOP", f"{flop[1]:.1f} GFLOP", "", f"{flop[0] / flop[1]:.2f}", ""]
    assert cells("training cost of a token, causal") == row
    cache_bytes = [family(m.family).cache(m) for m in (v2, dense)]
    narrow = cache_bytes[0] * 6 / 16
    assert 1 - narrow / cache_bytes[1] == pytest.approx(0.933, abs=5e-4)
    assert cells("the same with V2's at 6 bits")[::2] == [f"{narrow:,.0f} B", f"{cache_bytes[1]:,.0f} B", "0.067"]
    assert cells("cache a token, BF16")[::2] == [
        f"{cache_bytes[0]:,.0f} B", f"{cache_bytes[1]:,.0f} B", f"{cache_bytes[0] / cache_bytes[1]:.3f}",
    ]  # fmt: skip
