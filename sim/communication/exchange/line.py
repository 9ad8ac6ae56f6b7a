"""A line of stages with finite buffers between them: who finishes which chunk when.

Chunk i goes to server i mod n of a stage with n servers. It starts there when it has come from the stage before, that
server is through with chunk i-n, and the buffer in front of the next stage has room again, which the stage learns one
credit latency late (blocking before service). Exact, deterministic, and vectorised over chunks and ranks: a server's
queue is a running maximum, and a full buffer pushes back at most as often as it fills.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]


class Stage(NamedTuple):
    """One station. service_s: of a chunk [ranks]. servers: chunks it works on at a time.

    latency_s: from the end of the stage before to the chunk being here. room: chunks that have been sent on by the
    stage before and not yet served here, at most. credit_s: until the stage before knows that one has been. Latency
    and credit are one for all ranks, or of each [ranks]. since: how many stages before this one the room is taken, when
    that stage begins with the chunk.
    """

    name: str
    service_s: Seconds
    servers: int = 1
    latency_s: float | Seconds = 0.0
    room: int = 1
    credit_s: float | Seconds = 0.0
    since: int = 1


def finish_s(stages: Sequence[Stage], chunks: int) -> Seconds:
    """Seconds until the last of `chunks` has left the last stage, for each rank [ranks]."""
    shape = (chunks, len(stages[0].service_s))
    done = [np.zeros(shape) for _ in stages]
    while True:
        before = done
        done = _pass(stages, before, shape)
        if all(np.array_equal(old, new) for old, new in zip(before, done, strict=True)):
            last: Seconds = done[-1].max(axis=0)
            return last


def _pass(stages: Sequence[Stage], known: Sequence[Seconds], shape: tuple[int, int]) -> list[Seconds]:
    """Ends of all chunks at all stages, given what is known of the ends behind each buffer [chunks, ranks]."""
    ready, done = np.zeros(shape), []
    for k, stage in enumerate(stages):
        ready = ready + stage.latency_s
        for j, after in enumerate(stages[k + 1 :], k + 1):
            if after.since == j - k and after.room < shape[0]:
                ready[after.room :] = np.maximum(ready[after.room :], known[j][: -after.room] + after.credit_s)
        ready = _serve(ready, stage)
        done.append(ready)
    return done


def _serve(ready: Seconds, stage: Stage) -> Seconds:
    """Ends at a stage of chunks that are ready at `ready` [chunks, ranks]: end = max(ready, end of i-n) + service."""
    chunks, ranks = ready.shape
    servers = min(stage.servers, chunks)
    rounds = -(-chunks // servers)
    padded = np.zeros((rounds * servers, ranks))
    padded[:chunks] = ready
    turns = padded.reshape(rounds, servers, ranks)
    behind = np.arange(rounds)[:, None, None] * stage.service_s
    ends = np.maximum.accumulate(turns - behind, axis=0) + behind + stage.service_s
    served: Seconds = ends.reshape(rounds * servers, ranks)[:chunks]
    return served
