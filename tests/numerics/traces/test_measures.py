"""Busy and idle times: each device on its own, and parts that add up to the whole, by hand and for any kernels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics.traces import rules
from numerics.traces.importer import Analysis, analyse
from numerics.traces.summary import idle, overlap
from numerics.traces.trace import read_trace
from tests.numerics.traces.made import Event, kernel, launched, properties, write

GEMM, REDUCE, BARRIER = "my_bf16_gemm", "ncclDevKernel_AllReduce_Sum_bf16", "void deep_ep::barrier<8>(int**)"
US = 1000


def analysed(folder: Path, events: list[Event], device: str = "", **head: object) -> Analysis:
    trace = read_trace(write(folder, events, **head))
    return analyse(trace.of_device(device) if device else trace, rules.load("torch"))


def test_two_devices_are_measured_alone_over_the_same_time(tmp_path: Path) -> None:
    """Device 0 is busy 100 to 200, device 1 200 to 300: a union would be busy for all of the time."""
    events = launched(GEMM, 100, 100, 1) + launched(GEMM, 200, 100, 2, device=1)
    found = analysed(tmp_path, events, deviceProperties=properties("H100", "H100"))
    assert [(d.label, d.name, d.kernels) for d in found.devices] == [("0", "H100", 1), ("1", "H100", 1)]
    for device in found.devices:
        o = device.overlap
        assert (o.total, o.compute, o.idle) == (200 * US, 100 * US, 100 * US)
    assert found.device == "H100" and found.kernels == 2
    (alone,) = analysed(tmp_path, events, "1").devices
    assert (alone.label, alone.overlap.total, alone.overlap.idle) == ("1", 100 * US, 0)


def test_communication_of_one_device_is_beside_nothing_of_another(tmp_path: Path) -> None:
    events = launched(GEMM, 100, 100, 1) + launched(REDUCE, 100, 100, 2, device=1, stream=20)
    both = analysed(tmp_path, events)
    assert {op.kind: op.beside for op in both.operations} == {"gemm_bf16": (0.0,), "comm_data": (1.0,)}
    first, second = (d.overlap for d in both.devices)
    assert (first.compute, first.data, first.data_exposed) == (100 * US, 0, 0)
    assert (second.compute, second.data, second.data_exposed) == (0, 100 * US, 100 * US)
    one = analysed(tmp_path, launched(GEMM, 100, 100, 1) + launched(REDUCE, 100, 100, 2, stream=20))
    assert {op.kind: op.beside for op in one.operations} == {"gemm_bf16": (1.0,), "comm_data": (1.0,)}
    assert one.devices[0].overlap.data_exposed == 0


def test_ranks_merged_into_one_file_are_devices_of_their_own(tmp_path: Path) -> None:
    events = [kernel(GEMM, 100 + 50 * rank, 100, pid=f"rank {rank}") for rank in range(3)]
    found = analysed(tmp_path, events)
    assert [d.label for d in found.devices] == ["0@rank 0", "0@rank 1", "0@rank 2"]
    assert [d.overlap.idle for d in found.devices] == [100 * US] * 3


runs = st.lists(
    st.tuples(st.sampled_from((GEMM, REDUCE, BARRIER, "my_own_thing")), st.integers(0, 300), st.integers(0, 60),
              st.sampled_from((0, 3)), st.sampled_from((7, 20))),
    min_size=1, max_size=30,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(runs)
def test_the_parts_add_up_to_the_whole(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[tuple[str, int, int, int, int]]
) -> None:
    """Of each device: compute, communication and waits alone, and idle are all of the time; short and long gaps are all
    of idle, counted on a time line of microseconds."""
    events = [kernel(name, ts, dur, device=device, stream=stream) for name, ts, dur, device, stream in chosen]
    found = analysed(tmp_path_factory.mktemp("sum"), events)
    begin, end = min(ts for _, ts, *_ in chosen), max(ts + dur for _, ts, dur, *_ in chosen)
    for device in found.devices:
        line = np.zeros(end - begin, bool)
        for _, ts, dur, number, _ in chosen:
            if str(number) == device.label:
                line[ts - begin : ts - begin + dur] = True
        o = overlap(device.overlap) | idle(device.overlap)
        assert o["total"] == end - begin and o["idle"] == int((~line).sum())
        assert o["idle_gaps_total"] + o["idle_waits_total"] == o["idle"]
        assert (device.overlap.idle_gaps > 0).all() and o["on_communication_alone"] >= 0
        alone = o["comm_data_exposed"] + o["comm_sync_exposed"] + o["on_communication_alone"]
        assert o["compute_busy"] + alone + o["idle"] == o["total"]
    assert sum(d.kernels for d in found.devices) == len(chosen)
