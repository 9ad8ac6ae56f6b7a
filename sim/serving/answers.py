"""What a served load comes to: distributions of waiting, goodput, tokens a second, and where the time went."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.power import IDLE_W
from hwmodels.units import MEGA, NS_PER_S, SECONDS_PER_HOUR
from sim.serving.asked import Asked
from sim.serving.deployment import deployed
from sim.serving.log import NEVER, Log
from sim.serving.steady import decode_step, points
from sim.serving.values import BOTH, CLOSED, DECODE, PREFILL, Serve

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
CURVE = 101
"""Points of a distribution that is drawn."""
Reals = npt.NDArray[np.float64]


def answers(serve: Serve, asked: Asked, log: Log) -> dict[str, Any]:
    """The content of result.json under `serve`, in SI units."""
    steps = {"decode_step": decode_step(serve, asked, log), "operating_points": points(serve, asked)}
    return figures(serve, asked, log) | steps


def figures(serve: Serve, asked: Asked, log: Log) -> dict[str, Any]:
    """Those of the load alone. Times to the first token end with the prefill step that makes it, wherever the request
    decodes then."""
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
        "waiting_s": _waiting(log),
        "cache_used": _cache_used(log, end, sum(pool.instances for pool in serve.pools)),
        "energy": _energy(serve, asked, log, span),
        "preemptions": int(log.again.sum()),
        "swapped": log.swapped,
        "failures": log.failures,
        "down_s": log.down_ns / NS_PER_S,
        "pools": [_pool(serve, i) for i in range(len(serve.pools))],
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
    """Requests that keep both objectives; a second: the load's own rate times their part, so that the end of a run, in
    which no request comes any more, is not counted (too high at most by what the objectives allow an answer over the
    time in which requests come). A closed loop's load is what it is answered: there it is those over the whole run."""
    limits = serve.objectives
    quick = log.first - log.arrival <= limits.ttft_ns
    steady = log.last - log.first <= limits.tpot_ns * np.maximum(1, asked.output - 1)
    kept = quick & steady
    return {
        "requests_per_s": float(kept.mean()) * _load(serve, log, span), "part": float(kept.mean()),
        "ttft_part": float(quick.mean()), "tpot_part": float(steady.mean()),
    }  # fmt: skip


def _load(serve: Serve, log: Log, span: float) -> float:
    """Requests a second: over the gaps between their arrivals; of a closed loop, or where all come at once, over the
    whole run."""
    count, gaps = len(log.arrival), int(log.arrival.max() - log.arrival.min()) / NS_PER_S
    return count / span if serve.requests.arrivals == CLOSED or not gaps else (count - 1) / gaps


def _tokens(serve: Serve, asked: Asked, log: Log, span: float) -> dict[str, float | int | None]:
    """Tokens, and a second: of prompts, those of them that were kept from others, and of answers."""
    prompt, cached, output = int(asked.prompt.sum()), int(log.cached.sum()), int(asked.output.sum())
    fills = sum(pool.gpus * pool.instances for pool in serve.of(PREFILL, BOTH))
    decodes = sum(pool.gpus * pool.instances for pool in serve.of(DECODE, BOTH))
    cost = serve.cost * serve.gpus * span / (prompt + output) * MEGA if serve.cost else None
    return {
        "prompt": prompt, "cached": cached, "cached_by_host": int(log.fetched.sum()), "output": output,
        "prompt_per_s_gpu": prompt / span / serve.gpus, "output_per_s_gpu": output / span / serve.gpus,
        "prompt_per_s_prefill_node": (prompt - cached) / span / fills * serve.node.gpus,
        "output_per_s_decode_gpu": output / span / decodes,
        "output_per_s_decode_node": output / span / decodes * serve.node.gpus,
        "gpu_hours": serve.gpus * span / SECONDS_PER_HOUR, "usd_per_million": cost,
        "usd_per_million_output": cost * (prompt + output) / output if cost else None,
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


def _waiting(log: Log) -> dict[str, float]:
    """Mean seconds of a request by what it waits for: an instance, its prompt's steps, its cache's way, its answer."""
    sent = np.where(log.sent == NEVER, log.first, log.sent)
    marks = log.arrival, log.begun, log.first, sent, log.last
    pairs = zip(("instance", "prompt", "transfer", "answer"), marks, marks[1:], strict=False)
    return {name: float((after - before).mean()) / NS_PER_S for name, before, after in pairs}


def _cache_used(log: Log, end: int, instances: int) -> dict[str, float]:
    """Part of the blocks of an instance in use: over time, on average over instances, and most of any."""
    area, most, last = 0.0, 0.0, dict[int, tuple[int, float]]()
    for time, number, _, _, used in log.load:
        since, before = last.get(number, (time, 0.0))
        area, most = area + (before + used) / 2 * (time - since), max(most, used)
        last[number] = time, used
    start = min((time for time, *_ in log.load), default=0)
    return {"mean": area / max(1, end - start) / instances, "most": most}


def _energy(serve: Serve, asked: Asked, log: Log, span: float) -> dict[str, float | None]:
    """Joules of GPUs, also of a million tokens. All steps draw alike: where that is the card's power limit it is a
    bound, for those that wait for memory draw less (InferenceX's MI355Xs took 508 W of 1,400 at 4 clients, row
    IX-MI355X-4). At rest a GPU draws `IDLE_W`. Nothing where nobody says what it draws."""
    if not serve.watts:
        return {"joules": None, "joules_per_million": None, "joules_per_million_output": None}
    busy = log.gpu_ns / NS_PER_S
    joules = busy * serve.watts + max(0.0, serve.gpus * span - busy) * IDLE_W
    made = int(asked.output.sum())
    every = joules / (made + int(asked.prompt.sum())) * MEGA
    return {"joules": joules, "joules_per_million": every, "joules_per_million_output": joules / made * MEGA}
