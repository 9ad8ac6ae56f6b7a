"""What an exchange runs on: links, SMs, warps, buffers; times of its pieces in whole nanoseconds."""

from dataclasses import dataclass
from functools import partial
from math import inf
from typing import NamedTuple

from hwmodels.collectives import Wires
from hwmodels.node import Link
from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S, seconds_to_ns
from sim.communication.exchange import roles
from sim.communication.exchange.events.cargo import Cargo
from sim.communication.exchange.events.servers import Beside
from sim.communication.exchange.roles import COPY, FIXED, FOLLOW, Buffers, Copy


@dataclass(frozen=True)
class Setting:
    """sms: of every rank; an odd one stays idle, and a single one plays all roles of a channel at half the pace.
    warps: FOLLOW or FIXED. sizes: of chunks and buffers, those of the group's size where None. beside: compute, from
    the first barrier's end on. memory: bandwidth of the device, bytes/s.

    Raises Refused for no SM.
    """

    links: Wires
    sms: int
    warps: str = FOLLOW
    copy: Copy = COPY
    put_s: float = roles.PUT_S
    sizes: Buffers | None = None
    beside: tuple[Beside, ...] = ()
    memory: float = inf

    def __post_init__(self) -> None:
        if self.sms < 1:
            raise Refused(f"a communication kernel needs at least 1 SM; found {self.sms}")

    @property
    def channels(self) -> int:
        return max(1, self.sms // roles.SMS_PER_CHANNEL)

    @property
    def pace(self) -> int:
        return 2 if self.sms == 1 else 1


class Times(NamedTuple):
    """Nanoseconds. put: to post a chunk. near, far: latencies of NVLink and network. nvlink, network: of a row on a
    port, not rounded."""

    put: int
    near: int
    far: int
    nvlink: float
    network: float


def times(cargo: Cargo, setting: Setting) -> Times:
    links, pace = setting.links, setting.pace
    return Times(
        seconds_to_ns(setting.put_s * pace), seconds_to_ns(links.nvlink.latency_s), seconds_to_ns(links.latency_s),
        cargo.row_bytes * NS_PER_S / _stored(links.nvlink, cargo.combine), cargo.row_bytes * NS_PER_S / links.network,
    )  # fmt: skip


def _stored(link: Link, combine: bool) -> float:
    """Bytes/s of NVLink that rows reach as warps store them."""
    return min(link.efficiency, roles.STORED[combine]) * link.bandwidth


def sizes(cargo: Cargo, setting: Setting) -> Buffers:
    return setting.sizes or roles.buffers(cargo.nodes * cargo.gpus, cargo.nodes, cargo.combine)


class Team(NamedTuple):
    """Of one role of a channel. warps: that work at a time. row: ns of one of them for a row."""

    warps: int
    row: int


class Crew(NamedTuple):
    """The roles of a channel; none sends over a network that is not there."""

    send: Team
    forward: Team
    receive: Team


def crew(cargo: Cargo, rank: int, received: float, setting: Setting) -> Crew:
    """Of a rank to which `received` rows come, as a dispatch moves them.

    An SM has a row's time for each row that a role of it reads or writes, whichever are more. Of two roles that share
    a block the first is served first, and the last one gets what is left.
    """
    team = partial(_team, cargo, setting)
    sent, tokens = float(cargo.to_nodes[rank].sum()), float(cargo.tokens)
    send, forward, receive = _warps(cargo, received, sent, setting.warps)
    if cargo.nodes == 1:
        return Crew(team(send, 1.0), team(forward, 1.0), team(receive, 1.0))
    if cargo.combine:
        return Crew(team(send, 1.0), team(forward, 1.0), team(receive, _over(sent + received, sent)))
    return Crew(team(send, _over(sent, tokens)), team(forward, 1.0), team(receive, _over(sent + received, received)))


def _over(rows: float, own: float) -> float:
    return rows / own if own else 1.0


def _team(cargo: Cargo, setting: Setting, warps: int, turns: float) -> Team:
    """Of `warps` warps, whose SM has `turns` rows for each of theirs: no more work at a time than fill it."""
    row = cargo.combine, cargo.row_bytes
    alone, turn = setting.copy.alone(*row), setting.copy.sm(*row) * turns
    count = 1
    while count < warps and count * turn < alone:
        count += 1
    return Team(count, seconds_to_ns(max(alone, count * turn) * setting.pace))


def _warps(cargo: Cargo, received: float, sent: float, warps: str) -> tuple[int, int, int]:
    """That are given to send, forward and receive."""
    if cargo.nodes == 1:
        return roles.INTRANODE, roles.INTRANODE, roles.INTRANODE
    if cargo.combine:
        block = min(max(roles.REDUCERS // cargo.nodes, 1) * cargo.nodes, roles.BLOCK_WARPS - 1)
        if warps == FIXED:
            return roles.PEERS, block, max(block - roles.PEERS, 1)
        send, receive = _split(received, sent, block)
        return send, block, receive
    if warps == FIXED:
        return roles.PACKERS, roles.PEERS, roles.PEERS
    send, receive = _split(cargo.tokens, received, roles.PACKERS + roles.PEERS)
    return send, roles.PACKERS + roles.PEERS, receive


def _split(first: float, second: float, warps: int) -> tuple[int, int]:
    """Warps of a block for two roles with so many rows, the slower of which is as fast as whole warps allow."""
    best = min(range(1, warps), key=lambda count: (max(first / count, second / (warps - count)), -count), default=1)
    return best, max(warps - best, 1)
