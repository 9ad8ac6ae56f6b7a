"""Dispatch and combine as the warp-specialised kernels that drive them.

Dispatch: warps pack tokens and post network transfers, warps forward what arrives over NVLink, warps receive. Combine
is the reverse, with reduction where paths meet. How many warps play a role follows its load at each rank, or is fixed
(`sim.exchange.roles`). Chunks of rows pass these stages; each channel of two SMs is a server
of the stages that warps run, and the rank's NIC and NVLink port serve the chunks of all channels one by one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwmodels.collectives import Wires
from sim.exchange import closed
from sim.exchange.line import Stage, finish_s
from sim.exchange.ports import Ports, Rows
from sim.exchange.roles import (
    COPY,
    FOLLOW,
    INTRANODE,
    PUT_S,
    SMS_PER_CHANNEL,
    Buffers,
    Copy,
    Warps,
    buffers,
    combining,
    dispatching,
)

WHOLE_BLOCK = np.array([INTRANODE])
"""Of either SM of a channel inside one node."""


@dataclass(frozen=True, eq=False)
class Timing:
    """One exchange, alone. rank_s: until each rank's line is through [ranks]. barrier_s: the group's meeting before it.

    bound_s: of each rank's ports [ranks]. busy_s: of the stages of the slowest rank, in order, a server's share.
    channels: of two SMs. chunks: of the rank.
    """

    rank_s: npt.NDArray[np.float64]
    barrier_s: float
    bound_s: npt.NDArray[np.float64]
    busy_s: dict[str, float]
    channels: int
    chunks: int

    @property
    def seconds(self) -> float:
        """Of the kernel: its slowest rank."""
        return float(self.rank_s.max())

    @property
    def limited_by(self) -> str:
        """The stage that is busy longest."""
        return max(self.busy_s, key=lambda name: self.busy_s[name])


@dataclass(frozen=True, eq=False)
class Work:
    """A rank's rows cut into `chunks`. channels: that work on them. pace: 1, or 2 when one SM plays all roles. roles:
    how warps are given to them, FOLLOW or FIXED."""

    ports: Ports
    links: Wires
    copy: Copy
    channels: int
    pace: float
    chunks: int
    sizes: Buffers
    roles: str

    @property
    def row_s(self) -> float:
        """One warp on one row."""
        return self.copy.seconds(self.ports.combine, self.ports.row_bytes) * self.pace

    def warps(
        self, name: str, rows: Rows, warps: Warps, latency_s: float = 0.0, buffer: float = 0.0, least_s: float = 0.0
    ) -> Stage:
        """A stage of `warps` warps [ranks] in every channel that share `rows` rows of the rank; `buffer` rows a channel
        lie in front of it (0: any number). least_s: of a chunk. A warp copies whole rows: the first one takes its full
        time."""
        share = rows * self.row_s / (warps * self.chunks)
        late = latency_s + np.maximum(0.0, self.row_s - share)
        room = self.chunks
        if buffer:
            room = max(1, int(buffer * self.chunks / max(float(rows.max()), 1.0))) * self.channels
        return Stage(name, np.maximum(share, least_s), self.channels, late, room, late)

    def link(self, name: str, rows: Rows, rate: float) -> Stage:
        """A port that carries `rows` rows of the rank."""
        return Stage(name, rows * self.ports.row_bytes / (rate * self.chunks), room=self.chunks)

    @property
    def network(self) -> Stage:
        return self.link("network", self.ports.network_rows, self.links.network)

    @property
    def nvlink(self) -> Stage:
        return self.link("NVLink", self.ports.nvlink_rows, self.links.nvlink.effective)


def run(ports: Ports, links: Wires, sms: int, copy: Copy = COPY, roles: str = FOLLOW) -> Timing:
    """One exchange on `sms` SMs of every rank; an odd one stays idle. Raises ValueError for none."""
    work = _cut(ports, links, sms, copy, roles)
    stages = _stages(work)
    rank_s = finish_s(stages, work.chunks)
    slowest = int(rank_s.argmax())
    busy = {s.name: float(s.service_s[slowest]) * -(-work.chunks // s.servers) for s in stages}
    return Timing(rank_s, barrier_s(ports, links), closed.bound_s(ports, links), busy, work.channels, work.chunks)


def barrier_s(ports: Ports, links: Wires) -> float:
    """The group's meeting: a dissemination barrier over nodes, then one inside the node (structure: DeepEP's notify
    kernels; latencies: those of the links)."""
    rounds = (ports.nodes - 1).bit_length()
    return rounds * links.latency_s + (links.nvlink.latency_s if ports.gpus_per_node > 1 else 0.0)


def _cut(ports: Ports, links: Wires, sms: int, copy: Copy, roles: str) -> Work:
    if sms < 1:
        raise ValueError(f"a communication kernel needs at least 1 SM; found {sms}")
    channels = max(1, sms // SMS_PER_CHANNEL)
    pace = max(1.0, SMS_PER_CHANNEL / sms)
    sizes = buffers(ports.nodes * ports.gpus_per_node, ports.nodes, ports.combine)
    inside = ports.nodes == 1
    rows, chunk = (ports.forwarded, sizes.send * ports.gpus_per_node) if inside else (ports.sent, sizes.send)
    chunks = max(1, int(np.ceil(float(rows.max()) / chunk)))
    return Work(ports, links, copy, channels, pace, chunks, sizes, roles)


def _stages(w: Work) -> list[Stage]:
    if w.ports.nodes == 1:
        return _intranode(w)
    return _combine(w) if w.ports.combine else _dispatch(w)


def _dispatch(w: Work) -> list[Stage]:
    p, near, far = w.ports, w.links.nvlink.latency_s, w.links.latency_s
    packers, forwarders, receivers = dispatching(w.roles, p.tokens * w.row_s, p.received * w.row_s)
    forward = w.warps("forward", p.forwarded, forwarders, far)
    arrivals = max(1, int(w.sizes.network * p.nodes * w.chunks / max(float(p.sent.max()), 1.0)))
    return [
        w.warps("pack", p.tokens, packers, least_s=PUT_S * w.pace),
        w.network,
        forward._replace(room=arrivals * w.channels, credit_s=far),
        w.nvlink,
        w.warps("receive", p.received, receivers, near, w.sizes.nvlink * p.gpus_per_node),
    ]


def _combine(w: Work) -> list[Stage]:
    p, near, far = w.ports, w.links.nvlink.latency_s, w.links.latency_s
    senders, forwarders, receivers = combining(w.roles, p.nodes, p.received * w.row_s, p.sent * w.row_s)
    put_s = PUT_S * w.pace / p.nodes  # every node has its own posting warp
    return [
        w.warps("send", p.received, senders),
        w.nvlink,
        w.warps("forward", p.forwarded, forwarders, near, w.sizes.nvlink * p.gpus_per_node, put_s),
        w.network,
        w.warps("receive", p.sent, receivers, far, w.sizes.network * p.nodes),
    ]


def _intranode(w: Work) -> list[Stage]:
    """One SM of a channel sends to the node's GPUs, the other receives (and reduces)."""
    p = w.ports
    out, back = (p.received, p.forwarded) if p.combine else (p.forwarded, p.received)
    buffer = w.sizes.nvlink * p.gpus_per_node
    return [
        w.warps("send", out, WHOLE_BLOCK),
        w.nvlink,
        w.warps("receive", back, WHOLE_BLOCK, w.links.nvlink.latency_s, buffer),
    ]
