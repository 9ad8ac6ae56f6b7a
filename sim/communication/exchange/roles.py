"""Warp roles of the communication kernels, what one warp copies, and how deep the buffers between them are.

Structure: a channel is two SMs (DeepSeek-V3 report, arXiv 2412.19437, sec 3.2.2: 20 SMs in 10 channels), a block of
warps on each. Blocks and buffers are those of the published library, DeepEP V1 (github.com/deepseek-ai/DeepEP,
csrc/kernels/internode.cu and intranode.cu, deep_ep/buffer.py): 512 threads for dispatch and 800 for combine, as in the
published H800 profile. On one SM forwarders live with a coordinator; on the other two roles share the block. How, is a
choice: `fixed` as in DeepEP, which keeps a warp for each peer; `follow` as the report says of V3's own kernels, whose
warps of each task are adjusted dynamically to the actual workload. In one node each SM has one role: nothing to share.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.units import GIGA, MICRO

SMS_PER_CHANNEL = 2

FOLLOW, FIXED = "follow", "fixed"
"""Words of `comm.warps`."""

PACKERS = 7
"""Fixed: warps of a channel that pack tokens for the network in dispatch; an eighth one posts the transfers."""
PEERS = 8
"""Fixed: warps of a channel that forward (dispatch), receive (dispatch) or send (combine) over NVLink: one a GPU of a
node."""
REDUCERS = 24
"""Warps of a channel that forward and reduce in combine. Fixed: shared evenly by the nodes; never more than fill a
block."""
BLOCK_WARPS = 32
"""Warps of a thread block (CUDA's 1,024 threads); one of them coordinates."""
INTRANODE = 24
"""Warps of either SM of a channel when the group is one node (768 threads)."""


class Copy(NamedTuple):
    """What a warp needs for a row: a fixed part (slot, head and tail, metadata) and a part for each byte.

    row_s: dispatch, in a block of INTRANODE warps, which fill an SM. reduced_row_s: combine, for each row it reads.
    alone_s, reduced_alone_s: the same for a warp on an SM that is not full. rate: bytes/s.
    """

    row_s: float
    reduced_row_s: float
    alone_s: float
    reduced_alone_s: float
    rate: float

    def seconds(self, combine: bool, row_bytes: float) -> float:
        """Seconds of one row by one of the warps that fill an SM."""
        return (self.reduced_row_s if combine else self.row_s) + row_bytes / self.rate

    def alone(self, combine: bool, row_bytes: float) -> float:
        """Seconds of one row by a warp whose SM is not full."""
        return (self.reduced_alone_s if combine else self.alone_s) + row_bytes / self.rate

    def sm(self, combine: bool, row_bytes: float) -> float:
        """Seconds of a full SM for one row, whoever works on it."""
        return self.seconds(combine, row_bytes) / INTRANODE


COPY = Copy(
    row_s=3.12 * MICRO, reduced_row_s=3.90 * MICRO,
    alone_s=0.26 * MICRO, reduced_alone_s=1.65 * MICRO, rate=3.70 * GIGA,
)  # fmt: skip
"""Fitted to single exchanges alone: DeepEP V1 inside one node of 8 B200s with 16, 24 and 28 SMs, FP8 dispatch
246/349/397, BF16 dispatch 348/494/560, combine 302/420/477 GB/s (DeepEP Hybrid-EP_Implementation.md). Time a row is
straight in 1/channels to 0.4 %; its slope times 24 warps is 5.12, 6.99 and 7.77 us for rows of 7,392, 14,336 and 14,336
bytes: 0.213, 0.291 and 0.324 us of a full SM. Taken over for Hopper unchanged; two H20 nodes at 24 SMs (DeepEP issue
137) say 5.1 us or less for the first.

alone_s, reduced_alone_s: fitted to single exchanges too, DeepEP V1 on two nodes of H100s with 16,384 tokens a rank and
4, 8 and 16 SMs: dispatch 14,472, 7,761 and 3,835 us, combine 36,376, 18,425 and 9,433 us (aiconfigurator @095f58a51c4c,
h100_sxm/comm/sglang, Apache-2.0; 12 SMs are left out: their dispatch is as slow as 8). Eight warps of a channel take
6.53 rows a token from node to node: 2.26 us of a warp for a row of 7,392 bytes (residual 3.1 % rms) and 5.53 us of
14,336 (1.5 %), less bytes / rate, which two H200s have too (3.62 GB/s a warp with eight an SM). In dispatch the SM of
packers and receivers is nearly full at that pace (2.23 us), so that its figure is the most that a warp may need."""

PUT_S = 19.4 * MICRO
"""What one chunk costs the warp that posts network transfers. Fitted: two H20 nodes, 24 SMs, 17.86 and 35.70 GB/s
logical in FP8 with chunks of 4 and 8 rows, 35.72 in BF16 with 4 (DeepEP issue 137; 4,096 tokens as in its benchmark,
cut as `sim.communication.exchange.cut` cuts them), all three within 2 % of it."""


STORED = 0.656, 0.699
"""Part of NVLink's bandwidth that rows reach which warps store, row by row, in dispatch (7,392 bytes) and in combine
(14,336): large copies reach more. From other cards: DeepEP V1 inside one node, where more SMs move no more, on H100s
and H200s of 450 GB/s with 24 SMs and 32,768 tokens a rank: 295 and 295 GB/s, and 316 and 311, on the wire
(aiconfigurator @095f58a51c4c, h100_sxm and h200_sxm/comm/sglang; up to 16 SMs the rate is straight in SMs: warps bind).
B200s with 24 SMs, at 0.46, are bound by warps too. Nothing is fitted to the H800s, whose one and two nodes it binds."""


class Buffers(NamedTuple):
    """Rows. send: of a chunk to the network (or, in one node, to NVLink). network: of the receive buffer for each
    channel and source node. nvlink: for each channel and GPU of the node."""

    send: int
    network: int
    nvlink: int


def buffers(ranks: int, nodes: int, combine: bool) -> Buffers:
    """DeepEP V1's recommended sizes for a group (deep_ep/buffer.py); beyond its largest, 160 ranks, those of 160."""
    if nodes == 1:
        return Buffers(4 if combine else 6, 0, 256)
    if ranks <= 64:
        return Buffers(20 if combine else 28, 128, 288)
    return Buffers(12, 128, 560 if ranks <= 128 else 720)


Warps = npt.NDArray[np.int64]
"""Number of warps of one role in a channel, at each rank [ranks], or [1] for all."""


def dispatching(
    kind: str, pack_s: npt.NDArray[np.float64], receive_s: npt.NDArray[np.float64]
) -> tuple[Warps, Warps, Warps]:
    """Warps that pack for the network, forward to NVLink, and receive from it, at each rank; kind: see FOLLOW, FIXED.

    pack_s, receive_s: loads [ranks], of rows by one warp. Packers and receivers share a block, whose last warp posts
    transfers; forwarders that follow have theirs alone, where DeepEP leaves all but one a GPU of the node idle.
    """
    if kind == FIXED:
        return np.array([PACKERS]), np.array([PEERS]), np.array([PEERS])
    packers, receivers = shared(np.stack([pack_s, receive_s]), PACKERS + PEERS)
    return packers, np.array([PACKERS + PEERS]), receivers


def combining(
    kind: str, nodes: int, send_s: npt.NDArray[np.float64], receive_s: npt.NDArray[np.float64]
) -> tuple[Warps, Warps, Warps]:
    """Warps that send to NVLink, forward and reduce, and receive from the network and reduce, likewise. Senders and
    receivers share a block of as many warps as the forwarders'."""
    forwarders, receivers = reducing_warps(nodes)
    if kind == FIXED:
        return np.array([PEERS]), np.array([forwarders]), np.array([receivers])
    senders, reducers = shared(np.stack([send_s, receive_s]), forwarders)
    return senders, np.array([forwarders]), reducers


def shared(load: npt.NDArray[np.float64], warps: int) -> Warps:
    """`warps` warps given to roles whose loads are `load` [roles, ranks], at least one each [roles, ranks].

    The role with the most load a warp gets the next one: no split in whole warps makes the slowest role faster.
    """
    given, ranks = np.ones(load.shape, np.int64), np.arange(load.shape[1])
    for _ in range(warps - len(load)):
        given[(load / given).argmax(axis=0), ranks] += 1
    return given


def reducing_warps(nodes: int) -> tuple[int, int]:
    """Combine, fixed: warps that forward and reduce, and warps that receive and reduce, of a channel."""
    forwarders = min(max(REDUCERS // nodes, 1) * nodes, BLOCK_WARPS - 1)
    return forwarders, max(forwarders - PEERS, 1)
