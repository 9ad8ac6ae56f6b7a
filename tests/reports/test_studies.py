"""Studies: figures that add up, charts that are drawn to scale, pages that are renewed between their marks."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from hwmodels.refused import Refused
from reports.studies import batch, exchange, page, scale, stragglers, svg, text, unevenness
from sim.experiments.record import record
from sim.scenario import SCENARIOS, load

DOCS = SCENARIOS.parent / "docs"
SECONDS = st.floats(0, 100)
PUBLISHED = dict.fromkeys([*unevenness.PUBLISHED.values(), unevenness.PAIR], 1.0)


def summary(step: float = 10.0, peers: float = 0.0, gradients: float = 1.0, **more: Any) -> dict[str, Any]:
    """A summary of 2,048 GPUs whose parts add up to the step."""
    idle = {"fill": 0.5, "activations": 0.25, "gradients": gradients, "drain": 0.25}
    phases = {"forward": 1.0, "backward": 2.0, "weight": 0.5, "optimizer": 0.5, "bubble": sum(idle.values())}
    phases["overlapped"] = step - sum(phases.values())
    return {
        "step_time_s": step, "phases_s": phases, "bubble_s": idle, "exposed_communication_s": 0.5,
        "waiting_for_peers_s": peers, "critical_ranks": [{"rank": 7}], "tokens_per_step": 3_600_000_000,
        "gpu_hours_per_trillion_tokens": 2048 * 10 / 3600 / 3.6e9 * 1e12,
        "pair_s": {"seconds": 0.131}, "events": 3_000_000,
        "expert_rows": {"smallest": 28_000, "largest": 36_000, "expected": 33_024}, **more,
    }  # fmt: skip


def told(**faults: dict[str, Any]) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Every case of the stragglers' sweep; `faults` replace those named, kind_place."""
    out = []
    for schedule in stragglers.SCHEDULES:
        names = ["none", *(f"{kind} {place}" for kind in stragglers.FAULTS for place in stragglers.PLACES)]
        for name in names:
            found = faults.get(name.replace(" ", "_"), summary(10.0 if name == "none" else 11.0))
            fits = {"feasible": schedule != "zb1p"}
            out.append(({"schedule": schedule, "fault": name}, {"summary": found | fits}))
    return out


# --- stragglers -------------------------------------------------------------------------------------------------------


@given(SECONDS, SECONDS, SECONDS)
def test_causes_add_up_to_the_longer_step(longer: float, peers: float, gradients: float) -> None:
    slow = summary(10 + longer, peers, gradients)
    cost = stragglers.costs(told(gpu_middle=slow))["zb1p", "gpu", "middle"]
    assert sum(cost.causes.values()) == pytest.approx(longer, abs=1e-9) == cost.more
    assert cost.causes["waiting for gradients"] == pytest.approx(gradients - 1.0)
    assert cost.missing == pytest.approx(2048 * longer / (10 + longer))


@pytest.mark.parametrize("faults", [[], ["faults=[{kind: gpu, at: 1024, slower: 1.1}]"]])
def test_causes_of_a_real_run_add_up_to_its_step(faults: list[str]) -> None:
    words = ["outputs=[result]", *faults]
    found = sim.run(load(str(SCENARIOS / "v3_2048gpu.yaml"), words)).summary
    assert sum(stragglers._causes(found).values()) == pytest.approx(found["step_time_s"], rel=1e-9)


def test_stragglers_tell_every_case() -> None:
    block, charts = stragglers.tell(told(link_middle=summary(12.0, 0.5)))
    rows = [line for line in block.splitlines() if line.startswith(("| DualPipe", "| ZB1P", "| 1F1B"))]
    assert len(rows) == 27 and sum("| 12.00 | +2.00 | +20.0 % | 341 | 7 |" in row for row in rows) == 3
    assert block.startswith("Healthy steps: DualPipe 10.00 s, ZB1P 10.00 s, 1F1B 10.00 s. ZB1P would not fit")
    assert len(re.findall(r"^- \*\*", block, re.MULTILINE)) == 9
    assert "**1F1B, one GPU's NIC at 50 %**: the step is 2.00 s longer" in block
    ET.fromstring(charts["stragglers.svg"])


# --- unevenness -------------------------------------------------------------------------------------------------------


