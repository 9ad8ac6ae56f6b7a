"""What a device holds beside what a step keeps: stated spreads, in no peak and no verdict.

Sources: the CUDA context takes about 300 MB where kernels are loaded lazily (since CUDA 11.7) and more than 1,000 MB
where all are (github.com/pytorch/pytorch issue 107667, 2023-08-28). NCCL's memory grows with its channels, each with a
circular buffer of 4 MiB a connection (NCCL_BUFFSIZE), a ring having two (github.com/NVIDIA/nccl issues 391 and 986);
one communicator was seen to take 1.6 GB (issue 864). What torch's allocator reserves is 1.015 to 1.277 times what is
allocated, in all 21 steps measured for this project (scenarios/measured).
"""

from collections.abc import Mapping

from hwmodels.units import GB, MB, MIB
from sim.layout.machine import Machine
from sim.layout.plan import Plan

CONTEXT = 300 * MB, GB
RESERVED = 1.015, 1.277
BUFFER, CONNECTIONS, CHANNELS = 4 * MIB, 2, 16
"""Bytes of a connection; those of a ring in a channel; channels at least (hwmodels.nccl)."""
COMMUNICATOR = 1.6 * GB
"""The most that one was seen to take."""
KINDS = ("tensor", "context", "shard", "replica", "expert", "expert_tensor", "expert_shard", "expert_replica")
"""Groups that have a communicator of their own."""


def beside(plan: Plan, machine: Machine, peak_bytes: int) -> Mapping[str, list[int]]:
    """Lowest and highest bytes of each, for stacks whose libraries these are; none for others."""
    if not machine.site.stack.library:
        return {}
    groups = sum(plan.mesh.groups(kind).shape[1] > 1 for kind in KINDS) + (plan.program.positions > 1)
    rings = groups * CHANNELS * CONNECTIONS * BUFFER
    return {
        "cuda_context": list(CONTEXT),
        "nccl_buffers": [rings, round(max(rings, groups * COMMUNICATOR))],
        "fragmentation": [round((part - 1) * peak_bytes) for part in RESERVED],
    }
