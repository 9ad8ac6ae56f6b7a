"""The bandwidth bound of an exchange: the largest port load over that port's effective bandwidth.

In a non-blocking plane this is the max-min fair makespan; no other fidelity may be faster.
"""

import numpy as np
import numpy.typing as npt

from hwmodels.collectives import Wires
from sim.communication.exchange.ports import Ports


def bound_s(ports: Ports, links: Wires) -> npt.NDArray[np.float64]:
    """Seconds that each rank's busiest port needs [ranks], latencies left out."""
    network = ports.network_rows / links.network if ports.nodes > 1 else np.zeros_like(ports.network_rows)
    slowest: npt.NDArray[np.float64] = np.maximum(network, ports.nvlink_rows / links.nvlink.effective)
    return slowest * ports.row_bytes


def seconds(ports: Ports, links: Wires) -> float:
    """The whole exchange: the busiest port of the group, and a latency for each network on the way."""
    return float(bound_s(ports, links).max()) + latency_s(ports, links)


def latency_s(ports: Ports, links: Wires) -> float:
    """One message end to end: across the leaf switch where the group spans nodes, and over NVLink where a node holds
    more than one of its ranks."""
    network = links.latency_s if ports.nodes > 1 else 0.0
    return network + (links.nvlink.latency_s if ports.gpus_per_node > 1 else 0.0)
