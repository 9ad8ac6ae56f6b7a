"""What a run says of its fabric: how busy the links are and under which choices, or why that is not known."""

from typing import Any

from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S
from sim.analysis import utilisation
from sim.communication.fabric.network import Network, network
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.result import Utilisation
from sim.result.trace import Trace

ASSUMED_ROUTING = "adaptive"
"""How flows are routed where a scenario leaves it open: its prices take it then that nothing in the fabric blocks, and
adaptive routing comes nearest to that."""

DIGITS = 6
"""Digits of a utilisation, here and in links.csv."""


def links(
    plan: Plan, machine: Machine, trace: Trace, end_ns: int = 0, known: Network | None = None
) -> tuple[Utilisation | None, dict[str, Any]]:
    """How busy links are over a step, and what result.json says of it.

    trace: all spans shown. end_ns: of the step, where it ends later. known: if built already.
    """
    cluster = machine.cluster
    if cluster.fabric is None:
        return None, {"left_out": "nothing is said about switches; name a cluster.fabric"}
    try:
        wiring = known or network(plan, machine, cluster.placement, cluster.routing or ASSUMED_ROUTING)
    except Refused as error:
        return None, {"left_out": str(error)}
    use = utilisation.of_network(wiring, trace, end_ns=end_ns)
    return use, {
        "fabric": cluster.fabric.name,
        "placement": cluster.placement if isinstance(cluster.placement, str) else "listed",
        "routing": wiring.routing,
        "blocking_priced": cluster.routing is not None,
        "bin_s": (int(use.edges[-1]) / (len(use.edges) - 1)) / NS_PER_S,
        "evenly_spread": list(use.even),
        "classes": classes(use),
    }


def classes(use: Utilisation) -> dict[str, dict[str, Any]]:
    """Classes with links in use: number of links, bytes over them by kind, of kinds that there are, utilisation of the
    mean and busiest link.

    busiest_average and busiest_peak may be of different links; a peak is the mean over the busiest bin.
    """
    rows: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(use.classes):
        own = use.of == number
        if own.any():
            rows[name] = {
                "links": int(own.sum()),
                "bytes": {use.kinds[k]: round(float(use.size[own, k].sum())) for k in use.carried},
                "mean": round(float(use.average[own].mean()), DIGITS),
                "busiest_average": round(float(use.average[own].max()), DIGITS),
                "busiest_peak": round(float(use.peak[own].max()), DIGITS),
            }
    return rows
