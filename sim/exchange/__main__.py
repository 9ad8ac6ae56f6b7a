"""`python -m sim.exchange SCENARIO.yaml [key=value ...]`: sweep comm.sms; print it and the published checks as JSON."""

import json
import sys
from typing import Any

from hwmodels.collectives import wires
from sim.exchange import published, sweep
from sim.exchange.roles import COPY
from sim.scenario import Scenario, load

PACES = (0.75, 1.5, 2.0)
"""Warps that need so many times as long for a row: how far the answer hangs on a speed taken over from a sibling."""


def study(scenario: Scenario) -> dict[str, Any]:
    """Splits, the same with other warps, and single exchanges beside what was published; SI units but for names."""
    cluster = scenario.cluster
    if cluster is None:
        raise ValueError("a scenario with chunk_times has no exchanges to sweep; give a model and a cluster")
    links, device = wires(cluster.node, None), cluster.node.device
    other = {str(pace): sweep.splits(scenario, copy=sweep.slower(COPY, pace)) for pace in PACES}
    rows = [*published.bandwidths(links), *published.latencies(links, device.sms)]
    return {
        "scenario": scenario.name,
        "splits": sweep.rows(sweep.splits(scenario)),
        "paces": {pace: sweep.rows(found) for pace, found in other.items()},
        "published": [{**row._asdict(), "error": row.error} for row in rows],
        "profile": [{**r._asdict(), "stretch": r.stretch} for r in published.profile("h800", links, 20)],
    }


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: python -m sim.exchange SCENARIO.yaml [key=value ...]", file=sys.stderr)
        return 2
    scenario = load(arguments[0], ["outputs=[result]", *arguments[1:]])
    print(json.dumps(study(scenario), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
