"""What messages, collectives and copies to the host take: by NCCL, or bytes over effective bandwidths and latencies."""

from collections.abc import Callable
from typing import Any

from hwmodels.collectives import Wires, collective_seconds, host_seconds, send_seconds
from hwmodels.device import Device
from hwmodels.nccl.library import Library
from hwmodels.op import Collective, HostCopy, HostUpdate, Send
from hwmodels.units import MICRO

RULES: dict[type, tuple[Callable[[Any, Wires], float], str]] = {
    Send: (send_seconds, "bytes over effective bandwidth, plus latency"),
    Collective: (collective_seconds, "ring over effective bandwidth, plus a hop latency a step"),
    HostCopy: (host_seconds, "bytes over effective PCIe bandwidth"),
}
PUBLISHED = 0.09
"""Relative spread of a closed form over published bandwidths: three times that of a measured price."""

Op = Send | Collective | HostCopy | HostUpdate


def over_links(op: Op, wires: Wires, device: Device, nccl: Library | None = None) -> tuple[float, str, str, float]:
    """Microseconds, rung, source and spread."""
    if isinstance(op, HostUpdate):
        us = op.size / device.host.bandwidth_bytes_per_s / MICRO
        return us, "roofline", "bytes over the bandwidth of host memory", PUBLISHED
    if nccl and isinstance(op, Collective | Send):
        return _taken(nccl, op, wires)
    seconds, source = RULES[type(op)]
    return seconds(op, wires) / MICRO, "roofline", source, PUBLISHED


def _taken(nccl: Library, op: Collective | Send, wires: Wires) -> tuple[float, str, str, float]:
    """By NCCL; across NVLink domains it was not measured one by one."""
    taken = nccl.take(op, wires)
    far = op.leaves_node if isinstance(op, Send) else op.nodes > 1
    source = f"NCCL on {nccl.architecture} (hwmodels/nccl): {taken.way}, {taken.sms} SMs"
    return taken.seconds / MICRO, "held" if far else "interpolated", source, taken.spread
