"""The ways of NCCL through a collective: an algorithm and a protocol."""

from typing import NamedTuple

from hwmodels.op import Collective

LL, LL128, SIMPLE = PROTOCOLS = ("LL", "LL128", "Simple")
"""Protocols: a flag beside every 4 bytes, one in every 128 bytes, and a fence after each chunk."""
RING, TREE, NVLS, NVLS_TREE, SHARP, DIRECT = ("ring", "tree", "NVLS", "NVLS tree", "SHARP", "direct")
"""NVLS: NVSwitches reduce and multicast. NVLS tree: inside a domain, with trees between domains. direct: every rank
sends to every other, or one to one."""


class Way(NamedTuple):
    """How a collective goes."""

    algorithm: str
    protocol: str

    def __str__(self) -> str:
        return f"{self.algorithm}, {self.protocol}"


def steps(op: Collective) -> int:
    """Steps of a ring."""
    return (op.ranks - 1) * (2 if op.kind == "all_reduce" else 1)


def far_steps(op: Collective) -> int:
    """Those of them that cross from one NVLink domain to the next."""
    return 0 if op.nodes == 1 else (op.nodes - 1) * (2 if op.kind == "all_reduce" else 1)
