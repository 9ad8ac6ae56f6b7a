"""What a table says of the host that launches kernels."""

from collections.abc import Mapping
from typing import Any

from numerics.tables.calibrate import rounded


def host(spent: Mapping[str, Any], gap_us: float) -> dict[str, Any]:
    """What the host spends on a call, in microseconds, and what lies between two kernels of a stream."""
    tiny = spent["tiny"]
    return {
        "launch_gap_us": gap_us, "graph_gap_us": rounded(max(0.0, gap_us - (tiny["queued_us"] - tiny["graph_us"]))),
        "forward_us": {name: rounded(us) for name, us in spent["forward"].items()},
        "recorded_us": {name: rounded(us) for name, us in spent["recorded"].items()},
        "backward_us": {name: rounded(us) for name, us in spent["backward"].items()},
        "backward_node_us": rounded(spent["chain_backward"]),
        "optimizer_us": {name: rounded(us) for name, us in spent.items() if name.startswith("adamw")},
    }  # fmt: skip
