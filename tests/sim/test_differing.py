"""A run whose ranks differ: the column drawn, what it draws, and a fault of factor 1 that must change nothing."""

from functools import cache

import numpy as np
import pytest

from sim import assembly, simulation
from sim.analysis import spans
from sim.layout import plan
from sim.result.trace import LANES
from sim.scenario import Fault, from_mapping
from sim.step.template import STREAMS
from tests.figures import flat
from tests.oracles import timelines
from tests.oracles.timelines import crossings

TINY = {
    "name": "tiny",
    "cluster": {"node": "h800x8", "nodes": 2},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 2, "expert": 4},
    "schedule": "dualpipe",
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
    "detail": "layer",
    "outputs": ["result", "events"],
}
IDLE_FAULT = "faults=[{kind: gpu, at: 3, slower: 1}]"


@cache
def laid_out(*overrides):
    laid = plan.lay_out(from_mapping(TINY, overrides))
    return laid, assembly.machine(laid)


def run(*faults, overrides=()):
    return timelines.run(*laid_out(*overrides), *faults)


@cache
def result(*overrides):
    return simulation.run(from_mapping(TINY, overrides))


@pytest.mark.parametrize("slow", [0, 5, 9, 14])
def test_the_replica_shown_is_the_one_that_ends_last(slow):
    found = run(Fault("gpu", slow, 2.0))
    columns = found.timeline.columns
    last = [max(int(row[-1].ends[d]) for row in crossings(found.timeline, everyone=True)) for d in range(8)]
    shown = int(columns.first[found.column])
    assert last[shown] == max(last)
    assert shown // 4 == slow % 8 // 4, "somebody of the slow rank's group"


def test_what_is_drawn_is_that_column():
    """Steps, parts, messages and the optimizer of every position."""
    laid, _ = laid_out()
    found = run(Fault("gpu", 5, 1.5))
    timeline, column = found.timeline, found.column
    steps = spans.steps(laid, timeline, column)
    drawn = spans.spans(laid, found.lowered, timeline, column, "layer")[0]
    for position, rows in enumerate(crossings(timeline)):
        mine, inside = steps.of_position(position), drawn.of_position(position)
        norm, updated = timeline.update[position]
        assert mine.start.tolist() == [*(int(c.starts[column]) for c in rows), norm]
        assert mine.end.tolist() == [*(int(c.ends[column]) for c in rows), updated[column]]
        for lane in STREAMS:
            own = inside.where((inside.lane == lane) & (inside.sms >= 0))
            orders = [(c, i) for kit, c in zip(found.lowered.kits[position], rows, strict=True)
                      for i in kit.parts.order[lane]]  # fmt: skip
            assert own.start.tolist() == [int(c.segment_starts[i, column]) for c, i in orders]
            assert own.end.tolist() == [int(c.segment_ends[i, column]) for c, i in orders]
            assert own.start.tolist() == sorted(own.start.tolist()) and (own.end >= own.start).all()
        sent = inside.where(inside.lane == LANES.index("network"))
        carried = sorted((int(t.starts[column]), int(t.ends[column])) for t in timeline.network[position])
        assert list(zip(sent.start.tolist(), sent.end.tolist(), strict=True)) == [t for t in carried if t[1] > t[0]]
    assert timeline.end == max(int(updated.max()) for _, updated in timeline.update)


