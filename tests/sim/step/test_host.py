"""Host-bound launching: no kernel starts before its launch, and a fast host changes nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.node import Launch
from hwmodels.op import small
from sim.engine.alone import alone
from sim.models.layer import COMMUNICATION, COMPUTE, WEIGHT, Kernel
from sim.step import host, inside
from sim.step.overlap import Phase

US = 1000
LAUNCH = Launch(10e-6, 20e-6)


def phase(kernels: list[Kernel], needs: tuple[int, ...] = (), half: str = "F", lane: int = COMPUTE) -> Phase:
    return Phase("part", 0, half, lane, tuple(kernels), needs, "", 0)


def kernel(work: float = 1.0, waits: bool = False) -> Kernel:
    return Kernel("k", small("tiny"), host=work, waits=waits)


def test_short_kernels_come_as_fast_as_they_are_launched() -> None:
    (waits,) = host.waits([phase([kernel()] * 4)], [[2 * US] * 4], [[US] * 4], LAUNCH)
    assert waits == [9 * US, 8 * US, 8 * US, 8 * US]  # a launch each 10 us, kernels of 1 us behind a gap of 1 us


def test_a_long_kernel_lets_the_host_run_ahead() -> None:
    (waits,) = host.waits([phase([kernel()] * 4)], [[100 * US, 2 * US, 2 * US, 2 * US]], [[US] * 4], LAUNCH)
    assert waits == [9 * US, 0, 0, 0]


def test_backward_has_its_own_pace_and_operations_their_own_work() -> None:
    (waits,) = host.waits([phase([kernel(2.0), kernel(0.0)], half="B")], [[US, US]], [[0, 0]], LAUNCH)
    assert waits == [40 * US, 0]


def test_a_host_that_waits_for_the_gpu_begins_again_there() -> None:
    kernels = [kernel(waits=True), kernel()]
    (waits,) = host.waits([phase(kernels)], [[50 * US, US]], [[0, 0]], LAUNCH)
    assert waits == [10 * US, 10 * US]


PHASES = st.lists(
    st.tuples(
        st.sampled_from([COMPUTE, COMMUNICATION, WEIGHT]), st.sampled_from("FBW"),
        st.lists(st.tuples(st.integers(1, 60 * US), st.integers(0, 5 * US), st.floats(0, 3)), min_size=1, max_size=5),
        st.integers(0, 2**6 - 1),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@given(PHASES)
def test_no_kernel_starts_before_its_launch_and_a_fast_host_changes_nothing(drawn: Any) -> None:
    phases = [
        phase([kernel(work) for _, _, work in kernels], tuple(j for j in range(i) if needs >> j & 1), half, lane)
        for i, (lane, half, kernels, needs) in enumerate(drawn)
    ]
    holds, gaps = (
        [[row[0] + row[1] for row in each[2]] for each in drawn],
        [[row[1] for row in each[2]] for each in drawn],
    )
    waits = host.waits(phases, holds, gaps, LAUNCH)
    launched, free, ends = 0, {}, []
    for each, hold, gap, wait in zip(phases, holds, gaps, waits, strict=True):
        at = max([free.get(each.lane, 0), *(ends[j] for j in each.needs)])
        for one, ns, before, more in zip(each.kernels, hold, gap, wait, strict=True):
            launched += round(one.host * (10 if each.half == "F" else 20) * US)
            assert at + more + before >= launched and (not more or at + more + before == launched)
            at += more + ns
        free[each.lane] = at
        ends.append(at)
    assert not any(any(row) for row in host.waits(phases, holds, gaps, Launch(0.0, 0.0)))


@pytest.mark.parametrize("stack", ["torch", "deepseek", {"name": "torch", "cuda_graphs": True}])
def test_only_a_stack_that_launches_waits_and_arrays_equal_events(stack: Any) -> None:
    from sim.assembly import machine
    from sim.engine.lowering import lower
    from sim.layout.plan import lay_out
    from sim.scenario import from_mapping
    from sim.validation.torch_steps import runs, scenario

    run = next(run for run in runs() if run["name"] == "sm_24L_1k1") | {"layers": 2}
    plan = lay_out(from_mapping(scenario(run) | {"stack": stack}))
    own = machine(plan)
    assert (own.pricer.host is not None) == (stack == "torch")
    for kit in lower(plan, own).known:
        timing, template = alone(kit.fine), kit.fine
        durations = np.array(template.lasts)[:, None]
        starts, ends, _ = inside.cross(template, np.zeros(1, dtype=np.int64), durations, lambda at, whom: at)
        assert [tuple(row) for row in np.stack([starts, ends], axis=-1)[:, 0].tolist()] == list(timing.segments)
        slow = replace(own.pricer, host=None)
        assert all(gap >= slow.launch_gap_ns for lane in template.gap_ns for gap in lane)
        assert any(gap > slow.launch_gap_ns for lane in template.gap_ns for gap in lane) == (stack == "torch")
