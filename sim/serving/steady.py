"""A served load's steps by themselves: one kernel by kernel, and what a pool comes to at more and more sequences."""

from typing import Any

import numpy as np

from hwmodels.units import NS_PER_S
from sim.serving.asked import Asked
from sim.serving.deployment import deployed
from sim.serving.log import Log
from sim.serving.rank import Batch
from sim.serving.values import BOTH, DECODE, Serve


def points(serve: Serve, asked: Asked) -> list[dict[str, float]]:
    """What the first pool that decodes comes to at more and more sequences of an attention group, half through their
    answers: seconds a token, and tokens a second and GPU. No prompt comes between, no place is empty."""
    pool = serve.of(DECODE, BOTH)[0]
    own, keys = deployed(serve, pool), float((asked.prompt + asked.output / 2).mean())
    made = serve.speculation.tokens if serve.speculation.depth else 1.0
    out, batch = list[dict[str, float]](), 1
    while batch <= pool.batch and batch * keys <= max(float(own.tokens), keys):
        seconds = float(own.grid.decode_ns(batch, np.array([keys]))[0]) / NS_PER_S / made
        out.append({"sequences": batch, "tpot_s": seconds, "output_per_s_gpu": batch / seconds / pool.tensor})
        batch *= 2
    return out


def decode_step(serve: Serve, asked: Asked, log: Log) -> dict[str, Any] | None:
    """A decode step of the first pool that decodes, kernel by kernel, in one micro-batch: of as many sequences as its
    attention groups had on average over time, half through their answers. busiest_over_mean: rows that the busiest rank
    gets over the mean rank's, on average of layers; None without experts."""
    busy = sum(int(steps.sum()) for steps, _ in log.steps)
    if not busy:
        return None
    own = deployed(serve, serve.of(DECODE, BOTH)[0])
    mean = sum(int(steps.sum()) * count for steps, count in log.steps) / busy / own.pool.groups
    batch = Batch(max(1, round(mean)), own.grid.queries, float((asked.prompt + asked.output / 2).mean()))
    parts: dict[str, float] = {}
    kernels: dict[tuple[str, str], list[float]] = {}
    for part, kernel in own.grid.decoding.kernels(batch):
        seconds = own.grid.decoding.prices.ns(kernel.op) / NS_PER_S
        parts[part] = parts.get(part, 0.0) + seconds
        kernels.setdefault((part, kernel.name), []).append(seconds)
    above = [load.above for load in own.grid.decoding.loads(batch)]
    return {
        "sequences": batch.sequences, "keys": batch.keys, "seconds": own.grid.decoding.ns(batch) / NS_PER_S,
        "busiest_over_mean": sum(above) / len(above) if above else None,
        "parts_s": parts,
        "kernels": [
            {"part": part, "name": name, "launches": len(each), "seconds": sum(each)}
            for (part, name), each in kernels.items()
        ],
    }  # fmt: skip
