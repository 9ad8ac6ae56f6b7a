"""The priced vocabulary: what a device can be asked to do, with its arithmetic and its memory traffic.

Every operation is a value. `flop()` counts multiply and add as two; `bytes()` is the least traffic to and from HBM
that the operation can do with. `kernels` is how many kernels are launched. Nothing here knows about time.
"""

from typing import NamedTuple

from hwmodels.formats import E4M3, E4M3_ROWS, E5M6, PLAIN_BF16, PLAIN_E4M3, PLAIN_FP32, Layout

OPERAND = {"fp8": 1.0, "mxfp8": 1 + 1 / 32, "nvfp4": 0.5 + 1 / 16, "bf16": 2.0}
"""Precision of a product -> bytes of an element that it reads, with the scales of small blocks."""


BY_BLOCK = " by block"
"""Ends the role of a product whose operands have a scale for each 128 of their depth: its kernels are others."""


class Gemm(NamedTuple):
    """C[m,n] (+)= A[m,k] B[k,n]. `role`: fprop, dgrad (both may be BY_BLOCK), or wgrad. `precision`: of OPERAND.
    result: what a wgrad writes: fp32 (added to what is there) or bf16 (over it). lent: SMs that it leaves to
    communication, from its first to its last moment."""

    m: int
    n: int
    k: int
    role: str = "fprop"
    precision: str = "fp8"
    kernels: int = 1
    result: str = "fp32"
    lent: int = 0

    def flop(self) -> float:
        return 2.0 * self.m * self.n * self.k

    def bytes(self) -> float:
        operand = OPERAND[self.precision]
        out = 8.0 if self.role == "wgrad" and self.result == "fp32" else 2.0  # read and written, or BF16 written
        return operand * (self.m * self.k + self.k * self.n) + out * self.m * self.n


class GroupedGemm(NamedTuple):
    """`groups` GEMMs in one kernel, one a local expert; `rows` in all (groups padded to 128), weights [k,n] each.
    result: what a wgrad writes, bf16 (over what is there), or what it adds to, added_bf16 or fp32."""

    groups: int
    rows: int
    n: int
    k: int
    role: str = "fprop"
    precision: str = "fp8"
    kernels: int = 1
    result: str = "bf16"

    def flop(self) -> float:
        return 2.0 * self.rows * self.n * self.k

    def bytes(self) -> float:
        operand = OPERAND[self.precision]
        if self.role == "wgrad":
            out = {"fp32": 8.0, "added_bf16": 4.0}.get(self.result, 2.0)
            return operand * self.rows * (self.k + self.n) + out * self.groups * self.k * self.n
        return operand * (self.rows * self.k + self.groups * self.k * self.n) + 2.0 * self.rows * self.n


class Attention(NamedTuple):
    """Exact attention of `batch` sequences of `sequence` tokens; queries and keys `qk` wide, values `v` wide, a head.

    The backward kernel does five products: S again, dV, dP, dQ, dK (3 of width qk, 2 of width v). kv_heads: heads of
    keys and values, each shared by as many query heads (grouped-query attention); 0: every query head has its own.
    window: keys that a query sees at most, its own included (sliding window); 0: all. keys: of a sequence, where they
    are not as many as its queries, which are then the last of them if causal; 0: as many. precision: of the products,
    bf16, fp8 (a scale a tensor) or mxfp8; what it reads is counted in BF16, for no memory binds it.
    """

    direction: str
    batch: int
    heads: int
    sequence: int
    qk: int
    v: int
    causal: bool = True
    kernels: int = 1
    kv_heads: int = 0
    window: int = 0
    keys: int = 0
    precision: str = "bf16"

    def flop(self) -> float:
        widths = self.qk + self.v if self.direction == "forward" else 3 * self.qk + 2 * self.v
        keys = self.keys or self.sequence
        seen = min(self.window or keys, keys)
        unseen = max(0, seen - (keys - self.sequence)) if self.causal else 0  # by the first query; then ever fewer
        return 2.0 * self.batch * self.heads * (seen * self.sequence - unseen * unseen / 2) * widths

    def bytes(self) -> float:
        rows = self.batch * self.sequence * self.heads
        shared = self.batch * (self.keys or self.sequence) * (self.kv_heads or self.heads)
        read = 2.0 * shared * (self.qk + self.v)  # keys and values; and as much for their gradients
        if self.direction == "forward":
            return 2.0 * rows * (self.qk + self.v) + read
        return 2.0 * rows * (self.qk + 2 * self.v) + read + 4.0 * rows * self.qk + read


