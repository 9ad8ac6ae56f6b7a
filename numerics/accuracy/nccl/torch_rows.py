"""Collectives of torch over two H200s: nobody fitted anything to them.

Two of one host over NVLink, multicast off; torch 2.11.0, NCCL 2.28.9, measured for this project on 2026-11-29. A call
from Python took about 25 us (a message 45), which hides what a smaller vector takes.
"""

from hwmodels.collectives import wires
from hwmodels.nccl.library import Library
from hwmodels.node import load
from hwmodels.op import Collective, Send
from hwmodels.units import MIB, MICRO

SIZES = (16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB)
US = {
    "all_reduce": (74.87, 248.58, 897.72, 3283.7),
    "all_gather": (53.82, 157.72, 554.5, 2019.88),
    "reduce_scatter": (50.61, 166.49, 592.11, 2050.25),
    "all_to_all": (52.28, 140.11, 479.97, 1623.41),
    "send": (83.71, 255.08, 886.41, 2998.82),
}
"""Microseconds at these sizes."""


def ratios() -> dict[str, tuple[float, ...]]:
    """Predicted over measured, by operation."""
    library, links = Library("hopper"), wires(load("h200x8"), None)
    ops = {
        kind: [Send(size, False, False) if kind == "send" else Collective(kind, size, 2, 1) for size in SIZES]
        for kind in US
    }
    return {
        kind: tuple(library.take(op, links).seconds / (us * MICRO) for op, us in zip(ops[kind], US[kind], strict=True))
        for kind in US
    }
