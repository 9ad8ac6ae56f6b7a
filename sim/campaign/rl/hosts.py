"""What hosts take where weights and states move: memory that is not page-locked, and work for each tensor.

All are single operations. Nothing of a step is in them.
"""

from hwmodels.units import GIGA, MICRO, MILLI
from sim.models.stacks.megatron import host

PAGEABLE_AWAY = 1.41 * GIGA
"""Bytes/s of a GPU's tensors, one after another, to new memory of the host that is not page-locked: 4.94 GB of an
optimizer's states, in 510 copies, on an H100 whose page-locked memory takes 55 GB/s. NeMo-RL's offload_before_refit
took 3.76 s in all, 0.265 of them a collection and an emptied allocator as below (issue 3976 there, profile of September
2026; the copies themselves 2.75 s, 1.8 GB/s). Such copies by wall clock on the H200 below: 1.6. A module's weights on
another: 2.8 (sgl-project/sglang pull request 32032)."""
PAGEABLE_BACK = 16.1 * GIGA
"""The same where the memory's pages are there, as they are on the way back: a copy of 1 GiB on the same host, the other
way round (the same profile; its way back is not in it)."""
AT_ONCE = {1: (1.0, 1.0), 2: (0.86, 0.80), 4: (0.82, 0.76), 8: (0.76, 0.61)}
"""GPUs of a node that all do so at once -> the slowest one's rate over that of one alone, away and back: processes that
copied 24 or 32 tensors of 117 MB of one H200, 16 cores of a virtual machine, where one alone had 1.5 and 8.1 GB/s and
the slowest of eight 1.14 and 4.9. PCIe had room for all."""
GIVEN_BACK = {1: 21.7 * GIGA, 8: 10.2 * GIGA}
"""GPUs of a node that do so at once -> bytes/s at which such memory goes back to the system when its tensors are on the
GPU again: 24 tensors of 117 MB there, 0.046 s a GB by one process and 0.093 to 0.098 by each of eight."""
COLLECTED = 0.2
"""Seconds of Python's garbage collection with torch and transformers loaded, 441,000 objects; measured there."""
EMPTIED = 0.065 + 0.06
"""Seconds of torch's allocator to give 60 GB back in tensors of 117 MB, and to get as much again; measured there (0.75
in tensors of 20 MB)."""
TIDIED = COLLECTED + EMPTIED
"""Seconds of both, which workers do before others need the memory."""
TIDIED_TURNS, TIDIED_REFERENCE = 5, 2
"""How often a step does so where rollouts and updates take turns (the engine falls asleep, log-probabilities begin,
optimizer states have gone, weights were sent, the trainer's have gone) and where a reference changes places
(megatron_policy_worker.py and utils.py of nemo_rl/models/policy, and vLLM's allocator; NVIDIA-NeMo/RL v0.6.0)."""
NAME = 0.06 * MICRO
"""Seconds for one name of a list of experts' tensors that does not match: CPython 3.11, measured here (0.060 to 0.061
in three runs over 768 names, each the shortest of seven; 0.04 by sgl-project/sglang pull request 19299: 179 million in
6.67 s). vLLM's loaders go through that list for each tensor."""
NAMES = 3 / 2
"""Names that are gone through, for each expert: of three tensors of each, half of the list on average."""
RAY, RAY_RANK, RAY_NODE = 0.2 * MILLI, 0.03 * MILLI, 0.6 * MILLI
"""Seconds of an empty step through a compiled graph of Ray 2.54.0 until all ranks have answered: by itself, for each
rank (the driver reads one after another) and for each further node. Measured here, on two busy cores and with a raylet
for each node, the shortest of thousands: 0.25 ms of one rank, 0.71 of eight; 0.65, 1.82 and 2.06 with one more on one
to three further nodes; for 32 ranks on four nodes the driver computes 2.7 ms. No network is in them."""
CALL, PACKED, PACKED_RATE = 0.1 * MILLI, 0.3 * MILLI, 0.55 * GIGA
"""Seconds of a controller to call a worker; seconds and bytes/s to pack what it gets: Ray 2.54.0 and CPU tensors of
torch, two or six large ones, called one after another as NeMo-RL's driver does. CPU time of the calling thread, the
shortest of four rows of calls on two busy cores: 0.8 ms (0.4 MB), 1.1 and 2.0 (0.8), 3.2 (1.6), 6.7 (4.2), 10.7 (5.2),
18.3 (8.4), 30.9 (16.8), 50.4 (33.6); from 1.6 MB on the line is within 21 %. NeMo-RL tells of some 4 s a call to the
workers of 32 nodes, of longer sequences than any row's, and of less than one where nothing is packed anew
(NVIDIA-NeMo/RL issue 1037); release 0.7 packs once (its pull request 1944, May 2026), 0.6 does not."""
TRAY, MOST_OF_A_HOST = 4, 8
"""GPUs of a host of a rack (a compute tray of GB200 NVL72), and most that another host has."""
VIEWS, OPERATIONS = 7, 1
"""Of a tensor at its receiver: cut out of a buffer, given its form, its part and its place chosen; copied
(nemo_rl/models/generation/vllm/vllm_backend.py of v0.6.0, vLLM's weight loaders)."""
TENSOR = (VIEWS * host.VIEW + OPERATIONS * host.OPERATION) * MICRO
"""Seconds of them, by single operations of torch on an H200's host."""
TURN = 17 * MICRO
"""Seconds that a receiver's copy of 0.9 MB takes from a sender whose copies of 29 to 470 MB follow one another on the
same GPU in another process, 9,300 times a second: measured on an H200 (16 to 18 us; 3 where copies follow at once)."""


def pageable(gpus: int) -> tuple[float, float]:
    """Bytes/s of a GPU's tensors to new memory that is not page-locked, and back from it until it is given back, by so
    many GPUs at once."""
    away, back = AT_ONCE[max(each for each in AT_ONCE if each <= gpus)]
    given = GIVEN_BACK[max(each for each in GIVEN_BACK if each <= gpus)]
    return PAGEABLE_AWAY * away, 1 / (1 / (PAGEABLE_BACK * back) + 1 / given)


def ray_s(ranks: int, gpus: int) -> float:
    """What Ray adds to a step of an instance of several ranks on nodes of so many GPUs."""
    hosts = -(-ranks // (TRAY if gpus > MOST_OF_A_HOST else gpus))
    return RAY + RAY_RANK * ranks + RAY_NODE * (hosts - 1) if ranks > 1 else 0.0


def sent_s(workers: int, parts: int, size: float, each: bool) -> float:
    """Until a controller has called so many workers, of which each gets one of so many parts of a batch. size: bytes of
    a part. each: a part is packed anew for every worker that gets it."""
    return workers * CALL + (workers if each else parts) * (PACKED + size / PACKED_RATE)


def received_s(tensors: float, experts: int) -> float:
    """Until a receiver's host has put so many tensors in place; experts: of a layer, 0 where there is no mixture."""
    return tensors * (TENSOR + NAMES * experts * NAME)
