"""Lines about what a run takes for granted, and that runs with nothing to say say nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sim.analysis.notes import SLACK, SPREAD, notes
from sim.scenario import SCENARIOS, load

MAIN = str(SCENARIOS / "v3_2048gpu.yaml")
TAKEN = "prices take it that nothing in the fabric blocks"
COLLISIONS = "set cluster.routing (static, ecmp, adaptive) to price collisions"


def said(*overrides, summary=None):
    return list(notes(load(MAIN, overrides), summary or {}, overrides))


def test_the_main_scenario_needs_no_note():
    assert said() == said("schedule=zb1p", "cluster.nodes=128", "batch.sequences=7680") == []


@pytest.mark.parametrize("word", ["cluster.fabric=ft3", "cluster.fabric.link.bandwidth=25GB/s",
                                  "cluster={node: h800x8, nodes: 256, fabric: ft3}"])  # fmt: skip
def test_another_fabric_without_routing_is_told(word):
    assert said(word) == [f"cluster.fabric: {TAKEN}; {COLLISIONS}"]


@pytest.mark.parametrize("words", [
    ["cluster.fabric=ft3", "cluster.routing=ecmp"], ["cluster.fabric=ft3", "cluster.placement=scattered"],
    ["cluster.fabric=null"],
])  # fmt: skip
def test_priced_collisions_and_no_fabric_are_not(words):
    """A placement alone asks for adaptive routing, which is priced."""
    assert said(*words) == []


def test_a_fabric_that_can_only_be_counted_is_told():
    why = "a slim fly of order 28 can be counted but not wired"
    line = f"cluster.fabric: counted, not wired ({why}); no links.csv, and {TAKEN}"
    assert said("cluster.fabric=slimfly", summary={"links": {"left_out": why}}) == [line]
    assert said(summary={"links": {"left_out": why}}) == [line]


@pytest.mark.parametrize("word", ["cluster.node.nic.bandwidth=45GB/s", "comm.sms=8", "routing=sampled", "jitter=1%"])
def test_what_rests_on_the_slack_of_exchanges_says_so(word):
    hidden = {"overlap_fraction": 0.9}
    assert SLACK in said(word, summary=hidden) and SLACK not in said(word, "comm.waits=measured", summary=hidden)
    assert SLACK not in said("cluster.node.device.hbm.bandwidth=3TB/s", summary=hidden)
    assert SLACK not in said(word, summary={"overlap_fraction": 0.0})


def test_the_spread_of_the_profile_says_where_it_is_from():
    assert said("routing=sampled") == said("routing={kind: sampled, spread: 0.15}") == [SPREAD]
    assert said("routing={kind: sampled, spread: 0.2}") == []


def test_faults_and_recorded_loads_have_their_lines():
    found = {"max_vio": {"by_layer": [0.2], "recorded": {"by_layer": [0.0]}}, "layers": [3]}
    lines = said(summary={"faults_without_effect": ["faults[0]: changes nothing"], "routing": found})
    assert len(lines) == 2 and lines[0] == "faults[0]: changes nothing"
    assert lines[1].startswith("routing.histogram: as drawn")


def test_the_command_prints_them(tmp_path: Path):
    """The slim fly as shipped, on the main scenario: a line on stderr, no links.csv, and the reason in result.json."""
    words = ["cluster.fabric=slimfly", "detail=chunk", "outputs=[result, links]", "-q", "--out", str(tmp_path / "o")]
    done = subprocess.run([sys.executable, "-m", "sim", MAIN, *words], capture_output=True, text=True, check=True)
    links = json.loads((tmp_path / "o" / "result.json").read_text())["links"]
    assert done.stdout == "" and done.stderr == (
        f"{MAIN}: cluster.fabric: counted, not wired ({links['left_out']}); no links.csv, and {TAKEN}\n"
    )
    assert not (tmp_path / "o" / "links.csv").exists()


@pytest.mark.parametrize(("word", "line"), [
    ("cluster.node.nic.bandwidth=400GB/s", "400GB/s is 4 times the most of any machine that ships (100 GB/s); Gb"),
    ("cluster.node.nic.bandwidth=400GB/s", "its, GB gigabytes"),
    ("cluster.node.device.hbm.capacity=80Gb", "80Gb is 1/4 of the least of any machine that ships (40 GB); Gb is"),
    ("cluster.node.nvlink.latency=1ms", "1ms is 300 times the most of any machine that ships (3.33 us)"),
])  # fmt: skip
def test_figures_far_beyond_all_machines_are_told(word, line):
    """400 Gb/s written with a large B is eight times what it was meant to be."""
    (only,) = said(word)
    assert only.startswith(f"{word.split('=')[0]}: ") and line in only


@pytest.mark.parametrize("word", [
    "cluster.node.nic.bandwidth=400Gb/s", "cluster.node.nic.bandwidth=199GB/s", "cluster.node.nic.bandwidth=6.3GB/s",
    "cluster.node.nvlink.latency=0 s", "cluster.node.device.hbm.bandwidth=8 TB/s",
])  # fmt: skip
def test_figures_near_those_that_ship_are_not(word):
    assert said(word) == []


def test_peaks_that_follow_are_told():
    (line,) = said("cluster.node.device.sms=66")
    assert line == (
        "cluster.node.device: its peaks follow its SMs and clock (bf16: 494.5 TFLOP/s); state peak_flops to set them"
    )
    every = [f"cluster.node.device.peak_flops.{name}=500 TFLOP/s" for name in ("fp8", "bf16", "tf32")]
    assert said("cluster.node.device.sms=66", *every, "cluster.node.device.peak_flops.fp32=60 TFLOP/s") == []


def test_measured_waits_say_whose_they_are():
    other = "comm.waits: measured on a rank of H800s, not on H200 SXM, and taken over as they are"
    twice = "comm.waits: the profile's waits contain what uneven ranks make each other wait, which this run has too"
    assert said("comm.waits=measured") == []
    assert other in said("comm.waits=measured", "cluster.node=h200x8")
    assert twice in said("comm.waits=measured", "jitter=0.01") and twice not in said("jitter=0.01")


def test_what_is_kept_says_where_it_changes_nothing():
    dense = str(SCENARIOS / "llama3_70b.yaml")
    words = ["recompute={modules: [moe, mla_up_projection, norm, mlp]}"]
    (line,) = notes(load(dense, words), {}, words)
    lacks = "Llama-3 70B has no mla_up_projection, moe to compute again on the deepseek stack"
    assert line == f"recompute.modules: {lacks}, so that changes nothing"
    assert said("recompute={modules: [moe, mla_up_projection, norm, mlp]}") == said("recompute=none") == []
    (line,) = said("optimizer.offload=host")
    assert "CPUs come short" in line