class Memory(NamedTuple):
    """A memory-bound kernel: `rows` rows, each `read` bytes in and `write` bytes out. `kind` names its class."""

    kind: str
    rows: int
    read: float
    write: float
    kernels: int = 1

    def flop(self) -> float:
        return 0.0

    def bytes(self) -> float:
        return self.rows * (self.read + self.write)


NCCL_SENDS, HYBRIDEP = "nccl", "hybridep"
"""Who moves an exchange, but for kernels such as DeepEP's (""): NCCL, which knows no tokens; HybridEP's kernels."""


class AllToAll(NamedTuple):
    """One expert exchange of a rank.

    direction: dispatch or combine. beside: the compute phases it runs beside in an overlapped pair (names a row of the
    communication table). tokens: of the rank's micro-batch. row_bytes: bytes of a token's row. nodes_reached,
    ranks_reached: mean number of distinct nodes and ranks that a token goes to, its own included. group: ranks that
    take part. group_nodes: nodes that they are on. by: who moves it.
    """

    direction: str
    beside: str
    tokens: int
    row_bytes: float
    nodes_reached: float
    ranks_reached: float
    group: int
    group_nodes: int
    kernels: int = 2
    by: str = ""

    @property
    def collective(self) -> bool:
        """Whether it is one of NCCL's collectives."""
        return self.by == NCCL_SENDS

    def flop(self) -> float:
        return 0.0

    def bytes(self) -> float:
        """Bytes that arrive at or leave this rank's memory (the larger of the two networks' share)."""
        return self.tokens * self.ranks_reached * self.row_bytes

    def logical_bytes(self) -> float:
        """What published bandwidths count: a row for each distinct node, the own node included."""
        return self.tokens * self.nodes_reached * self.row_bytes

    def wire_bytes(self) -> float:
        """What crosses this rank's NIC: the own node's share stays inside."""
        return self.logical_bytes() * (1 - 1 / self.group_nodes)

    def nvlink_bytes(self) -> float:
        """What crosses NVLink at this rank: a row for each distinct rank, less those that are the same GPU index."""
        per_node = self.group // self.group_nodes
        return self.tokens * self.ranks_reached * self.row_bytes * (1 - 1 / per_node)


class Send(NamedTuple):
    """A pipeline message of `size` bytes to a neighbour: whether it leaves the node and the leaf. slower: how many
    times longer its bytes take than on its NICs, for links between switches."""

    size: float
    leaves_node: bool
    leaves_leaf: bool
    kernels: int = 1
    slower: float = 1.0

    def flop(self) -> float:
        return 0.0

    def bytes(self) -> float:
        return self.size

    def wire_bytes(self) -> float:
        """What crosses the sender's NICs."""
        return self.size * self.leaves_node

    def nvlink_bytes(self) -> float:
        """What crosses NVLink at the sender."""
        return self.size * (not self.leaves_node)


class Collective(NamedTuple):
    """A reduce_scatter, all_gather, all_reduce or all_to_all of a vector of `size` bytes over `ranks` on `nodes` nodes.
    slower: as a `Send` has it. form: number format of the vector (switches add up some only)."""

    kind: str
    size: float
    ranks: int
    nodes: int
    kernels: int = 1
    slower: float = 1.0
    form: str = "bf16"

    def flop(self) -> float:
        return 0.0

    def bytes(self) -> float:
        """Bytes each rank sends."""
        share = (self.ranks - 1) / self.ranks if self.ranks else 0.0
        return self.size * share * (2 if self.kind == "all_reduce" else 1)

    def wire_bytes(self) -> float:
        """What crosses each rank's NICs: the ranks of a node pass on an equal part of what leaves it."""
        if self.kind == "all_to_all" and self.ranks:
            return self.size * (1 - 1 / self.nodes)
        return self.bytes() * self.nodes / self.ranks if self.nodes > 1 else 0.0

    def nvlink_bytes(self) -> float:
        """What crosses NVLink at each rank: all that goes around a ring, unless nobody shares a node."""
        if self.kind == "all_to_all":
            return self.bytes() - self.wire_bytes()
        return self.bytes() * (self.ranks > self.nodes)