def uneven() -> list[tuple[dict[str, str], dict[str, Any]]]:
    def one(step: float) -> dict[str, Any]:
        return {"summary": summary(step)}

    out: list[tuple[dict[str, str], dict[str, Any]]] = [
        ({"redundant": copies, "seed": str(seed)}, one(step + seed))
        for copies, step in (("0", 12.0), ("64", 11.0)) for seed in range(3)
    ]  # fmt: skip
    names = ("balanced", "balanced, groups of 32", "no copies, groups of 32", "32 copies, groups of 32")
    return out + [({"point": name}, one(10.0)) for name in names]


def test_the_pair_is_the_one_that_runs_tell() -> None:
    assert unevenness.pair_ms(uneven()[0][1]) == pytest.approx(131.0)


def test_unevenness_is_told_beside_balanced_and_published() -> None:
    block, charts = unevenness.tell(uneven(), PUBLISHED | {"IS-T4-step": 19.926})
    assert "| step | 10.00 | 13.00 (12.00 to 14.00) | +3.00 (+2.00 to +4.00) | 19.93 |" in block
    assert "| weight gradient alone (1W) | 0.50 | 0.50 (0.50 to 0.50) | 0 (0 to 0) | 1.00 |" in block
    assert "| groups of 64, 64 copies, 3 seeds | 28,000 to 36,000 | 12.00 (11.00 to 13.00) | +20.0 % |" in block
    assert "Mean of 3 seeds" in block and "chance of 50 %" in block
    assert "19.93" in charts["unevenness.svg"]


# --- scale ------------------------------------------------------------------------------------------------------------


def test_scale_tells_medians_and_rising_lines() -> None:
    runs = [
        ({"ranks": str(n), "ranks are": kind, "seed": str(seed)},
         {"summary": summary(), "cost": {"cpu_s": n / 64 + seed, "peak_memory_bytes": n * 10**6}})
        for n in (64, 128) for kind in ("alike", "all different") for seed in (0, 1, 2)
    ]  # fmt: skip
    block, charts = scale.tell(runs)
    assert "| 64 | 2.0 | 2.0 | 64 | 64 | 3.0 | 10.00 |" in block and "| 128 | 3.0 | 3.0 | 128 | 128 |" in block
    drawn = ET.fromstring(charts["scale_cpu.svg"]).iter()
    circles = [float(c.get("cy", "")) for c in drawn if c.tag.endswith("circle")]
    assert len(circles) == 4 and circles[0] > circles[1]  # more is higher up


# --- charts and text --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=5).filter(lambda v: max(v) - min(v) > 0.1))
def test_bars_are_as_long_as_their_values(values: list[float]) -> None:
    names = [str(i) for i in range(len(values))]
    found = ET.fromstring(svg.stacked("t", "s", names, [svg.Series("a", values)]))
    bars = [e for e in found.iter() if e.tag.endswith("rect") and e.get("height") == f"{svg.LINE - 4:.1f}"]
    drawn = [float(bar.get("width", "")) for bar in bars]
    shown = [abs(v) for v in values if v]
    assert len(drawn) == len(shown)
    longest = max(shown)
    assert all(d == pytest.approx(v / longest * max(drawn), abs=0.2) for d, v in zip(drawn, shown, strict=True))
    edges = [float(bar.get("x", "")) for bar in bars]
    assert all(svg.LEFT - 0.1 <= x <= svg.WIDTH for x in edges)


def test_charts_escape_and_keep_labels_apart() -> None:
    chart = svg.grouped("a < b", "s & t", ["<x>"], [svg.Series('"q"', [1.0], [0.5], [2.0])])
    assert ET.fromstring(chart).attrib["role"] == "img" and "<x>" not in chart
    places = svg._apart([10.0, 9.0, 50.0])
    assert places == [9.0 + svg.SIZE, 9.0, 50.0]


def test_legends_stay_on_the_chart() -> None:
    chart = svg.stacked("t", "s", ["x"], [svg.Series("w" * 20, [1.0]) for _ in range(6)])
    words = [e for e in ET.fromstring(chart).iter() if (e.text or "").startswith("ww")]
    assert len(words) == 6
    assert all(float(e.get("x", "")) + svg.LETTER * 20 <= svg.WIDTH for e in words)


def test_differences_have_signs_and_nothing_is_zero() -> None:
    assert [text.more(v) for v in (0.714, -0.03, 0.001, -0.001)] == ["+0.71", "−0.03", "0", "0"]
    assert text.share(0.0386) == "+3.9 %"
    assert text.spread([1.0, 3.0], 1) == "2.0 (1.0 to 3.0)"


