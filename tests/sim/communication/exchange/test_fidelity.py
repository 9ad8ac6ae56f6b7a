"""Exchanges at four fidelities, as scenarios ask for them: in order alone, the same beside compute, steps close by."""

from functools import cache

import numpy as np
import pytest

from hwmodels.document import DocumentError
from hwmodels.op import AllToAll
from sim import assembly, simulation
from sim.disturbances.exchanges import loaded_exchanges
from sim.layout import plan
from sim.layout.machine import Machine
from sim.models.layer import Unit
from sim.scenario import SCENARIOS, from_mapping, load

FIDELITIES = ("closed", "messages", "kernel", "events")
SMALL = {
    "cluster": {"node": "h800x8", "nodes": 2}, "model": {"base": "deepseek_v2_lite", "layers": 8},
    "parallel": {"pipeline": 2, "expert": 8}, "schedule": "1f1b", "batch": {"micro_batches": 8}, "outputs": ["result"],
}  # fmt: skip


@cache
def machine(fidelity: str, *more: str) -> Machine:
    path = str(SCENARIOS / "v3_2048gpu.yaml")
    return assembly.machine(plan.lay_out(load(path, ["outputs=[result]", f"comm.exchange={fidelity}", *more])))


def exchanges(found: Machine) -> dict[str, AllToAll]:
    """V3's four, by name."""
    parts = [part for direction in "FB" for part in found.parts(Unit("moe", 0), direction)]
    ops = [kernel.op for part in parts for kernel in part.kernels]
    return {op.beside: op for op in ops if isinstance(op, AllToAll)}


def test_no_fidelity_is_below_the_closed_form_and_all_are_near_it() -> None:
    assert set(exchanges(machine("kernel"))) == {"dispatch(F)", "combine(F)", "dispatch(B)", "combine(B)"}
    for op in exchanges(machine("kernel")).values():
        closed, *others = (machine(fidelity).pricer.price(op).ns for fidelity in FIDELITIES)
        assert closed < min(others) and max(others) < 1.08 * closed


def test_beside_compute_all_take_what_was_measured() -> None:
    """The stretch is over whatever takes an exchange's place alone, so that its time in situ stays."""
    for op in exchanges(machine("kernel")).values():
        found = [machine(fidelity).pricer.price(op).beside_ns for fidelity in FIDELITIES]
        assert max(found) - min(found) <= 2


def test_a_step_of_v3_hardly_asks() -> None:
    """At 20 SMs the NIC binds: fill and drain of what nothing hides are 0.4 % of the step."""
    path, changes = str(SCENARIOS / "v3_2048gpu.yaml"), ["outputs=[result]", "detail=chunk"]
    closed, *others = (
        simulation.run(load(path, [*changes, f"comm.exchange={fidelity}"]), False).summary["step_time_s"]
        for fidelity in FIDELITIES
    )
    assert closed < min(others) and max(others) < 1.004 * closed


@pytest.mark.parametrize("name", ["dispatch(F)", "combine(F)"])
def test_loads_that_differ_are_felt_alike(name: str) -> None:
    """Where links bind: to what reaches a node in full, to what a rank receives once NVLink is the slower, here
    one over which copies reach no more than what warps store."""
    slow = "cluster.node.nvlink.efficiency=0.656"
    found = [loaded_exchanges(machine(fidelity, slow))[name] for fidelity in FIDELITIES]
    for each in found[1:]:
        assert each.reached == pytest.approx(found[0].reached, rel=0.06)
        assert each.received == pytest.approx(found[0].received, rel=0.06)
        assert (np.diff(each.received) >= 0).all() and (np.diff(each.reached) > 0).all()


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_few_sms_slow_the_kernels_alone(fidelity: str) -> None:
    pricer = machine(fidelity).pricer
    for op in exchanges(machine(fidelity)).values():
        two, twenty = (pricer.exchange(op, pricer.wires, sms) for sms in (2, 20))
        assert two > 2 * twenty if fidelity in ("kernel", "events") else two == twenty


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("change", ["parallel.expert=1", "routing=sampled", "faults=[{kind: link, at: 3, slower: 2}]"])
def test_all_kinds_of_runs_have_them(fidelity: str, change: str) -> None:
    """A group of one rank has nothing to send, and no price of nothing is divided by."""
    assert simulation.run(from_mapping(SMALL, (f"comm.exchange={fidelity}", change)), False).summary["step_time_s"] > 0


@pytest.mark.parametrize(("changes", "line"), [
    (["comm.exchange=mesages"], "found 'mesages', did you mean 'messages'? legal: kernel, events, messages, closed"),
    (["comm.warps=folow"], "found 'folow', did you mean 'follow'? legal: follow, fixed"),
    (["comm.exchange=closed", "comm.sms=0"], "closed knows no SMs; 0 SMs are copy engines instead of the kernel"),
    (["comm.exchange=closed", "comm.sms=2"], "found 2; closed takes links at their full rate, which takes 20 SMs or m"),
    (["comm.exchange=messages", "comm.sms=18"], "for fewer write comm.exchange=kernel"),
    (["comm.sms=0", "comm.warps=fixed"], "copy engines (comm.sms 0) have no warps; legal: comm.sms 2 or more"),
    (["comm.hold=running"], "did you mean 'while_running'? legal: always, while_running"),
    (["comm.exchange=messages", "comm.warps=fixed"], "only kernel and events have warps; found comm.exchange messages"),
])  # fmt: skip
def test_words_that_do_not_go_together_are_told(changes: list[str], line: str) -> None:
    with pytest.raises(DocumentError) as refused:
        from_mapping(SMALL, changes)
    assert line in str(refused.value) and str(refused.value).count("\n") == 0
