"""Advice for what does not fit: every change is one that a user can make, and does what it says."""

import json
from functools import cache

import pytest
import yaml

from hwmodels.refused import Refused
from sim import assembly, simulation
from sim.__main__ import main
from sim.analysis.memory import peak_bytes
from sim.experiments.advice import ADVISED, WON, advice
from sim.layout.plan import lay_out
from sim.scenario import SCENARIOS, from_mapping, load

SMALL = {
    "cluster": {"node": "h800x8", "nodes": 4}, "model": {"base": "deepseek_v2_lite", "layers": 8},
    "parallel": {"pipeline": 4, "expert": 8}, "schedule": "1f1b", "batch": {"micro_batches": 8, "micro_batch": 4},
    "recompute": {"modules": ["norm"]}, "states": {"moments": "fp32"}, "placement": [2, 2, 2, 2],
    "outputs": ["result"],
}  # fmt: skip


def capacity(size):
    return f"cluster.node.device.hbm.capacity={size}"


@cache
def asked(*words):
    scenario = from_mapping(SMALL, words)
    return scenario, simulation.run(scenario, False).summary


@cache
def found(*words):
    scenario, summary = asked(*words)
    assert not summary["feasible"]
    return advice(scenario, summary["step_time_s"])


CASES = {
    "a little": (capacity("13 GB"),), "much": (capacity("7 GB"),), "unequal": (capacity("13 GB"), "routing=sampled"),
    "a limit": ("limits.memory=11 GB",), "zb1p": (capacity("10 GB"), "schedule=zb1p"),
}  # fmt: skip


@pytest.mark.parametrize("words", CASES.values(), ids=list(CASES))
def test_every_change_does_what_it_says(words):
    """Run again with the change, as a user would, it fits, with that peak and step; fastest first, three at most."""
    _, before = asked(*words)
    told = found(*words)
    assert 1 <= len(told) <= ADVISED and [a["step_time_s"] for a in told] == sorted(a["step_time_s"] for a in told)
    for each in told:
        _, after = asked(*words, *each["change"])
        assert after["feasible"], each
        assert after["worst_memory"]["peak_bytes"] == each["peak_bytes"]
        assert after["step_time_s"] == each["step_time_s"]
        assert each["longer_s"] == pytest.approx(after["step_time_s"] - before["step_time_s"])
        assert after["tokens_per_step"] == before["tokens_per_step"], "the same work"


@pytest.mark.parametrize("words", CASES.values(), ids=list(CASES))
def test_no_change_has_a_part_that_is_not_needed(words):
    """Each with one word less does other work, does not fit, or takes longer by what is worth a word."""
    tokens = asked(*words)[1]["tokens_per_step"]
    for each in found(*words):
        for i in range(len(each["change"])):
            less = [word for j, word in enumerate(each["change"]) if j != i]
            try:
                _, without = asked(*words, *less)
            except Refused:  # a pair of words, such as a schedule and its placement
                continue
            longer = without["step_time_s"] > each["step_time_s"] * (1 + WON)
            assert without["tokens_per_step"] != tokens or not without["feasible"] or longer, each


LONG = ("batch.sequence_length=65536", "batch.sequences=16", "outputs=[result]")
"""Sequences whose attention takes so long that their activations travel to the host meanwhile."""


@pytest.mark.parametrize("host", ["1 TB", "90 GB"])
def test_activations_wait_on_the_host_where_it_has_room(host):
    """Of sequences of 64 K that is 5.8 s cheaper than to compute all again. What is cheap for its bytes is computed
    again beside it though it need not be, for what is not kept is not copied."""
    words = [*LONG, f"cluster.node.device.host.capacity={host}"]
    scenario = load("llama3_8b_one_node", words)
    told = advice(scenario, simulation.run(scenario, False).summary["step_time_s"])
    assert (told[0]["change"] == ["offload=1", "recompute={modules: [activation, norm]}"]) == (host == "1 TB")
    assert len({each["step_time_s"] for each in told}) == len(told) == ADVISED
    for each in told:
        after = simulation.run(load("llama3_8b_one_node", [*words, *each["change"]]), False).summary
        assert after["feasible"] and after["step_time_s"] == each["step_time_s"]


def test_more_memory_is_the_last_resort():
    """Sequences of which one layer is more than a GPU holds: only nodes with more memory do."""
    words = ["batch.sequence_length=131072", "batch.sequences=4096", "recompute=none", "states.moments=fp32"]
    scenario = load(SCENARIOS / "v3_2048gpu.yaml", [*words, "outputs=[result]"])
    told = advice(scenario, simulation.run(scenario, False).summary["step_time_s"])
    assert told and all(any(word.startswith("cluster.node=") for word in each["change"]) for each in told)


SHAPES = (
    (), ("schedule=zb1p",), ("schedule=dualpipe",), ("schedule=interleaved",), ("recompute=full",),
    ("recompute={layers: 2}", "schedule=dualpipev"), ("recompute={modules: [moe, mlp]}", "schedule=zb1p"),
    ("states.gradients=bf16", "optimizer.offload=host"),
)  # fmt: skip


@pytest.mark.parametrize("words", SHAPES, ids=" ".join)
def test_peaks_need_no_run(words):
    words = (*words, "placement=balanced")
    plan = lay_out(from_mapping(SMALL, words))
    assert peak_bytes(plan, assembly.unshared(plan)) == asked(*words)[1]["worst_memory"]["peak_bytes"]


def test_the_command_line_tells_it(tmp_path, capsys):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    words, advised = [str(tmp_path / "small.yaml"), "--out", str(tmp_path / "o"), "-q"], []
    for more in (CASES["a little"], ()):
        code, lines = main([*words, *more]), capsys.readouterr().err.splitlines()
        advised.append(json.loads((tmp_path / "o" / "result.json").read_text()).get("advice"))
        assert code == (1 if more else 0)
        assert [line.split(" fits: ")[0] for line in lines if line.startswith("advice: ")] == [
            f"advice: {' '.join(each['change'])}" for each in advised[-1] or ()
        ]
    assert advised[0] and advised[1] is None  # where nothing fits: tests/sim/analysis/test_feasible.py
