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
from sim.communication.exchange.cut import LAST, NOISE, Cut, cut
from sim.communication.exchange.line import Seconds, Stage, finish_s
from sim.communication.exchange.ports import Ports, Rows
from sim.communication.exchange.roles import (
    COPY,
    FOLLOW,
    INTRANODE,
    PUT_S,
    SMS_PER_CHANNEL,
    STORED,
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

    def working(self, rows: Rows, warps: Warps, on_sm: Rows) -> tuple[Rows, Seconds]:
        """How many of `warps` that share `rows` rows work at a time, and seconds of one on a row [ranks]: as alone, or
        where fewer of them fill an SM that has `on_sm` rows for it, in step with it."""
        row = self.ports.combine, self.ports.row_bytes
        alone, turn = self.copy.alone(*row), self.copy.sm(*row) * on_sm / np.maximum(rows, NOISE)
        filling = np.clip(alone / np.maximum(turn, alone * NOISE), 1.0, warps)
        return filling, np.maximum(alone, turn) * self.pace

    @property
    def put_s(self) -> float:
        """One warp that posts a chunk."""
        return PUT_S * self.pace

    def share(self, rows: Rows) -> Rows:
        """Rows, of the `rows` of each rank, that go with a chunk of the fullest channel [ranks]."""
        most = float(_cut_rows(self.ports).max())
        return self.cut.rows * (rows / most if most else np.zeros_like(rows))

    def room(self, buffer: float, chunk: float, buffers: int) -> int:
        """Chunks in front of a stage, where every channel has `buffers` buffers of `buffer` rows, each of which holds
        whole chunks of `chunk` rows."""
        return max(1, int(buffer / max(chunk, 1.0))) * buffers * self.cut.channels

    def apart(self, buffers: int) -> int:
        """Chunks in front of the stage that reduces rows of several nodes, each of which has a buffer: half a chunk of
        each waits for tokens of the others, on average."""
        whole = max(1.0, self.sizes.network / self.sizes.send - LAST)
        return max(1, int(whole * buffers)) * self.cut.channels

    def most(self, rows: Rows) -> float:
        """Of `rows` rows of the rank with most of them, those that go with a full chunk."""
        return float(self.share(rows).max()) * self.sizes.send / max(self.cut.rows, NOISE)

    def warps(
        self, name: str, rows: Rows, warps: Warps, on_sm: Rows, latency_s: float = 0.0, whole: Rows = ONE
    ) -> Stage:
        """Stage of `warps` warps [ranks] in every channel that share `rows` rows of the rank, on SMs that are through
        once they have served `on_sm`; its input buffer is unbounded. A warp copies whole rows, and reduces `whole` ones
        [ranks] to one: an idle stage takes a chunk in ceil(rows / (working warps * whole)) rounds; under load rounds
        overlap and only the mean matters."""
        working, row_s = self.working(rows, warps, on_sm)
        rows = self.share(rows)
        busy = rows * row_s / working
        alone = np.ceil(rows / (working * whole) - NOISE) * whole * row_s
        late = latency_s + np.maximum(0.0, alone - busy)
        return Stage(name, busy, self.cut.channels, late, self.all_chunks, latency_s)

    def post(self) -> Stage:
        """A warp in every channel that posts a chunk at a time."""
        return Stage("post", np.full_like(self.ports.tokens, self.put_s), self.cut.channels, room=self.all_chunks)

    def gathered(self, stages: Sequence[Stage], packs: int, waits: int) -> list[Stage]:
        """The line, in which chunks for all places that are reached are full, or can be reduced, together: stage
        `packs` works on tokens one by one, and `waits` begins when such a round of chunks has come.

        The first chunks are late by it, or the last are: by as long as stage `packs`, or the slowest other one where
        that is faster, needs for the rest of a round.
        """
        paces = [s.service_s * self.cut.channels / s.servers for s in stages]
        other = np.maximum.reduce([pace for place, pace in enumerate(paces) if place != packs])
        late = (self.cut.together - 1) * np.minimum(paces[packs], other)
        line = list(stages)
        line[waits] = line[waits]._replace(latency_s=line[waits].latency_s + late)
        return line

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

    @property
    def stored(self) -> float:
        """How many times as long a full NVLink port takes for rows that warps store as for copies."""
        return max(1.0, self.links.nvlink.efficiency / STORED[self.ports.combine])


def run(
    ports: Ports, links: Wires, sms: int, copy: Copy = COPY, roles: str = FOLLOW, sizes: Buffers | None = None
) -> Timing:
    """One exchange on `sms` SMs of every rank; an odd one stays idle. sizes: of chunks and buffers, those of the group
    where None. Raises Refused for no SM."""
    work = _cut(ports, links, sms, copy, roles, sizes)
    stages = _stages(work)
    rank_s = np.maximum(_finish_s(stages, work.cut), _full_s(stages, work))
    slowest = int(rank_s.argmax())
    chunks = work.cut.chunks * work.cut.channels
    busy = {s.name: float(s.service_s[slowest]) * chunks / s.servers for s in stages}
    busy[work.nvlink.name] *= work.stored
    return Timing(rank_s, barrier_s(ports, links), closed.bound_s(ports, links), busy, work.cut.channels, chunks)


def _finish_s(stages: Sequence[Stage], cut: Cut) -> Seconds:
    """Seconds of each rank [ranks]: between those with channels of one chunk more and of one less, as the average
    number of them lies."""
    less, part = divmod(cut.chunks, 1)
    finish = finish_s(stages, int(less) * cut.channels)
    return finish + part * (finish_s(stages, int(less + 1) * cut.channels) - finish) if part else finish


def _full_s(stages: Sequence[Stage], work: Work) -> Seconds:
    """Seconds of each rank where NVLink is full from the first chunk that comes to it to the last [ranks]: a port that
    rows find free takes them as fast as copies."""
    port = work.nvlink
    passing = sum(s.service_s + s.latency_s for s in stages if s.name != port.name)
    return np.asarray(port.service_s * work.stored * work.cut.chunks * work.cut.channels + passing)


def barrier_s(ports: Ports, links: Wires) -> float:
    """The group's meeting: a dissemination barrier over nodes, then one inside the node (structure: DeepEP's notify
    kernels; latencies: those of the links)."""
    rounds = (ports.nodes - 1).bit_length()
    return rounds * links.latency_s + (links.nvlink.latency_s if ports.gpus_per_node > 1 else 0.0)


def _cut(ports: Ports, links: Wires, sms: int, copy: Copy, roles: str, sizes: Buffers | None = None) -> Work:
    if sms < 1:
        raise Refused(f"a communication kernel needs at least 1 SM; found {sms}")
    channels = max(1, sms // SMS_PER_CHANNEL)
    pace = max(1.0, SMS_PER_CHANNEL / sms)
    sizes = sizes or buffers(ports.nodes * ports.gpus_per_node, ports.nodes, ports.combine)
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
    packers, forwarders, receivers = dispatching(w.roles, p.tokens, p.received)
    forward = w.warps("forward", p.forwarded, forwarders, p.forwarded, far)
    receive = w.warps("receive", p.received, receivers, p.sent + p.received, near)
    line = [
        w.warps("pack", p.tokens, packers, p.sent),
        w.post(),
        w.network,
        forward._replace(room=w.room(w.sizes.network, w.sizes.send, p.nodes), since=3),
        w.nvlink,
        receive._replace(room=w.room(w.sizes.nvlink, w.most(p.received) / p.gpus_per_node, 1), since=2),
    ]
    return w.gathered(line, 0, 1)


def _combine(w: Work) -> list[Stage]:
    p, near, far = w.ports, w.links.nvlink.latency_s, w.links.latency_s
    senders, forwarders, receivers = combining(w.roles, p.nodes, p.received, p.sent)
    forward = w.warps("forward", p.forwarded, forwarders, p.forwarded, near, _meeting(p.forwarded, p.sent))
    receive = w.warps("receive", p.sent, receivers, p.received + p.sent, far, _meeting(p.sent, p.tokens))
    room = w.room(w.sizes.nvlink // p.nodes, w.most(p.forwarded) / p.gpus_per_node, p.nodes)
    line = [
        w.warps("send", p.received, senders, p.received),
        w.nvlink,
        w.posted(forward, p.nodes)._replace(room=room, since=2),
        w.network,
        receive._replace(room=w.apart(p.nodes), since=2),
    ]
    return w.gathered(line, 4, 4)


def _intranode(w: Work) -> list[Stage]:
    """One SM of a channel sends to the node's GPUs, the other receives (and reduces)."""
    p = w.ports
    out, back = (p.received, p.forwarded) if p.combine else (p.forwarded, p.received)
    whole = _meeting(back, p.tokens) if p.combine else ONE
    receive = w.warps("receive", back, WHOLE_BLOCK, back, w.links.nvlink.latency_s, whole)
    return [
        w.warps("send", out, WHOLE_BLOCK, out),
        w.nvlink,
        receive._replace(room=w.room(w.sizes.nvlink, w.most(back) / p.gpus_per_node, 1), since=2),
    ]


def _meeting(rows: Rows, into: Rows) -> Rows:
    """Rows that one warp reduces to each of `into`, on average [ranks]."""
    return np.maximum(1.0, rows / np.maximum(into, 1.0))
