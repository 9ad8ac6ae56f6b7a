"""What a result holds beside its spans: curves of memory, stages, use of links, loads of ranks, bars of a waterfall,
and one channel of an exchange."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class MemoryCurve:
    """Device memory of one rank over the step.

    position: of the pipeline.  rank: of the cluster, where the ranks at a position differ: that with the highest peak.
    times: ns, int64, ascending.  parts: name -> bytes at each time (float64 or int64, same length as times),
    stacked from the bottom: weights, gradients, optimizer states, communication buffers, activations.
    """

    position: int
    times: npt.NDArray[np.int64]
    parts: dict[str, npt.NDArray[np.int64]]
    capacity_bytes: int
    rank: int | None = None

    @property
    def whose(self) -> str:
        """Such as "a rank at position 3 of the pipeline", or "rank 397 (position 3 of the pipeline)"."""
        if self.rank is None:
            return f"a rank at position {self.position} of the pipeline"
        return f"rank {self.rank} (position {self.position} of the pipeline)"

    @property
    def peak_bytes(self) -> int:
        return int(sum(self.parts.values()).max())  # type: ignore[union-attr]


@dataclass(frozen=True)
class StageLoad:
    """What one pipeline stage holds and costs per micro-batch (seconds of stand-alone F, B and W)."""

    stage: int
    position: int
    contents: str  # e.g. "embedding, dense 0-2, MoE 3"
    layers: int
    parameters: int
    forward_s: float
    backward_input_s: float
    weight_s: float


@dataclass(frozen=True)
class Utilisation:
    """Links of the fabric that carry anything in a step, and how busy they are; 1 is the effective bandwidth.

    edges: ns, int64 [bins + 1].  classes, kinds: names of the classes of links and of the kinds of traffic.
    mean [classes, kinds, bins]: of the links in use of a class, by what they carry.  busiest [classes, bins]: of its
    busiest link at the time, all kinds together.  even: kinds with bytes that no span carries, spread over the step.
    ends [used]: what each link comes from and leads to.  of [used]: index into `classes`, ascending.
    size [used, kinds]: bytes in the step.  average, peak [used]: over the step, and in the busiest bin.
    """

    edges: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    kinds: tuple[str, ...]
    mean: npt.NDArray[np.float64]
    busiest: npt.NDArray[np.float64]
    even: tuple[str, ...]
    ends: tuple[tuple[str, str], ...]
    of: npt.NDArray[np.int64]
    size: npt.NDArray[np.float64]
    average: npt.NDArray[np.float64]
    peak: npt.NDArray[np.float64]

    @property
    def carried(self) -> list[int]:
        """Kinds of traffic that there is any of."""
        return np.flatnonzero(self.size.any(axis=0)).tolist()


@dataclass(frozen=True)
class RankLoads:
    """Expert loads as drawn for a run: a row for each layer with experts and rank that has it, by layer, then by rank.

    layer: as in the model, prediction modules after the last.  rank, position: in the cluster and in the pipeline.
    micro_batches: of the layer that come to the rank.  received, rows [rows, 3]: mean, smallest and largest over them
    of tokens received and of expert rows, each expert's padded to a tile.  nodes_reached, ranks_reached [rows]: mean
    number of distinct nodes (expected) and ranks (of the tokens drawn) that a token reaches in the layer.
    group: ranks of an expert group.  gpus_per_node: ranks of a node.  expected_rows: of every rank, experts alike.
    """

    layer: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    micro_batches: npt.NDArray[np.int64]
    received: npt.NDArray[np.float64]
    rows: npt.NDArray[np.float64]
    nodes_reached: npt.NDArray[np.float64]
    ranks_reached: npt.NDArray[np.float64]
    group: int
    gpus_per_node: int
    expected_rows: int


@dataclass(frozen=True)
class Bar:
    """One bar of the waterfall: seconds it adds to the step, and one sentence of what it is."""

    name: str
    seconds: float
    meaning: str


@dataclass(frozen=True)
class ChannelLanes:
    """One channel of an exchange from inside; ns from the end of its group's barrier.

    exchange: its name.  figures: names with what they are, text or seconds.  roles: in the order of the rows.
    spans: role, start, end and what it waited for, or "" where it worked, by start.  flying: link -> when rows in
    flight towards the buffers behind it change, and how many there are from then on.  room: link -> most of them.
    """

    exchange: str
    end: int
    figures: tuple[tuple[str, float | str], ...]
    roles: tuple[str, ...]
    spans: tuple[tuple[str, int, int, str], ...]
    flying: dict[str, tuple[tuple[int, int], ...]]
    room: dict[str, int]

    def spent(self) -> list[tuple[str, str, int]]:
        """Role, what it did ("" worked), and for how long in all, ns."""
        total: dict[tuple[str, str], int] = {}
        for role, start, end, why in self.spans:
            total[role, why] = total.get((role, why), 0) + end - start
        order = {role: place for place, role in enumerate(self.roles)}
        return [(*key, ns) for key, ns in sorted(total.items(), key=lambda item: (order[item[0][0]], item[0][1]))]
