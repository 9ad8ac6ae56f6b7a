"""SMs that communication holds: always, or while a kernel of it runs; none where nothing is exchanged."""

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from sim import simulation
from sim.result.trace import LANES
from sim.scenario import load

SCENARIOS = Path(__file__).parents[2] / "scenarios"
V3 = ("model.layers=16", "cluster.nodes=64", "parallel.pipeline=4", "batch.sequences=3072")
LITE, DENSE = ("batch.sequences=576",), ("model.dense_layers=16", "model.mtp_depth=0")
WHERE = {
    "1f1b": ("v3_2048gpu", *V3, "schedule=1f1b"), "zb1p": ("v3_2048gpu", *V3, "schedule=zb1p"),
    "gpipe": ("v3_2048gpu", *V3, "schedule=gpipe"), "lite": ("v2_lite", *LITE),
    "dualpipe": ("v3_2048gpu", *V3, "schedule=dualpipe"), "dualpipev": ("v3_2048gpu", *V3, "schedule=dualpipev"),
}  # fmt: skip
OVERLAPPED = ("dualpipe", "dualpipev")


@cache
def run(name, *more):
    file, *words = WHERE[name]
    return simulation.run(load(str(SCENARIOS / f"{file}.yaml"), ["outputs=[result]", *words, *more]), False)


def step(name, *more):
    return run(name, *more).summary["step_time_s"]


@pytest.mark.parametrize("name", WHERE)
def test_always_is_the_default_where_the_schedule_overlaps(name):
    """As in DeepSeek's profile, whose products leave 20 SMs also while no exchange runs."""
    default, hold = run(name).summary, "always" if name in OVERLAPPED else "while_running"
    assert default["comm"] == {"sms": 20, "hold": hold}
    assert default["step_time_s"] == step(name, f"comm.hold={hold}")


@pytest.mark.parametrize("name", WHERE)
def test_held_while_running_lies_between_always_and_never(name):
    """The exchanges of copy engines (comm.sms=0) are faster as well, so that never is a bound."""
    words = ("comm.hold=always", "comm.hold=while_running", "comm.sms=0")
    always, running, never = (step(name, word) for word in words)
    assert never < running < always


@pytest.mark.parametrize("name", WHERE)
def test_kernels_by_themselves_have_all_sms(name):
    """What they take alone is what they take where no SM is held; the rest is contention, where anything overlaps."""
    running, never = (run(name, word).waterfall for word in ("comm.hold=while_running", "comm.sms=0"))
    bars = [{bar.name: bar.seconds for bar in result} for result in (running, never)]
    for bar in ("product efficiency", "memory-bound kernels", "launch gaps"):
        assert bars[0][bar] == pytest.approx(bars[1][bar], rel=1e-9)
    assert bars[0].get("contention", 0.0) >= bars[1].get("contention", 0.0)  # zb1p runs nothing beside an exchange


@pytest.mark.parametrize(("name", "more"), [
    ("lite", ("parallel.expert=1",)), ("1f1b", ("parallel.expert=1",)),
    ("1f1b", DENSE), ("dualpipe", DENSE),
])  # fmt: skip
def test_where_nothing_is_exchanged_no_sm_is_held(name, more):
    """A rank that is its own expert group, and a model whose layers are all dense; however SMs would be held."""
    words = ("", "comm.hold=always", "comm.hold=while_running", "comm.sms=0", "comm.sms=64")
    results = [run(name, *more, *([word] if word else [])).summary for word in words]
    assert len({summary["step_time_s"] for summary in results}) == 1
    assert {(summary["comm"]["sms"], summary["comm"]["hold"]) for summary in results} == {(0, None)}


@pytest.mark.parametrize("name", ["lite", "zb1p"])
def test_ranks_that_are_carried_one_by_one_agree(name):
    """Arrays and events price what runs beside what alike."""
    assert step(name, "fold=false") == step(name)


def test_spans_say_how_many_sms_compute_has_alone():
    lane = LANES.index("compute")
    for word, sms in product(["always", "while_running"], [112, 132]):
        spans = run("lite", "outputs=[trace]", f"comm.hold={word}", "detail=op").spans
        assert (sms == (112 if word == "always" else 132)) == (sms in np.unique(spans.sms[spans.lane == lane]))


def test_the_table_of_the_page_is_what_runs_say():
    text = (SCENARIOS.parent / "docs" / "COMM_SMS.md").read_text(encoding="utf-8").replace("**", "")
    zero_bubble, one_by_one = ("v3_2048gpu", "schedule=zb1p"), ("v3_2048gpu", "schedule=1f1b")
    rows = {"V3, DualPipe": ("v3_2048gpu",), "V3, 1F1B": one_by_one, "V3, ZB1P": zero_bubble}
    for row, (file, *words) in (rows | {"V2-Lite, ZB1P": ("v2_lite",)}).items():
        cells = []
        for word in ("comm.hold=always", "comm.hold=while_running", "comm.sms=0"):
            scenario = load(str(SCENARIOS / f"{file}.yaml"), [*words, word, "outputs=[result]"])
            cells.append(f"{simulation.run(scenario, False).summary['step_time_s']:.4g} s")
        assert f"| {row} | {' | '.join(cells)} |" in text
