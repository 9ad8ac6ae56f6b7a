"""Dispatch and combine as the warp-specialised kernels that drive them.

Dispatch: warps pack tokens and post network transfers, warps forward what arrives over NVLink, warps receive. Combine
is the reverse, with reduction where paths meet. How many warps play a role follows its load at each rank, or is fixed
(`sim.communication.exchange.roles`). Chunks of rows (`sim.communication.exchange.cut`) pass these stages; each channel
of two SMs is a server of the stages that warps run, and the rank's NIC and NVLink port serve the chunks of all channels
one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from hwmodels.collectives import Wires
from hwmodels.node import NVLINK
from hwmodels.refused import Refused
from sim.communication.exchange import closed
from sim.communication.exchange.cut import NOISE, Cut, cut
from sim.communication.exchange.line import Seconds, Stage, finish_s
from sim.communication.exchange.ports import Ports, Rows
from sim.communication.exchange.roles import (
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

ONE = np.ones(1)
WHOLE_BLOCK = np.array([INTRANODE])
"""Warps of either SM of a channel inside one node."""


@dataclass(frozen=True, eq=False)
class Timing:
    """One exchange, alone. rank_s: until each rank's line is through [ranks]. barrier_s: the group's meeting before it.

    bound_s: of each rank's ports [ranks]. busy_s: of the stages of the slowest rank, in order, a server's share.
    channels: of two SMs, that have tokens. chunks: of the rank with most rows, on average.
    """

    rank_s: npt.NDArray[np.float64]
    barrier_s: float
    bound_s: npt.NDArray[np.float64]
    busy_s: dict[str, float]
    channels: int
    chunks: float

    @property
    def seconds(self) -> float:
        """Seconds of the kernel: those of its slowest rank."""
        return float(self.rank_s.max())

    @property
    def limited_by(self) -> str:
        """The stage that is busy longest."""
        return max(self.busy_s, key=lambda name: self.busy_s[name])


@dataclass(frozen=True, eq=False)
class Work:
    """A rank's rows, cut. pace: 1, or 2 when one SM plays all roles. roles: how warps are given to them, FOLLOW or
    FIXED."""

    ports: Ports
    links: Wires
    copy: Copy
    pace: float
    cut: Cut
    sizes: Buffers
    roles: str

    @property
    def row_s(self) -> float:
        """One warp on one row."""
        return self.copy.seconds(self.ports.combine, self.ports.row_bytes) * self.pace

    @property
    def put_s(self) -> float:
        """One warp that posts a chunk."""
        return PUT_S * self.pace

    def share(self, rows: Rows) -> Rows:
        """Rows, of the `rows` of each rank, that go with a chunk of the fullest channel [ranks]."""
        most = float(_cut_rows(self.ports).max())
        return self.cut.rows * (rows / most if most else np.zeros_like(rows))

    def room(self, rows: Rows, buffer: float) -> int:
        """Chunks in front of a stage, where `buffer` rows of `rows` lie in every channel."""
        largest = max(1.0, float(self.share(rows).max()))
        return max(1, int(buffer / largest)) * self.cut.channels

    def warps(self, name: str, rows: Rows, warps: Warps, latency_s: float = 0.0, whole: Rows = ONE) -> Stage:
        """Stage of `warps` warps [ranks] in every channel that share `rows` rows of the rank; its input buffer is
        unbounded. A warp copies whole rows, and reduces `whole` ones [ranks] to one: an idle stage takes a chunk in
        ceil(rows / (warps * whole)) rounds; under load rounds overlap and only the mean matters."""
        rows = self.share(rows)
        busy = rows * self.row_s / warps
        alone = np.ceil(rows / (warps * whole) - NOISE) * whole * self.row_s
        late = latency_s + np.maximum(0.0, alone - busy)
        return Stage(name, busy, self.cut.channels, late, self.all_chunks, late)

    def posted(self, stage: Stage, warps: int = 1) -> Stage:
        """The stage with `warps` more warps in every channel, each of which posts a chunk at a time once that is
        copied."""
        busy = np.maximum(stage.service_s, self.put_s / warps)
        return stage._replace(service_s=busy, latency_s=stage.latency_s + stage.service_s + self.put_s - busy)

    def link(self, name: str, rows: Rows, rate: float) -> Stage:
        """A port that carries `rows` rows of the rank."""
        rows = self.share(rows) * self.cut.filled
        return Stage(name, rows * self.ports.row_bytes / rate, room=self.all_chunks)

    @property
    def all_chunks(self) -> int:
        """Chunks of the rank, where no channel has fewer than the average in whole ones."""
        return ceil(self.cut.chunks) * self.cut.channels

    @property
    def network(self) -> Stage:
        return self.link("network", self.ports.network_rows, self.links.network)

    @property
    def nvlink(self) -> Stage:
        link = self.links.nvlink
        return self.link(link.name or NVLINK, self.ports.nvlink_rows, link.between(self.ports.gpus_per_node))


def run(ports: Ports, links: Wires, sms: int, copy: Copy = COPY, roles: str = FOLLOW) -> Timing:
    """One exchange on `sms` SMs of every rank; an odd one stays idle. Raises Refused for none."""
    work = _cut(ports, links, sms, copy, roles)
    stages = _stages(work)
    rank_s = _finish_s(stages, work.cut)
    slowest = int(rank_s.argmax())
    chunks = work.cut.chunks * work.cut.channels
    busy = {s.name: float(s.service_s[slowest]) * chunks / s.servers for s in stages}
    return Timing(rank_s, barrier_s(ports, links), closed.bound_s(ports, links), busy, work.cut.channels, chunks)


def _finish_s(stages: Sequence[Stage], cut: Cut) -> Seconds:
    """Seconds of each rank [ranks]: between those with channels of one chunk more and of one less, as the average
    number of them lies."""
    less, part = divmod(cut.chunks, 1)
    finish = finish_s(stages, int(less) * cut.channels)
    return finish + part * (finish_s(stages, int(less + 1) * cut.channels) - finish) if part else finish


def barrier_s(ports: Ports, links: Wires) -> float:
    """The group's meeting: a dissemination barrier over nodes, then one inside the node (structure: DeepEP's notify
    kernels; latencies: those of the links)."""
    rounds = (ports.nodes - 1).bit_length()
    return rounds * links.latency_s + (links.nvlink.latency_s if ports.gpus_per_node > 1 else 0.0)


def _cut(ports: Ports, links: Wires, sms: int, copy: Copy, roles: str) -> Work:
    if sms < 1:
        raise Refused(f"a communication kernel needs at least 1 SM; found {sms}")
    channels = max(1, sms // SMS_PER_CHANNEL)
    pace = max(1.0, SMS_PER_CHANNEL / sms)
    sizes = buffers(ports.nodes * ports.gpus_per_node, ports.nodes, ports.combine)
    tokens, rows = float(ports.tokens.max()), float(_cut_rows(ports).max())
    send = sizes.send * (ports.gpus_per_node if ports.nodes == 1 else 1)
    each = cut(tokens, rows / tokens if tokens else 0.0, ports.nodes, send, channels)
    return Work(ports, links, copy, pace, each, sizes, roles)


def _cut_rows(ports: Ports) -> Rows:
    """What chunks are cut from: rows for nodes, or in one node rows for its ranks, to all of which a chunk goes."""
    return ports.forwarded if ports.nodes == 1 else ports.sent


def _stages(w: Work) -> list[Stage]:
    if w.ports.nodes == 1:
        return _intranode(w)
    return _combine(w) if w.ports.combine else _dispatch(w)


def _dispatch(w: Work) -> list[Stage]:
    p, near, far = w.ports, w.links.nvlink.latency_s, w.links.latency_s
    packers, forwarders, receivers = dispatching(w.roles, p.tokens * w.row_s, p.received * w.row_s)
    forward = w.warps("forward", p.forwarded, forwarders, far)
    receive = w.warps("receive", p.received, receivers, near)
    return [
        w.posted(w.warps("pack", p.tokens, packers)),
        w.network,
        forward._replace(room=w.room(p.sent, w.sizes.network * p.nodes), credit_s=far),
        w.nvlink,
        receive._replace(room=w.room(p.received, w.sizes.nvlink * p.gpus_per_node)),
    ]


def _combine(w: Work) -> list[Stage]:
    p, near, far = w.ports, w.links.nvlink.latency_s, w.links.latency_s
    senders, forwarders, receivers = combining(w.roles, p.nodes, p.received * w.row_s, p.sent * w.row_s)
    forward = w.warps("forward", p.forwarded, forwarders, near, _meeting(p.forwarded, p.sent))
    receive = w.warps("receive", p.sent, receivers, far, _meeting(p.sent, p.tokens))
    return [
        w.warps("send", p.received, senders),
        w.nvlink,
        w.posted(forward, p.nodes)._replace(room=w.room(p.forwarded, w.sizes.nvlink * p.gpus_per_node)),
        w.network,
        receive._replace(room=w.room(p.sent, w.sizes.network * p.nodes)),
    ]


def _intranode(w: Work) -> list[Stage]:
    """One SM of a channel sends to the node's GPUs, the other receives (and reduces)."""
    p = w.ports
    out, back = (p.received, p.forwarded) if p.combine else (p.forwarded, p.received)
    whole = _meeting(back, p.tokens) if p.combine else ONE
    receive = w.warps("receive", back, WHOLE_BLOCK, w.links.nvlink.latency_s, whole)
    return [
        w.warps("send", out, WHOLE_BLOCK),
        w.nvlink,
        receive._replace(room=w.room(back, w.sizes.nvlink * p.gpus_per_node)),
    ]


def _meeting(rows: Rows, into: Rows) -> Rows:
    """Rows that one warp reduces to each of `into`, on average [ranks]."""
    return np.maximum(1.0, rows / np.maximum(into, 1.0))
