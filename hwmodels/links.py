"""What messages, collectives and copies to the host take: bytes over effective bandwidths, and latencies."""

from collections.abc import Callable
from typing import Any

from hwmodels.collectives import Wires, collective_seconds, host_seconds, send_seconds
from hwmodels.device import Device
from hwmodels.op import Collective, HostCopy, HostUpdate, Send
from hwmodels.units import MICRO

RULES: dict[type, tuple[Callable[[Any, Wires], float], str]] = {
    Send: (send_seconds, "bytes over effective bandwidth, plus latency"),
    Collective: (collective_seconds, "ring over effective bandwidth, plus a hop latency a step"),
    HostCopy: (host_seconds, "bytes over effective PCIe bandwidth"),
}


def over_links(op: Send | Collective | HostCopy | HostUpdate, wires: Wires, device: Device) -> tuple[float, str, str]:
    """Microseconds, rung and source."""
    if isinstance(op, HostUpdate):
        us = op.size / device.host.bandwidth_bytes_per_s / MICRO
        return us, "roofline", "bytes over the bandwidth of host memory"
    seconds, source = RULES[type(op)]
    return seconds(op, wires) / MICRO, "roofline", source