# --- pages ------------------------------------------------------------------------------------------------------------


def test_a_page_is_renewed_between_its_marks_only(tmp_path: Path) -> None:
    file = tmp_path / "STRAGGLERS.md"
    file.write_text(f"before\n\n{page.MARKS[0]}\nold \\1\n{page.MARKS[1]}\n\nafter\n")
    files = page.renew("stragglers", told(), {}, tmp_path)
    assert files == [str(file), str(tmp_path / "stragglers.svg")]
    found = file.read_text()
    assert found.startswith(f"before\n\n{page.MARKS[0]}\nHealthy") and found.endswith(f"{page.MARKS[1]}\n\nafter\n")
    assert "old \\1" not in found and "30 runs of code and tables ?." in found
    page.renew("stragglers", told(), {}, tmp_path)
    assert file.read_text() == found


def test_a_page_without_marks_or_no_page_is_told_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"STRAGGLERS.md: cannot be read or written: No such file"):
        page.renew("stragglers", told(), {}, tmp_path)
    (tmp_path / "STRAGGLERS.md").write_text("prose")
    with pytest.raises(Refused, match="has no <!-- figures -->"):
        page.renew("stragglers", told(), {}, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["STRAGGLERS.md"]


@pytest.mark.parametrize("name", page.STUDIES)
def test_pages_of_studies_hold_figures_and_small_charts(name: str) -> None:
    found = (DOCS / f"{name.upper()}.md").read_text(encoding="utf-8")
    block = found.split(page.MARKS[0])[1].split(page.MARKS[1])[0]
    charts = re.findall(r"!\[.*?\]\((.*?)\)", block)
    assert charts and f"python -m sim study {name}" in found and "| --: |" in block
    assert all(0 < (DOCS / chart).stat().st_size < 200_000 for chart in charts)
    assert (SCENARIOS / "sweeps" / f"{name}.yaml").is_file()


@pytest.mark.parametrize("name", ["v3_sampled", "v3_straggler"])
def test_scenarios_of_the_studies_run(name: str) -> None:
    """Slower than the balanced, healthy run of the same pricing, and named where it is slow."""
    words = ["outputs=[result]"]
    base, found = (record(load(str(SCENARIOS / f"{n}.yaml"), words))["summary"] for n in ("v3_2048gpu", name))
    assert found["step_time_s"] >= base["step_time_s"]
    if name == "v3_straggler":
        assert found["critical_ranks"][0]["rank"] == 1024


# --- batches and exchanges --------------------------------------------------------------------------------------------


def test_exchanges_over_compute_by_hand() -> None:
    """10 s of step, 1 of bubble, 1 of optimizer, 2 s of exchanges waited for and 2 hidden: 4 over 6."""
    one = {"step_time_s": 10.0, "phases_s": {"bubble": 1.0, "optimizer": 1.0}, "exposed_communication_s": 2.0,
           "overlap_fraction": 0.5}  # fmt: skip
    assert exchange.ratio(one) == pytest.approx(4 / 6)
    block, charts = exchange.tell(
        [({"model": "m", "network": "n"}, {"summary": one}), ({"point": "p"}, {"summary": one})]
    )
    assert "| m | 0.67 |" in block and "p: 0.67." in block and "0.67" in charts["exchange.svg"]


def test_batches_are_told_by_tokens_and_depth() -> None:
    def ran(tokens: int, hours: float, fits: bool = True) -> dict[str, Any]:
        return {"summary": {"tokens_per_step": tokens, "gpu_hours_per_trillion_tokens": hours, "bubble_fraction": 0.25,
                            "worst_memory": {"peak_bytes": 64e9}, "feasible": fits}}  # fmt: skip

    points = [({"sequences": "1", "pipeline": "4"}, ran(4_000_000, 300e3)),
              ({"sequences": "2", "pipeline": "4"}, ran(60_000_000, 200e3)),
              ({"point": "2, 8, DualPipe"}, ran(60_000_000, 160e3, False))]  # fmt: skip
    block, _ = batch.tell(points)
    assert "| 4 | 300 (25%) | 200 (25%) | 64 | yes |" in block and "| 8, DualPipe |  | 160 (25%) | 64 | no |" in block
    assert "cost a trillion tokens 1.50 times with 4." in block
