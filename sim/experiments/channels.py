"""Exchanges of a scenario from inside: one channel of each, role by role, by the fidelity that runs them as events."""

from collections.abc import Iterator

from hwmodels.collectives import Wires
from hwmodels.op import AllToAll
from hwmodels.units import NS_PER_S
from sim import assembly
from sim.communication.exchange import closed, kernel
from sim.communication.exchange.events import cargo, group
from sim.communication.exchange.events.record import Watch
from sim.communication.exchange.events.setting import Setting
from sim.communication.exchange.ports import of_op
from sim.layout.plan import lay_out
from sim.result.curves import ChannelLanes
from sim.scenario.values import Scenario


def channels(scenario: Scenario) -> list[ChannelLanes]:
    """Of every exchange of a layer, alone, loads even. Raises Refused."""
    machine = assembly.machine(lay_out(scenario))
    pricer = machine.pricer
    setting = Setting(pricer.wires.alone, pricer.comm_sms, scenario.comm.warps)
    parts = [part for unit in machine.routed_sorts for direction in "FB" for part in machine.parts(unit, direction)]
    ops = dict.fromkeys(k.op for part in parts for k in part.kernels if isinstance(k.op, AllToAll))
    return [_channel(op, setting) for op in ops]


def _channel(op: AllToAll, setting: Setting) -> ChannelLanes:
    watch = Watch()
    timing = group.run([cargo.even(op)], setting, record=watch)[0]
    start, seen = timing.start, watch.lanes()
    spans = [(lane.role, a - start, b - start, "") for lane in seen.lanes for a, b in lane.worked]
    spans += [(lane.role, a - start, b - start, why) for lane in seen.lanes for a, b, why in lane.waited]
    flying = {link: tuple((time - start, rows) for time, rows in points) for link, points in seen.flying.items()}
    room = {link: max(rows for _, rows in points) for link, points in flying.items()}
    figures = tuple(_figures(op, setting.links, setting, timing))
    roles = tuple(lane.role for lane in seen.lanes)
    return ChannelLanes(op.beside, timing.ns, figures, roles, tuple(sorted(spans, key=_start)), flying, room)


def _start(span: tuple[str, int, int, str]) -> tuple[int, str]:
    return span[1], span[0]


def _figures(op: AllToAll, links: Wires, setting: Setting, timing: group.Timing) -> Iterator[tuple[str, float | str]]:
    ports = of_op(op)
    recurrence = kernel.run(ports, links, setting.sms, setting.copy, setting.warps)
    alone_s = timing.ns / NS_PER_S
    yield "alone, as events", alone_s
    yield "by the recurrence", recurrence.seconds
    yield "the recurrence is off by", f"{recurrence.seconds / alone_s - 1:+.1%}"
    yield "bandwidth bound", float(closed.bound_s(ports, links).max())
    yield "barrier before it", timing.barrier / NS_PER_S
    yield "busiest, by the recurrence", recurrence.limited_by
    yield "channels of two SMs", f"{min(setting.channels, op.tokens)}"