class HostCopy(NamedTuple):
    """A copy of `size` bytes between device and host memory over PCIe."""

    size: float
    kernels: int = 1

    def flop(self) -> float:
        return 0.0

    def bytes(self) -> float:
        return self.size


class HostUpdate(NamedTuple):
    """An update by the CPU, which launches no kernel, that reads and writes `size` bytes of host memory in all."""

    size: float
    kernels: int = 0

    def flop(self) -> float:
        return 0.0

    def bytes(self) -> float:
        return self.size


Op = Gemm | GroupedGemm | Attention | Memory | AllToAll | Send | Collective | HostCopy | HostUpdate


def cast(rows: int, width: int, source: Layout = PLAIN_BF16, target: Layout = E4M3_ROWS) -> Memory:
    """Quantise row-wise."""
    return Memory("cast", rows, source.row_bytes(width), target.row_bytes(width))


def cast_transpose(rows: int, width: int, source: Layout = PLAIN_BF16) -> Memory:
    """Quantise to E4M3 in 128x1 tiles and transpose; an E4M3 source is dequantised on the way."""
    kind = "recast_transpose" if source.element is E4M3 else "cast_transpose"
    return Memory(kind, rows, source.row_bytes(width), E4M3_ROWS.row_bytes(width))


def dequantize(rows: int, width: int, source: Layout = E4M3_ROWS) -> Memory:
    kind = "dequantize_e5m6" if source.element is E5M6 else "dequantize"
    return Memory(kind, rows, source.row_bytes(width), PLAIN_BF16.row_bytes(width))


def store(rows: int, width: int, target: Layout) -> Memory:
    """Keep an activation for the backward pass in a narrower format."""
    kind = "store_e5m6" if target.element is E5M6 else "store"
    return Memory(kind, rows, PLAIN_BF16.row_bytes(width), target.row_bytes(width))


def norm(rows: int, width: int, reads: int = 1, writes: int = 1, direction: str = "forward") -> Memory:
    """RMSNorm over `width`, with fused residual streams: `reads` and `writes` BF16 tensors."""
    row = PLAIN_BF16.row_bytes(width)
    return Memory(f"norm_{direction}", rows, reads * row, writes * row)


def elementwise(rows: int, width: int, reads: int = 1, writes: int = 1) -> Memory:
    row = PLAIN_BF16.row_bytes(width)
    return Memory("elementwise", rows, reads * row, writes * row)


def copy(rows: int, width: int, reads: int = 1) -> Memory:
    """A strided copy; `reads=0` is a broadcast whose source stays in cache."""
    row = PLAIN_BF16.row_bytes(width)
    return Memory("copy" if reads else "broadcast", rows, reads * row, row)


def rope(rows: int, width: int) -> Memory:
    row = PLAIN_BF16.row_bytes(width)
    return Memory("rope", rows, row, row)


def transpose_weight(n: int, k: int, layout: Layout, groups: int = 1) -> Memory:
    row = layout.element.bits / 8 * k
    return Memory("weight_transpose", groups * n, row, row)


def transpose_scales(rows: int, width: int) -> Memory:
    row = PLAIN_FP32.row_bytes(width) / 128  # one FP32 scale a 1x128 tile
    return Memory("scale_transpose", rows, row, row)


def permute(tokens: int, rows: int, width: int, layout: Layout = PLAIN_E4M3) -> Memory:
    """Copy `tokens` received rows to `rows` expert-ordered ones."""
    row = layout.element.bits / 8 * width
    return Memory("permute", rows, tokens * row / rows, row)


def unpermute(tokens: int, rows: int, width: int) -> Memory:
    """Reduce `rows` expert-ordered rows to one a received token."""
    row = PLAIN_BF16.row_bytes(width)
    return Memory("unpermute", rows, row, tokens * row / rows)


def small(kind: str, rows: int = 1, row_bytes: float = 0.0, kernels: int = 1) -> Memory:
    """Kernels too small to be limited by bandwidth (routing, index maps, finalisers)."""
    return Memory(kind, rows, row_bytes / 2, row_bytes / 2, kernels)
