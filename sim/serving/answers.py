"""What a served load comes to: distributions of waiting, goodput, tokens a second, and where the time went."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.units import MEGA, NS_PER_S, SECONDS_PER_HOUR
from sim.serving.asked import Asked
from sim.serving.deployment import deployed
from sim.serving.log import NEVER, Log
from sim.serving.rank import Batch
from sim.serving.values import BOTH, CLOSED, DECODE, PREFILL, Serve

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
CURVE = 101
"""Points of a distribution that is drawn."""
Reals = npt.NDArray[np.float64]


def answers(serve: Serve, asked: Asked, log: Log) -> dict[str, Any]:
    """The content of result.json under `serve`, in SI units. Times to the first token end with the prefill step that
    makes it, wherever the request decodes then."""
    end = int(log.last.max())
    span = max(1, end - int(log.arrival.min())) / NS_PER_S
    ttft = (log.first - log.arrival) / NS_PER_S
    later = asked.output > 1
    tpot = (log.last - log.first)[later] / NS_PER_S / (asked.output - 1)[later]
    return {
        "requests": len(asked.arrival),
        "span_s": span,
        "load": "saturated" if serve.requests.arrivals == CLOSED else "averaged",
        "gpus": serve.gpus,
        "ttft_s": distribution(ttft),
        "tpot_s": distribution(tpot),
        "inter_token_s": _between_tokens(log),
        "end_to_end_s": distribution((log.last - log.arrival) / NS_PER_S),
        "queue_s": distribution((log.begun - log.arrival) / NS_PER_S),
        "transfer_s": distribution(((log.sent - log.first) / NS_PER_S)[log.sent != NEVER]),
        "goodput": _goodput(serve, asked, log, span),
        "tokens": _tokens(serve, asked, log, span),
        "in_system": log.inside / NS_PER_S / span,
        "busy": {kind: ns / NS_PER_S / span for kind, ns in sorted(log.busy.items())},
        "preemptions": int(log.again.sum()),
        "pools": [_pool(serve, i) for i in range(len(serve.pools))],
        "decode_step": _step(serve, asked, log),
    }  # fmt: skip


def _step(serve: Serve, asked: Asked, log: Log) -> dict[str, Any] | None:
    """A decode step of the first pool that decodes, kernel by kernel, in one micro-batch: of as many sequences as its
    attention groups had on average over time, half through their answers."""
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
    return {
        "sequences": batch.sequences, "keys": batch.keys, "seconds": own.grid.decoding.ns(batch) / NS_PER_S,
        "parts_s": parts,
        "kernels": [
            {"part": part, "name": name, "launches": len(each), "seconds": sum(each)}
            for (part, name), each in kernels.items()
        ],
    }  # fmt: skip


def waits(asked: Asked, log: Log) -> dict[str, list[tuple[float, float]]]:
    """Seconds that parts of all requests took at most, for drawings."""
    parts = np.linspace(0, 1, CURVE)
    kinds = {
        "time to first token": log.first - log.arrival, "end to end": log.last - log.arrival,
        "time per later token": ((log.last - log.first) / np.maximum(1, asked.output - 1))[asked.output > 1],
    }  # fmt: skip
    return {
        name: [(float(x) / NS_PER_S, float(y)) for x, y in zip(np.quantile(each, parts), parts, strict=True)]
        for name, each in kinds.items() if len(each)
    }  # fmt: skip


def distribution(values: Reals) -> dict[str, float | None]:
    """Mean and quantiles; nothing where there is no value."""
    if not len(values):
        return {"mean": None, **dict.fromkeys(QUANTILES)}
    at_parts = np.quantile(values, list(QUANTILES.values()))
    return {
        "mean": float(values.mean()),
        **{name: float(value) for name, value in zip(QUANTILES, at_parts, strict=True)},
    }


def _between_tokens(log: Log) -> dict[str, float | None]:
    """Of steps, each counted for every sequence in it."""
    if not log.steps:
        return distribution(np.zeros(0))
    each = np.concatenate([steps for steps, _ in log.steps]) / NS_PER_S
    weight = np.concatenate([np.full(len(steps), float(count)) for steps, count in log.steps])
    order = np.argsort(each, kind="stable")
    passed = np.cumsum(weight[order]) / weight.sum()
    at = np.minimum(np.searchsorted(passed, list(QUANTILES.values())), len(each) - 1)
    at_parts = {name: float(each[order[i]]) for name, i in zip(QUANTILES, at, strict=True)}
    return {"mean": float((each * weight).sum() / weight.sum()), **at_parts}


def _goodput(serve: Serve, asked: Asked, log: Log, span: float) -> dict[str, float]:
    """Requests that keep both objectives."""
    limits = serve.objectives
    quick = log.first - log.arrival <= limits.ttft_ns
    steady = log.last - log.first <= limits.tpot_ns * np.maximum(1, asked.output - 1)
    kept = quick & steady
    return {
        "requests_per_s": float(kept.sum()) / span, "part": float(kept.mean()),
        "ttft_part": float(quick.mean()), "tpot_part": float(steady.mean()),
    }  # fmt: skip


def _tokens(serve: Serve, asked: Asked, log: Log, span: float) -> dict[str, float | int | None]:
    """Tokens, and a second: of prompts, those of them that were kept from others, and of answers."""
    prompt, cached, output = int(asked.prompt.sum()), int(log.cached.sum()), int(asked.output.sum())
    fills = sum(pool.gpus * pool.instances for pool in serve.of(PREFILL, BOTH))
    decodes = sum(pool.gpus * pool.instances for pool in serve.of(DECODE, BOTH))
    cost = serve.cost * serve.gpus * span / (prompt + output) * MEGA if serve.cost else None
    return {
        "prompt": prompt, "cached": cached, "output": output,
        "prompt_per_s_gpu": prompt / span / serve.gpus, "output_per_s_gpu": output / span / serve.gpus,
        "prompt_per_s_prefill_node": (prompt - cached) / span / fills * serve.node.gpus,
        "output_per_s_decode_gpu": output / span / decodes,
        "output_per_s_decode_node": output / span / decodes * serve.node.gpus,
        "gpu_hours": serve.gpus * span / SECONDS_PER_HOUR, "usd_per_million": cost,
    }  # fmt: skip


def _pool(serve: Serve, number: int) -> Mapping[str, Any]:
    """What an instance of a pool holds."""
    pool = serve.pools[number]
    own = deployed(serve, pool)
    return {
        "does": pool.does, "instances": pool.instances, "gpus": pool.gpus, "groups": pool.groups,
        "weight_bytes": own.weight_bytes, "cache_bytes_per_token": own.token_bytes, "cache_tokens": own.tokens,
        "prefix_tokens": own.prefix_tokens,
    }  # fmt: skip
