"""What happened to each request, and what instances did, as columns."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim.serving.asked import Asked

Column = npt.NDArray[np.int64]
NEVER = -1
"""Of a moment that has not come."""


@dataclass
class Log:
    """Of requests [requests], ns: arrival; begun, when a prompt's first part was computed; first, sent and last, when
    its first token was there, its cache at the decoding instance, and its last token. cached: tokens of its prompt that
    were kept; fetched: of them, by host memory. again: how often it lost its cache. steps: durations of decode steps
    with the sequences in each; busy: ns that each kind of step took, over all instances; gpu_ns: the same times GPUs;
    spans: start and end of each prefill step and of decode steps taken together, with the instance, the kind, and
    tokens of prompts or sequences; load: moments before and after something comes or goes, each with an instance, the
    sequences that it decodes, its other jobs and the part of its blocks that is not free, which grows evenly between;
    inside: requests times ns in the system; swapped: how often a sequence went to host memory; failures: instances that
    failed, and down_ns how long they were not there."""

    arrival: Column
    begun: Column
    first: Column
    sent: Column
    last: Column
    cached: Column
    fetched: Column
    again: Column
    steps: list[tuple[Column, int]] = field(default_factory=list)
    busy: dict[str, int] = field(default_factory=dict)
    gpu_ns: int = 0
    spans: list[tuple[int, int, int, str, int]] = field(default_factory=list)
    load: list[tuple[int, int, int, int, float]] = field(default_factory=list)
    inside: int = 0
    swapped: int = 0
    failures: int = 0
    down_ns: int = 0

    @classmethod
    def of(cls, asked: Asked) -> "Log":
        """Of requests that nothing has happened to."""
        count = len(asked.arrival)
        begun, first, sent, last = np.full((4, count), NEVER, np.int64)
        return cls(asked.arrival.copy(), begun, first, sent, last, *np.zeros((3, count), np.int64))

    def spend(self, kind: str, ns: int, gpus: int) -> None:
        """A step, or several, of a kind, on so many GPUs."""
        self.busy[kind] = self.busy.get(kind, 0) + ns
        self.gpu_ns += ns * gpus
