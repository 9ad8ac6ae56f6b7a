"""Levels of detail are drawings of one run: figures do not depend on them, and finer spans lie inside coarser ones."""

import numpy as np
import pytest

from sim import assembly
from sim.engine.lowering import lower
from sim.layout import plan
from sim.schedules.program import names
from sim.step.template import STREAMS, pieces

TIMES = (
    "step_time_s", "tokens_per_day", "gpu_hours_per_trillion_tokens", "phases_s", "phases_per_rank", "bubble_s",
    "bubble_fraction", "exposed_communication_s", "overlap_fraction", "price_shares", "peak_memory_bytes", "pair_s",
)  # fmt: skip


def timing(result):
    return {key: result.summary[key] for key in TIMES}


@pytest.mark.parametrize("detail", ["layer", "chunk"])
def test_v3(v3, detail):
    """The project asks for 0.5 %; under balanced routing nothing may differ at all."""
    assert timing(v3(f"detail={detail}")) == timing(v3("detail=op"))


@pytest.mark.parametrize("schedule", names())
@pytest.mark.parametrize("detail", ["layer", "chunk"])
def test_every_schedule(small, schedule, detail):
    coarse, fine = (small(f"schedule={schedule}", f"detail={d}") for d in (detail, "op"))
    assert timing(coarse) == timing(fine)
    for column in coarse.steps.COLUMNS:
        assert (getattr(coarse.steps, column) == getattr(fine.steps, column)).all(), column


def test_finer_is_more_rows(small):
    """The levels are really different drawings of one run."""
    runs = [small(f"detail={detail}") for detail in ("chunk", "layer", "op")]
    rows = [len(run.spans) for run in runs]
    assert rows == sorted(rows) and len(set(rows)) == 3
    assert len({run.summary["events"] for run in runs}) == 1


def test_layer_tasks_cover_their_kernels(small):
    """Every kernel of the op run lies inside the task of its part in the layer run, on the compute stream."""
    fine, coarse = (small(f"detail={detail}").spans for detail in ("op", "layer"))
    for rank in (0, 1):
        inner = fine.where((fine.position == rank) & (fine.lane == 0) & (fine.sms >= 0))
        outer = coarse.where((coarse.position == rank) & (coarse.lane == 0) & (coarse.sms >= 0))
        begin, end = outer.start.tolist(), outer.end.tolist()
        at = 0
        for start, stop in zip(inner.start.tolist(), inner.end.tolist(), strict=True):
            while end[at] < stop:
                at += 1
            assert begin[at] <= start <= stop <= end[at]


# --- ranks that differ ------------------------------------------------------------------------------------------------

UNEVEN = (
    "cluster.nodes=2", "parallel.expert=4", "routing={kind: sampled, spread: 0.4}", "jitter=0.05",
    "faults=[{kind: gpu, at: 5, slower: 1.5}, {kind: link, at: 9, slower: 8, start: 1 ms, every: 3 ms, lasts: 1 ms}]",
)  # fmt: skip
DETAILS = ("op", "layer", "chunk")


@pytest.mark.parametrize("schedule", names())
def test_figures_of_uneven_ranks_do_not_depend_on_detail(small, schedule):
    fine, *coarse = (small(f"schedule={schedule}", f"detail={detail}", *UNEVEN) for detail in DETAILS)
    told = {"detail", "scenario_hash", "overrides"}
    for other in coarse:
        assert {k: v for k, v in other.summary.items() if k not in told} == {
            k: v for k, v in fine.summary.items() if k not in told
        }
        assert other.waterfall == fine.waterfall
        for column in fine.steps.COLUMNS:
            assert (getattr(other.steps, column) == getattr(fine.steps, column)).all(), column
        for one, two in zip(other.memory, fine.memory, strict=True):
            assert (one.times == two.times).all() and one.peak_bytes == two.peak_bytes
        network, others = (run.spans.where(run.spans.lane == 3) for run in (fine, other))
        assert network.start.tolist() == others.start.tolist() and network.end.tolist() == others.end.tolist()
    assert fine.summary["waiting_for_peers_s"] > 0 and fine.summary["critical_ranks"]


