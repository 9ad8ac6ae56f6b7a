"""A served load as files: result.json, the scenario that gives it again, and a row a request."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sim.result import SCHEMA_VERSION
from sim.result.archive import scenario_text
from sim.result.folder import LISTED, MARK, listed
from sim.serving.asked import Asked
from sim.serving.log import NEVER, Log
from sim.serving.values import Serve

REQUESTS = "requests.csv"
TRACE = "trace.json.gz"
SCENARIO = "scenario.yaml"
FILES = (MARK, SCENARIO, REQUESTS, TRACE, "report.html")
"""What a run writes."""
COLUMNS = ("arrival_ns", "prompt", "output", "cached", "begun_ns", "first_ns", "sent_ns", "last_ns", "again")


def summary(serve: Serve, content: dict[str, Any]) -> dict[str, Any]:
    """The content of result.json."""
    return {
        "schema_version": SCHEMA_VERSION, "scenario": serve.name, "scenario_hash": serve.scenario_hash,
        "overrides": list(serve.overrides), "feasible": True, "unfelt": list(serve.unfelt), "serve": content,
    }  # fmt: skip


def names(serve: Serve) -> list[str]:
    """What instances are called, in the order of their numbers."""
    pools = [pool for pool in serve.pools for _ in range(pool.instances)]
    return [f"instance {i}: {pool.does}, {pool.gpus} GPUs" for i, pool in enumerate(pools)]


def marks(log: Log) -> Iterator[tuple[int, ...]]:
    """Of each request, when it came, was begun, had its first token, its cache where it decodes, and its last token."""
    sent = np.where(log.sent == NEVER, log.first, log.sent)
    columns = (log.arrival, log.begun, log.first, sent, log.last)
    return zip(*(column.tolist() for column in columns), strict=True)


def write(folder: Path, content: dict[str, Any], scenario: dict[str, Any], asked: Asked, log: Log) -> None:
    """Requests, the scenario as plain values, and the result with digests of all files that are there."""
    (folder / SCENARIO).write_text(scenario_text(scenario), encoding="utf-8")
    with (folder / REQUESTS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        columns = (
            log.arrival,
            asked.prompt,
            asked.output,
            log.cached,
            log.begun,
            log.first,
            log.sent,
            log.last,
            log.again,
        )
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
    text = json.dumps({**content, LISTED: listed(folder)}, indent=2)
    (folder / MARK).write_text(text + "\n", encoding="utf-8")