FAULTS = [
    (Fault("gpu", 5, 1.5),), (Fault("gpu", 0, 1.2), Fault("gpu", 8, 1.2)),
    (Fault("node", 1, 1.1), Fault("gpu", 2, 1.3)),
    (Fault("thermal", 6, 1.4, time_constant_ns=10**7), Fault("gpu", 13, 2.0, 10**7, 3 * 10**7)),
    (Fault("gpu", 4, 1.1), Fault("gpu", 5, 1.1)),
]  # fmt: skip


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("schedule", ["dualpipe", "zb1p", "1f1b"])
def test_folded_equals_unfolded_span_for_span(faults, schedule):
    """Every replica does what its column does; only faults of GPUs tell them apart here."""
    few, wide = (run(*faults, overrides=(f"schedule={schedule}", f"fold={fold}")) for fold in ("true", "false"))
    one, other = few.timeline, wide.timeline
    of = one.columns.of
    assert one.columns.columns < other.columns.columns == 8
    assert (one.columns.first[few.column], one.end, one.events) == (wide.column, other.end, other.events)
    for rows, others in zip(crossings(one, everyone=True), crossings(other), strict=True):
        for a, b in zip(rows, others, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    for sent, others in zip(one.network, other.network, strict=True):
        for a, b in zip(sent, others, strict=True):
            assert a[:2] == b[:2] and np.array_equal(a.starts[of], b.starts) and np.array_equal(a.ends[of], b.ends)
    for (norm, ends), (again, others) in zip(one.update, other.update, strict=True):
        assert norm == again and np.array_equal(ends[of], others)
    for a, b in zip(one.reduced, other.reduced, strict=True):
        assert np.array_equal(a[of], b)


def test_nothing_is_folded_where_more_than_faults_tells_replicas_apart():
    for faults, override in (((), "jitter=0.1"), ((Fault("gpu", 3, 1.5), Fault("link", 5, 2.0)), "fold=true"),
                             ((Fault("gpu", 3, 1.5),), "routing=sampled")):  # fmt: skip
        assert run(*faults, overrides=(override,)).timeline.columns.columns == 8


@pytest.mark.parametrize("faults", FAULTS)
def test_results_do_not_depend_on_folding(faults):
    written = "faults=[" + ", ".join(
        f"{{kind: {f.kind}, at: {f.at}, slower: {f.slower}}}" for f in faults if f.kind != "thermal"
    ) + "]"  # fmt: skip
    few, wide = (dict(result(written, f"fold={fold}").summary) for fold in ("true", "false"))
    for key in few.keys() - {"scenario_hash", "overrides"}:
        assert flat(few[key]) == pytest.approx(flat(wide[key]), rel=1e-12), key


def test_events_are_those_of_ranks_alike():
    """SimPy runs one rank a position, whatever comes to differ."""
    found, plain = run(Fault("gpu", 5, 1.5)), run()
    assert found.timeline.events == found.alike.events == plain.timeline.events > 0
    assert result("faults=[{kind: gpu, at: 5, slower: 1.5}]").summary["events"] == result().summary["events"]


def test_rows_are_the_extremes_that_were_drawn():
    from sim.routing.imbalance import loads_of

    chosen = ("routing=sampled",)
    said, rows = result(*chosen).summary["expert_rows"], loads_of(*laid_out(*chosen)).rows
    assert (said["smallest"], said["largest"]) == (rows.min(), rows.max())
    assert np.array_equal(run(overrides=chosen).loads.rows, rows) and run(Fault("gpu", 5, 1.5)).loads is None


def test_a_run_is_repeatable():
    one, two = (run(Fault("node", 1, 1.3), overrides=("routing=sampled",)).timeline for _ in range(2))
    assert one.end == two.end and one.events == two.events
    for rows, others in zip(crossings(one), crossings(two), strict=True):
        assert all(np.array_equal(x, y) for a, b in zip(rows, others, strict=True) for x, y in zip(a, b, strict=True))


# --- a fault of factor 1 ----------------------------------------------------------------------------------------------

SAME = ("1f1b", "dualpipe", "gpipe", "zb1p")


def close(one, two, where=""):
    """Equal, floats to rounding (means over replicas are summed in another order)."""
    if isinstance(one, dict):
        assert set(one) == set(two), where
        for key in one:
            close(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            close(a, b, f"{where}[{i}]")
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-9, abs=1e-12), where
    else:
        assert one == two, where


def unchanged(schedule):
    plain, idle = result(f"schedule={schedule}"), result(f"schedule={schedule}", IDLE_FAULT)
    odd = {
        "scenario_hash", "overrides", "waiting_for_peers_s", "critical_ranks", "shown_replica", "faults_without_effect",
        "pair_s", "communication_of",
    }  # fmt: skip
    close({k: v for k, v in plain.summary.items() if k not in odd},
          {k: v for k, v in idle.summary.items() if k not in odd})  # fmt: skip
    assert idle.summary["waiting_for_peers_s"] == 0
    pair = idle.summary["pair_s"]
    for name in ("seconds", "min", "max", "balanced_seconds"):
        assert pair[name] == pytest.approx(plain.summary["pair_s"]["seconds"], rel=1e-3), name
    bars = [{b.name: b.seconds for b in r.waterfall if abs(b.seconds) > 1e-12} for r in (plain, idle)]
    assert bars[1] == pytest.approx(bars[0], rel=1e-9, abs=1e-12)
    for name in ("steps", "spans"):
        a, b = getattr(plain, name), getattr(idle, name)
        for column in ("position", "lane", "start", "end", "layer", "micro_batch"):
            np.testing.assert_array_equal(getattr(a, column), getattr(b, column), f"{name}.{column}")
    for a, b in zip(plain.memory, idle.memory, strict=True):
        assert a.peak_bytes == b.peak_bytes


@pytest.mark.parametrize("schedule", SAME)
def test_a_fault_of_factor_one_changes_nothing(schedule):
    """Arrays and events, and two ways to keep the books: the same summary, spans, waterfall and memory."""
    unchanged(schedule)


def test_a_fault_of_factor_one_changes_nothing_with_chunks():
    """V3 on dualpipev: 21.1692 s becomes 21.1694 s."""
    unchanged("interleaved")


def test_nobody_is_named_for_a_fault_that_changes_nothing():
    s = result(IDLE_FAULT).summary
    assert s["critical_ranks"] == [] and s["faults_without_effect"] == ["faults[0]: changes nothing: slower is 1"]
    late = result("faults=[{kind: link, at: 3, slower: 9, start: 1 h}]").summary
    assert late["critical_ranks"] == [] and "it begins at 3600 s" in late["faults_without_effect"][0]


def test_one_slow_gpu_is_in_the_summary():
    s = result("faults=[{kind: gpu, at: 13, slower: 1.5}]").summary
    assert s["step_time_s"] > result().summary["step_time_s"]
    assert s["critical_ranks"][0]["rank"] == 13
    first = s["critical_ranks"][0]
    assert first["seconds"] > first["beyond_s"] > 0.9 * (s["step_time_s"] - result().summary["step_time_s"])
    assert first["part"] > 0.9
    assert {key: first[key] for key in ("rank", "pipeline_position", "replica", "node")} == {
        "rank": 13, "pipeline_position": 1, "replica": 5, "node": 1,
    }  # fmt: skip
    assert s["shown_replica"] in range(4, 8) and s["waiting_for_peers_s"] > 0
    assert "expert_rows" not in s and "faults_without_effect" not in s


def test_sampled_routing_says_its_rows():
    rows = result("routing=sampled").summary["expert_rows"]
    assert rows["smallest"] < rows["expected"] < rows["largest"]


# --- memory -----------------------------------------------------------------------------------------------------------


def test_redundant_experts_take_memory():
    """In proportion to the slots: weights, gradients of 64 experts, and of 80."""
    plain, more = (
        result(f"routing={{kind: sampled, redundant_experts: {n}}}").summary["peak_memory_bytes"] for n in (0, 16)
    )
    for a, b in zip(plain, more, strict=True):
        assert b["weights"] > a["weights"] and b["gradients"] > a["gradients"] and b["total"] > a["total"]
        assert b["weights"] < a["weights"] * 80 / 64


def test_the_rank_with_the_most_tokens_needs_the_most_memory():
    """Three fifths of what a MoE layer keeps for backward go by its load; micro-batches in flight average much away."""
    even, uneven = (result(f"routing={{kind: sampled, spread: {s}}}").summary["peak_memory_bytes"] for s in (0.0, 0.5))
    for part, more in (("activations", 1.01), ("communication buffers", 1.05)):
        assert max(r[part] for r in uneven) > more * max(r[part] for r in even)
    assert max(r["total"] for r in uneven) > max(r["total"] for r in even)
