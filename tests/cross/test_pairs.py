"""Expert exchanges beside another micro-batch, where a scenario asks for it: hidden, dearer in memory, never stuck."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from hwmodels.refused import Refused
from sim.analysis.notes import notes
from sim.experiments.unfelt import unfelt

ON = "overlap.expert=true"
SMALL = ("model.layers=8", "outputs=[result]")
LITE = {  # name of a layout -> scenario and words, of V2-Lite with eight layers
    "no pipeline": ("v2_lite_one_node", *SMALL, "batch.sequences=64"),
    "1f1b": ("v2_lite", *SMALL, "schedule=1f1b", "batch.sequences=1024"),
    "interleaved": ("v2_lite", *SMALL, "schedule={name: interleaved, chunks: 2}", "batch.sequences=1024"),
}


def run(name, *more):
    scenario, *words = LITE[name]
    return sim.run(sim.load(scenario, [*words, *more]), interval=False)


@pytest.mark.parametrize("name", LITE)
def test_exchanges_hide_behind_another_micro_batch(name):
    plain, paired = (run(name, *more).summary for more in ((), (ON,)))
    assert paired["step_time_s"] < plain["step_time_s"]
    assert paired["exposed_communication_s"] < 0.4 * plain["exposed_communication_s"]
    assert plain["phases_s"]["overlapped"] == 0 < paired["phases_s"]["overlapped"]
    assert paired["worst_memory"]["peak_bytes"] > plain["worst_memory"]["peak_bytes"]
    assert run(name, "overlap.expert=false").summary["step_time_s"] == plain["step_time_s"]


def test_without_a_pipeline_two_micro_batches_are_alive():
    """The first forward and the last backward are alone; each pair between takes as long as the last."""
    plain, paired = (run("no pipeline", *more).summary["peak_memory_bytes"][0] for more in ((), (ON,)))
    assert paired["activations"] == 2 * plain["activations"]
    steps = [run("no pipeline", ON, f"batch.sequences={8 * n}").summary["step_time_s"] for n in (2, 3, 9)]
    assert steps[2] - steps[1] == pytest.approx(6 * (steps[1] - steps[0]), rel=1e-9)
    one = [run("no pipeline", *more, "batch.sequences=8").summary["step_time_s"] for more in ((), (ON,))]
    assert one[0] == one[1]


def test_kernels_of_such_pairs_hold_sms_while_they_run():
    """Megatron's; DeepSeek's hold them always."""
    assert run("1f1b", ON).summary["comm"]["hold"] == "while_running"
    always = run("1f1b", ON, "comm.hold=always").summary
    assert always["comm"]["hold"] == "always" and always["step_time_s"] > run("1f1b", ON).summary["step_time_s"]
    assert run("1f1b", "schedule=dualpipev", ON).summary["comm"]["hold"] == "always"


def test_v3_on_1f1b():
    """A tenth of the step, and more activations than 80 GB hold; interleaved stages hold them."""
    words = ("outputs=[result]", "schedule=1f1b")
    plain, paired = (sim.run("v3_2048gpu", [*words, *more], interval=False).summary for more in ((), (ON,)))
    assert 0.88 < paired["step_time_s"] / plain["step_time_s"] < 0.92
    assert paired["overlap_fraction"] > 0.9 > 0.5 > plain["overlap_fraction"]
    assert plain["feasible"] and not paired["feasible"]
    stages = ("schedule={name: interleaved, chunks: 2}", "batch.sequences=16384", "outputs=[result]")
    assert sim.run("v3_2048gpu", [*stages, ON], interval=False).summary["feasible"]


CHUNKS = {"forward": "3 ms", "backward_input": "4 ms", "weight": "2 ms", "overlapped": "7 ms", "p2p": "0 ms"}


@given(
    st.sampled_from(["1f1b", "interleaved"]), st.integers(1, 8), st.integers(1, 6), st.integers(0, 7),
    st.sampled_from(["hidden", "waited"]),
)  # fmt: skip
def test_no_size_gets_stuck(name, pipeline, groups, more, messages):
    micro_batches = pipeline * groups + (more if name == "1f1b" else 0)
    document = {"schedule": name, "parallel": {"pipeline": pipeline}, "batch": {"micro_batches": micro_batches},
                "chunk_times": CHUNKS, "comm": {"messages": messages}, "overlap": {"expert": True}}  # fmt: skip
    step = sim.run(document).summary["step_time_s"]
    if name == "1f1b" and micro_batches >= 2 * pipeline:
        assert step == pytest.approx(pipeline * 0.009 + (micro_batches - 1) * 0.007)
    if name == "interleaved":
        pairs = 2 * micro_batches - pipeline - 1
        assert step == pytest.approx(2 * pipeline * 0.009 + pairs * 0.007)


@pytest.mark.parametrize(("schedule", "expert", "line"), [
    ("zb1p", "true", "zb1p runs no forward beside a backward; those that can: 1f1b, dualpipe, dualpipev, interleaved"),
    ("gpipe", "true", "gpipe runs no forward beside a backward"),
    ("dualpipe", "false", "dualpipe always runs forwards beside backwards; leave it out, or take another schedule"),
    ("dualpipev", "false", "dualpipev always runs forwards beside backwards"),
])  # fmt: skip
def test_schedules_that_cannot_are_refused(schedule, expert, line):
    with pytest.raises(Refused, match=f"overlap.expert.*{line}"):
        sim.load("v3_2048gpu", [f"schedule={schedule}", f"overlap.expert={expert}"])


def test_what_changes_nothing_is_told():
    def told(name, *words):
        return [line for line in notes(sim.load(name, [*words, ON]), {}, words) if line.startswith("overlap")]

    always = "overlap.expert changes nothing: dualpipe always runs forwards beside backwards"
    assert list(unfelt(sim.load("v3_2048gpu", [ON]))) == [always]
    assert told("v3_2048gpu", "schedule=1f1b") == []
    nothing = ["overlap.expert: nothing is exchanged, so pairs hide nothing, and more activations are kept"]
    assert told("llama3_8b_one_node") == told("v2_lite_one_node", "parallel.expert=1") == nothing
    v3 = sim.load("v3_2048gpu", [ON])
    assert sim.run(v3, interval=False).summary["step_time_s"] == pytest.approx(17.784, abs=1e-3)
