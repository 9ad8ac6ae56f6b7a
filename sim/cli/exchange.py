"""`python -m sim exchange SCENARIO.yaml [key=value ...]`: sweep comm.sms; print it and the published checks as JSON.

Exit codes as of `python -m sim`: 0 done, 2 wrong input (one line on stderr), 70 a bug of ours (its traceback), 130
interrupted, 141 a closed pipe.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwmodels.collectives import wires
from hwmodels.refused import Refused
from sim.cli import pages
from sim.cli.command import DONE, Parser, loaded, refusals
from sim.communication.exchange.roles import COPY, FIXED, FOLLOW
from sim.experiments import comm_sms
from sim.experiments.channels import channels
from sim.models.family import family
from sim.scenario.values import Cluster, Scenario
from sim.validation import exchanges

PROG = "python -m sim exchange"

HELP = """\
usage: python -m sim exchange SCENARIO.yaml [key=value ...] [--timeline [--out DIR]]

How many SMs should communication hold? JSON on stdout: the scenario at 4 to 32 SMs with roles that follow their load
and fixed ones (splits; `warps` says which are the scenario's), the same with slower or faster warps (paces), exchanges
without any SM beside comm.sms (offload), single exchanges and the profile's beside the model. All by the warp-level
kernel, whatever comm.exchange says.

options:
  --timeline           instead: each exchange of a layer from inside, role by role as events in one channel, what each
                       role waits for and rows in flight; printed, and drawn in DIR/exchange.html
  --out DIR            where that page goes (default: out/<scenario>); nothing else in the folder is touched
"""

PACES = (0.75, 1.5, 2.0)
"""Warps that need so many times as long for a row: how far the answer hangs on a speed taken over from a sibling."""


def figures(scenario: Scenario) -> dict[str, Any]:
    """Splits, the same with other warps, exchanges without SMs, and single ones beside what was published; SI units but
    for names. Raises Refused when there is no cluster, or it cannot run the exchanges."""
    cluster = _cluster(scenario, "sweep")
    links, device = wires(cluster.node, None), cluster.node.device
    paces = {1.0: COPY} | {pace: comm_sms.slower(COPY, pace) for pace in PACES}
    splits = {
        kind: {pace: comm_sms.rows(comm_sms.splits(scenario, kind, copy=copy)) for pace, copy in paces.items()}
        for kind in (FOLLOW, FIXED)
    }
    rows = [*exchanges.bandwidths(links), *exchanges.latencies(links, device.sms)]
    return {
        "scenario": scenario.name,
        "overrides": list(scenario.overrides),
        "warps": scenario.comm.warps,
        "splits": {kind: rows[1.0] for kind, rows in splits.items()},
        "paces": {kind: {str(pace): rows[pace] for pace in PACES} for kind, rows in splits.items()},
        "offload": [row._asdict() for row in comm_sms.offloads(scenario)],
        "published": [_beside(row) for row in rows],
        "profile": [{**r._asdict(), "stretch": r.stretch} for r in exchanges.profile("h800", links, 20)],
    }


def _beside(row: exchanges.Row) -> dict[str, Any]:
    """A published figure and the model's, which is called `found` there."""
    return {"found" if key == "predicted" else key: value for key, value in row._asdict().items()} | {
        "error": row.error
    }


def _cluster(scenario: Scenario, verb: str) -> Cluster:
    """Of a scenario that has exchanges. Raises Refused for others."""
    if scenario.cluster is None:
        raise Refused(f"a scenario with chunk_times has no exchanges to {verb}; give a model and a cluster")
    assert scenario.model is not None
    if not any(unit.routed for unit in family(scenario.model.family).units(scenario.model)):
        raise Refused(f"{scenario.model.name} has no experts, so no exchanges to {verb}")
    if scenario.parallel.expert == 1:
        raise Refused(f"with parallel.expert 1 nothing is exchanged, so there is nothing to {verb}")
    return scenario.cluster


def exchange(words: Sequence[str]) -> int:
    """Run what `words` say; the answer is the exit code."""
    parser = Parser(PROG, worded=True)
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_intermixed_args(words)
    args = options.words
    if options.out and not options.timeline:
        raise Refused(f"--out is where the page of --timeline goes; see {PROG} --help")
    path, scenario = loaded(PROG, [*args[:1], "outputs=[result]", *args[1:]])
    if options.timeline:
        return _timeline(path, scenario, options.out or Path("out", Path(path).stem))
    with refusals(path):
        content = figures(scenario)
    print(json.dumps(content, indent=1))
    return DONE


def _timeline(path: str, scenario: Scenario, folder: Path) -> int:
    """Exchanges from inside: printed, and drawn as a page."""
    from reports import exchange as report

    with refusals(path):
        _cluster(scenario, "look into")
        if not scenario.comm.sms:
            raise Refused("copy engines have no roles to look into; found comm.sms 0, give it 2 or more")
        seen = channels(scenario)
    pages.write(folder, {"exchange.html": pages.Page(report.render(scenario.title, seen), report.MARK)})
    report.show(seen, sys.stdout, max(20, min(120, shutil.get_terminal_size((80, 24)).columns) - 12))
    print(f"drawn in {folder / 'exchange.html'}")
    return DONE
