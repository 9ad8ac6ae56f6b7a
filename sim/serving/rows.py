"""Published measurements of serving beside ours: published.yaml, row by row."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwmodels.document import Document, read
from hwmodels.units import MS_NS, NS_PER_S, PERCENT
from sim.serving import files, system
from sim.serving.deployment import Deployed, deployed
from sim.serving.rank import Batch
from sim.serving.values import NVLINK, SGLANG, Serve

FILE = Path(__file__).with_name("published.yaml")
LEAST_PART, PER_CLIENT, FEWEST = 0.8, 6, 40
"""InferenceX: lengths are uniform over 0.8 to 1 of the nominal; requests of a client, and of all at least, here."""
STEADY = (0.25, 0.75)
"""Parts of the requests between whose ends a closed loop's throughput is counted."""
POPULARITY = Path(__file__).with_name("popularity")
"""Histograms of experts as texts liked them (`liked` of a row)."""

Row = Mapping[str, Any]


class Compared(NamedTuple):
    """A row and what we say of it."""

    row: Row
    ours: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.ours / float(self.row["value"]) - 1


def rows(file: Path = FILE) -> list[Row]:
    """All rows that are answered."""
    content: list[Row] = read(file).content["rows"]
    return content


def left_out(file: Path = FILE) -> Mapping[str, str]:
    """Rows that are not, and why."""
    content: Mapping[str, str] = read(file).content["left_out"]
    return content


@cache
def compared() -> tuple[Compared, ...]:
    """Every row beside ours."""
    return tuple(Compared(row, ours(row)) for row in rows())


def ours(row: Row) -> float:
    """What we say of a row, in its unit."""
    return {"gain": _gain, "ratio": _ratio, "served": _served, "output": _output}.get(row["reading"], _rate)(row)


def _rate(row: Row) -> float:
    """Of one step: ms, or tokens/s of a GPU or a node."""
    ns, tokens = _step(row)
    if row["reading"] == "step":
        return ns / MS_NS
    serve = scenario(row)
    per_gpu = tokens / (ns / NS_PER_S) / serve.pools[0].tensor
    return per_gpu if row["reading"] == "decode_gpu" else per_gpu * min(serve.node.gpus, 8)


def _gain(row: Row) -> float:
    """Per cent by which two micro-batches are faster than one."""
    apart, together = (_step({**row, "overlap": each})[0] for each in (False, True))
    return (apart / together - 1) / PERCENT


def _ratio(row: Row) -> float:
    """Tokens/s of a GPU over those of what it is compared with."""
    other = {**row, **row["over"]}
    if not other.get("depth"):
        other.pop("tokens_per_step", None)
    (one_ns, one), (other_ns, others) = _step(row), _step(other)
    return one / one_ns / (others / other_ns)


def _step(row: Row) -> tuple[int, float]:
    """ns of a step, and tokens that an attention group makes or reads in it."""
    own, whole = instance(row).grid, batch(row)
    if whole.prefill:
        return own.prefilling.ns(whole), float(whole.tokens)
    return own.decoding.ns(whole), row["batch"] * float(row.get("tokens_per_step", scenario(row).speculation.tokens))


def batch(row: Row) -> Batch:
    """What an attention group computes in the step of a row."""
    if "tokens" in row:
        count = row["tokens"] // row["length"] or 1
        return Batch(count, row["tokens"] // count, float(row["length"]), prefill=True)
    return Batch(row["batch"], row.get("queries", 1 + scenario(row).speculation.depth), float(row["keys"]))


def _served(row: Row) -> float:
    """Median ms of a later token in a closed loop."""
    asked, log = system.run(scenario(row))
    return float(np.median((log.last - log.first) / np.maximum(1, asked.output - 1))) / MS_NS


def _output(row: Row) -> float:
    """Tokens of answers a second and GPU in a closed loop, between the ends of its STEADY requests."""
    serve = scenario(row)
    asked, log = system.run(serve)
    order = np.argsort(log.last, kind="stable")
    first, last = (order[round(part * (len(order) - 1))] for part in STEADY)
    inside = (log.last > log.last[first]) & (log.last <= log.last[last])
    span = int(log.last[last] - log.last[first]) / NS_PER_S
    return float(asked.output[inside].sum()) / span / serve.gpus


def instance(row: Row) -> Deployed:
    """The instance of a row. Whether its weights fit is not asked: steps of published runs did run."""
    serve = scenario(row)
    return deployed(serve, serve.pools[0])


def scenario(row: Row) -> Serve:
    """A row as a scenario."""
    clients = row.get("clients", 1)
    count = max(FEWEST, row.get("per_client", PER_CLIENT) * clients)
    least = row.get("least_part", LEAST_PART)
    prompt, output = ({"most": row.get(key, 1), "least_part": least} for key in ("prompt", "output"))
    pool = {
        "tensor": row.get("tensor", 1), "expert": row.get("expert", 1), "redundant_experts": row.get("redundant", 0),
        "overlap": bool(row.get("overlap", False)), "batch": max(256, clients),
        "neighbours": row.get("neighbours", NVLINK),
    }  # fmt: skip
    liked = row.get("liked")
    routing = {"kind": "recorded", "histogram": str(POPULARITY / f"{liked}.csv")} if liked else {}
    routing |= {"drift": row.get("drift", 0.0)}
    serve = {
        "model": row.get("model", "deepseek_v3"), "node": row["cards"], "fabric": "ndr", "pools": [pool],
        "engine": row.get("engine", SGLANG),
        "routing": routing,
        "cache": {"format": row.get("format", "bf16"), "attention": row.get("attention", "bf16"), "memory": 0.93},
        "requests": {
            "arrivals": "closed", "clients": clients, "count": count, "prompt": prompt, "output": output,
        },
    }  # fmt: skip
    made = files.resolve(Document({"name": row["id"], "serve": serve}, {}))
    drafting = made.speculation._replace(depth=row.get("depth", 0), acceptance=row.get("acceptance", 0.0))
    return replace(made, speculation=drafting)
