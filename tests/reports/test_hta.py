"""HolisticTraceAnalysis, which nobody here wrote, reads our traces and finds the times that the spans say."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hwmodels.units import US_NS
from reports import chrome
from sim.result.trace import LANES, Trace
from tests.reports import sample

COMMUNICATION = ("communication", "network")
COPY = ("host",)
RANKS = (0, 5, 15)


def busy(spans: Trace, lanes: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """For each microsecond of the trace, whether a span of one of `lanes` runs in it."""
    depth = np.zeros(int(spans.end.max()) // US_NS + 2, dtype=np.int64)
    keep = np.isin(spans.lane, [LANES.index(lane) for lane in lanes])
    np.add.at(depth, spans.start[keep] // US_NS, 1)
    np.add.at(depth, spans.end[keep] // US_NS, -1)
    return np.cumsum(depth) > 0


def expected(spans: Trace) -> dict[str, float]:
    """Idle, compute and other busy microseconds from first to last span, and % of communication beside compute."""
    compute = busy(spans, tuple(lane for lane in LANES if lane not in (*COMMUNICATION, *COPY)))
    communication, everything = busy(spans, COMMUNICATION), busy(spans, LANES)
    length = int(spans.end.max()) // US_NS - int(spans.start.min()) // US_NS
    return {
        "idle_time(us)": length - int(everything.sum()),
        "compute_time(us)": int(compute.sum()),
        "non_compute_time(us)": int((everything & ~compute).sum()),
        "overlap": 100 * float((communication & compute).sum() / communication.sum()),
    }


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder: Path = tmp_path_factory.mktemp("trace")
    spans = sample.traces()[1]
    early = spans.where(np.isin(spans.position, RANKS) & (spans.start < 40 * sample.CHUNK_NS["F"]))
    late = spans.where(np.isin(spans.position, RANKS) & (spans.phase == sample.OPTIMIZER))
    columns = {n: np.concatenate([getattr(early, n), getattr(late, n)]) for n in Trace.COLUMNS}
    short = Trace(**columns, labels=spans.labels, prices=spans.prices)
    chrome.write(short, folder)
    analysis = pytest.importorskip("hta.trace_analysis")  # dear: not while tests are listed
    found = analysis.TraceAnalysis(trace_dir=str(folder))
    return found, short


def test_busy_and_idle_are_ours(trace: tuple[object, Trace]) -> None:
    table = trace[0].get_temporal_breakdown(visualize=False).set_index("rank")  # type: ignore[attr-defined]
    assert sorted(table.index) == list(RANKS)
    for rank in RANKS:
        want = expected(trace[1].of_position(rank))
        for name in ("idle_time(us)", "compute_time(us)", "non_compute_time(us)"):
            assert table.loc[rank, name] == pytest.approx(want[name], abs=1), (rank, name)


def test_overlap_is_ours(trace: tuple[object, Trace]) -> None:
    table = trace[0].get_comm_comp_overlap(visualize=False).set_index("rank")  # type: ignore[attr-defined]
    for rank in RANKS:
        want = expected(trace[1].of_position(rank))["overlap"]
        assert 0 < want < 100
        assert table.loc[rank, "comp_comm_overlap_pctg"] == pytest.approx(want, abs=0.01)


def test_kernel_breakdown_tells_the_kinds_apart(trace: tuple[object, Trace]) -> None:
    kinds, kernels = trace[0].get_gpu_kernel_breakdown(visualize=False, num_kernels=30)  # type: ignore[attr-defined]
    found = set(kinds["kernel_type"])
    assert {"COMPUTATION", "COMMUNICATION", "MEMORY"} <= found
    assert "ncclDevKernel_dispatch(F)" in set(kernels["name"])
