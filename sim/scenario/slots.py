"""Which places of the fabric the nodes of a job are given: side by side, scattered, or as a list says.

Nodes are numbered as ranks fill them; a slot is a place for a node, slots that are numbered in a row share leaves.
"""

from collections.abc import Sequence

import numpy as np

from hwmodels.document import did_you_mean
from hwmodels.refused import Refused
from sim.scenario.hashes import hashes

WORDS = ("packed", "scattered")
SHOWN = 3


def allocate(placement: str | Sequence[int], nodes: int, capacity: int, seed: int = 0) -> tuple[int, ...]:
    """The slot of each node [nodes]. packed: in order. scattered: the same slots in an order that the seed draws.

    A list gives the slots itself, of `capacity` that there are. Raises Refused with one line.
    """
    if isinstance(placement, str):
        if placement not in WORDS:
            near = did_you_mean(placement, WORDS)
            raise Refused(f"found {placement!r}{near or ';'} legal: {', '.join(WORDS)}, or a list of slots")
        if placement == "packed":
            return tuple(range(nodes))
        return tuple(np.argsort(hashes(seed, np.arange(nodes)), kind="stable").tolist())
    listed = tuple(placement)
    if len(listed) != nodes:
        raise Refused(f"expected {nodes} slots, one a node; found {len(listed)}")
    if wrong := [slot for slot in listed if not 0 <= slot < capacity]:
        raise Refused(f"the fabric has slots 0 to {capacity - 1}; found {_some(wrong)}")
    if twice := sorted({slot for slot in listed if listed.count(slot) > 1} if len(set(listed)) < nodes else ()):
        raise Refused(f"a slot holds one node; more than once: {_some(twice)}")
    return listed


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