@pytest.mark.parametrize("detail", DETAILS)
@pytest.mark.parametrize("schedule", names())
def test_spans_of_uneven_ranks_do_not_overlap_on_a_lane(small, schedule, detail):
    """Nor leave their steps."""
    result = small(f"schedule={schedule}", f"detail={detail}", *UNEVEN)
    for rank in (0, 1):
        steps = result.steps.of_position(rank)
        for lane in range(4):
            own = result.spans.where((result.spans.position == rank) & (result.spans.lane == lane))
            assert (own.end >= own.start).all() and (own.start[1:] >= own.end[:-1]).all()
            if lane in STREAMS and len(own):
                own = own.where(own.sms >= 0)
                within = np.searchsorted(steps.start, own.start, "right") - 1
                assert (own.end <= steps.end[within]).all()


def test_chunks_of_uneven_ranks_are_cut_where_outputs_leave(small):
    """Tasks of a step fill it, one after the other."""
    result = small("detail=chunk", *UNEVEN)
    for rank in (0, 1):
        own = result.spans.where((result.spans.position == rank) & (result.spans.sms >= 0))
        steps = result.steps.of_position(rank)
        steps = steps.where(steps.end > steps.start)
        assert set(own.lane.tolist()) == {0} and set(steps.start.tolist()) <= {*own.start.tolist()} | {steps.start[-1]}
        gaps = own.start[1:] != own.end[:-1]
        assert set(own.start[1:][gaps].tolist()) <= set(steps.start.tolist())
        assert set(own.end[:-1][gaps].tolist()) <= set(steps.end.tolist())


@pytest.mark.parametrize("schedule", names())
def test_kernels_of_uneven_ranks_keep_their_place_in_their_part(small, small_scenario, schedule):
    """A part that takes longer stretches its kernels and their launch gaps: each begins and ends where it does in the
    run of its kit, in proportion, to the nanosecond; the last ends with the part."""
    chosen = (f"schedule={schedule}", *UNEVEN)
    fine, coarse = (small(*chosen, f"detail={detail}").spans for detail in ("op", "layer"))
    laid = plan.lay_out(small_scenario(*chosen))
    stretched = 0
    for position, kits in enumerate(lower(laid, assembly.machine(laid)).kits):
        kernels, tasks = ([iter(rows_of(trace, position, lane)) for lane in STREAMS] for trace in (fine, coarse))
        for kit in kits:
            parts, drawn = {}, {}
            for lane, order in enumerate(kit.parts.order):
                parts |= {number: next(tasks[lane]) for number in order}
            for lane, order in enumerate(kit.fine.order):
                for segment in (kit.fine.segments[i] for i in order):
                    for i in range(segment.first, segment.stop):
                        drawn[lane, i] = next(kernels[lane])
            for number, piece in enumerate(pieces(kit.composition.phases)):
                own = [(kit.fine.segments[i].lane, k) for i in piece
                       for k in range(kit.fine.segments[i].first, kit.fine.segments[i].stop)]  # fmt: skip
                stretched += placed(kit, number, parts[number], {key: drawn[key] for key in own})
        assert not any(list(rest) for rest in (*kernels, *tasks))
    assert stretched > 100


def placed(kit, number, part, drawn):
    """Whether a part is drawn otherwise than it ran in its kit; its kernels are where they belong in any case."""
    (begun, done), (start, end) = kit.part_times[number], part
    for (lane, i), times in drawn.items():
        at, until = kit.timing.kernels[lane][i]
        for before, after in zip((at + kit.fine.gap_ns[lane][i], until), times, strict=True):
            exact = (before - begun) * (end - start) / (done - begun)
            assert exact - 1 < after - start <= exact + 1e-6
        assert start <= times[0] <= times[1] <= end
    assert max(times[1] for times in drawn.values()) == end
    return end - start != done - begun


def rows_of(trace, position, lane):
    own = trace.where((trace.position == position) & (trace.lane == lane) & (trace.sms >= 0))
    return list(zip(own.start.tolist(), own.end.tolist(), strict=True))
