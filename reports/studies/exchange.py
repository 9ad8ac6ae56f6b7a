"""Compute against exchanges of experts, by model and network: how far from 1:1 each is."""

from collections.abc import Mapping
from typing import Any

from reports.studies import svg
from reports.studies.points import Points
from sim.result.markdown import table


def tell(points: Points) -> tuple[str, dict[str, str]]:
    """Markdown, and charts by file name."""
    rows = {(labels["model"], labels["network"]): ratio(record["summary"]) for labels, record in points
            if "model" in labels}  # fmt: skip
    beside = {labels["point"]: ratio(record["summary"]) for labels, record in points if "point" in labels}
    models, networks = (list(dict.fromkeys(key[i] for key in rows)) for i in (0, 1))
    lines = [[model, *(f"{rows[model, network]:.2f}" for network in networks)] for model in models]
    series = [svg.Series(network, [rows[model, network] for model in models]) for network in networks]
    chart = svg.grouped("Exchanges over compute", "seconds over seconds", models, series)
    more = "; ".join(f"{name}: {value:.2f}" for name, value in beside.items())
    block = "\n\n".join((
        "Seconds of exchanges over seconds of compute, forward and backward of all layers:",
        table(["model", *networks], lines), f"{more}.", "![Exchanges over compute](exchange.svg)",
    ))  # fmt: skip
    return block, {"exchange.svg": chart}


def ratio(summary: Mapping[str, Any]) -> float:
    """Exchanges over compute, of a step without pipeline: those that are waited for and those that weight gradients of
    the same layer hide, over what is left of the step without bubble and optimizer."""
    phases, exposed = summary["phases_s"], summary["exposed_communication_s"]
    compute = summary["step_time_s"] - phases["bubble"] - phases["optimizer"] - exposed
    return float(exposed / (1 - summary["overlap_fraction"]) / compute)
