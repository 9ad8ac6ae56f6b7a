"""Published bandwidths and latencies of single exchanges beside the model. Nothing here is ever fitted to.

All are of DeepEP's kernels, whose roles are fixed (`sim.communication.exchange.roles`); the profile's have the threads
of its blocks.

A published bandwidth is logical: it counts rows that stay on the own node (over the network) or the own GPU (NVLink).
The wire carries less: logical times (1 - 1/nodes), or times (1 - 1/GPUs of the node).
"""

from typing import NamedTuple

from hwmodels import tables
from hwmodels.collectives import Wires
from hwmodels.op import AllToAll
from hwmodels.units import GIGA, MICRO
from sim.communication.exchange import direct, kernel
from sim.communication.exchange.ports import of_op
from sim.communication.exchange.roles import COPY, FIXED

V1 = "DeepEP V1, docs/legacy.md"
FIRST = "DeepEP first release, before pull request 130"
TOKENS, EXPERTS, DECODED = 4096, 8, 128
"""Tokens a rank, experts a token, tokens of a decoding step (DeepEP docs/legacy.md)."""
ROWS = {"dispatch": 7392.0, "combine": 14336.0}
"""Bytes a row that the benchmarks count: 7,168 E4M3 values and 56 FP32 scales, or 7,168 in BF16."""
SPREAD = {8: (1.0, 5.25), 16: (1.99, 6.53), 32: (3.62, 7.26), 64: (3.96, 7.49)}
"""Group size -> distinct nodes and ranks a token. One node: 8 (1 - (7/8)^8) of 8 ranks; more: sampled with 4 nodes a
token at most, as the benchmark draws them."""
BANDWIDTHS = (
    (FIRST, 20, 64, 46, 45), (V1, 24, 8, 153, 158), (V1, 24, 16, 43, 43), (V1, 24, 32, 58, 57), (V1, 24, 64, 51, 50),
)  # fmt: skip
"""Source, SMs, ranks, GB/s of dispatch and combine on H800s. SMs: the profile's for the first release, the default of
the benchmark after it."""
LATENCIES = ((8, 77, 114), (16, 118, 195), (32, 155, 273), (64, 173, 314), (128, 192, 369), (256, 194, 360))
"""Ranks, microseconds of dispatch and combine in the low-latency kernels on H800s (DeepEP docs/legacy.md)."""
DECODED_META = 16
"""Bytes of metadata on a dispatched row of the low-latency kernels (DeepEP csrc/kernels/internode_ll.cu)."""


class Row(NamedTuple):
    """A published figure beside the model's; both in `unit`. wire: GB/s that the model puts on the binding network."""

    name: str
    direction: str
    unit: str
    predicted: float
    published: float
    wire: float
    source: str

    @property
    def error(self) -> float:
        return self.predicted / self.published - 1


def bandwidths(links: Wires) -> list[Row]:
    """Normal kernels, GB/s as published counts them."""
    out = []
    for source, sms, ranks, *rates in BANDWIDTHS:
        nodes_hit, ranks_hit = SPREAD[ranks]
        for direction, rate in zip(ROWS, rates, strict=True):
            op = AllToAll(direction, "", TOKENS, ROWS[direction], nodes_hit, ranks_hit, ranks, max(1, ranks // 8))
            seconds = kernel.run(of_op(op), links, sms, COPY, FIXED).seconds
            logical, wire = (op.bytes(), op.nvlink_bytes()) if ranks <= 8 else (op.logical_bytes(), op.wire_bytes())
            name = f"{ranks} ranks, {sms} SMs"
            out.append(Row(name, direction, "GB/s", logical / seconds / GIGA, rate, wire / seconds / GIGA, source))
    return out


def latencies(links: Wires, sms: int) -> list[Row]:
    """Low-latency kernels on a device of `sms` SMs, microseconds."""
    out = []
    for ranks, *published in LATENCIES:
        for direction, us in zip(ROWS, published, strict=True):
            meta = DECODED_META if direction == "dispatch" else 0
            decode = direct.Decode(direction == "combine", DECODED, EXPERTS, ROWS[direction] + meta, ranks, 8)
            seconds = direct.seconds(decode, links, sms)
            wire = (decode.network_bytes or decode.nvlink_bytes) / seconds / GIGA
            out.append(Row(f"{ranks} ranks, decoding", direction, "us", seconds / MICRO, us, wire, V1))
    return out


class InSitu(NamedTuple):
    """An exchange of a device's profile, microseconds. closed: bytes over links. alone: the kernel model on `sms` SMs.
    measured: beside compute (median). low, high: of its repeats."""

    name: str
    sms: int
    closed: float
    alone: float
    measured: float
    low: float
    high: float

    @property
    def stretch(self) -> float:
        """How much longer it takes beside compute than the kernel model says it takes alone."""
        return self.measured / self.alone


def profile(device: str, links: Wires, sms: int, group: int = 64) -> list[InSitu]:
    """The exchanges in the table of `device`, which were measured in an expert group of `group` ranks."""
    nodes_hit, ranks_hit = SPREAD[group]
    out = []
    for name, row in tables.load(device).exchanges.items():
        width = row["wire_bytes"] / (TOKENS * nodes_hit * (1 - 8 / group))
        op = AllToAll(row["direction"], name, TOKENS, width, nodes_hit, ranks_hit, group, group // 8)
        alone = kernel.run(of_op(op), links, sms, COPY, FIXED).seconds / MICRO
        out.append(InSitu(name, sms, row["alone_us"], alone, row["us"], row["low_us"], row["high_us"]))
    return out
