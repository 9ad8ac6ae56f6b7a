"""Steps of plain transformers that were measured on one H200, simulated: time, memory and kernels beside each other."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hwmodels.document import read
from hwmodels.units import KILO
from sim.assembly import machine
from sim.layout.machine import Machine
from sim.layout.plan import lay_out
from sim.models.layer import Kernel
from sim.models.lowering import updates
from sim.scenario.files import from_mapping
from sim.scenario.shelves import SCENARIOS
from sim.simulation import run as simulate

SOURCE = "h200_torch_steps"
FILE = SCENARIOS / "measured" / f"{SOURCE}.yaml"
"""The runs, with what was measured."""
HEADS = {"heads": 16, "kv": 16, "head": 128}
"""Dimensions of attention that a run with latent attention does not give."""
LATENT = {"qk_nope": 128, "qk_rope": 64, "v_head": 128}
"""Of latent attention: a shared rope key of 64, head widths 192 / 128."""


def runs() -> list[dict[str, Any]]:
    """Dimensions and measured figures of each run."""
    return list(read(FILE).content["runs"])


def scenario(run: Mapping[str, Any], model: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The scenario of a run: its model on the torch stack, on one GPU. model: dimensions beside the run's."""
    recompute = {"recompute": "full"} if run.get("ckpt") else {}
    return {
        "name": run["name"],
        "cluster": {"node": "h200x1", "nodes": 1},
        "model": _model(run) | dict(model or {}),
        "precision": "bf16",
        "stack": {"name": "torch", **({"compiled": True} if run.get("compiled") else {})},
        "schedule": "1f1b",
        "batch": {"sequences": run["mbs"], "sequence_length": run["seq"], "micro_batch": run["mbs"]},
        "optimizer": {"unseen": unseen(run["vocab"], run["mbs"] * run["seq"])},
        "outputs": ["result"],
        **recompute,
    }


def unseen(words: int, tokens: int) -> float:
    """Part of a vocabulary that random tokens of one batch, trained on again and again, leave out."""
    return round((1 - 1 / words) ** tokens, 4)


def _model(run: Mapping[str, Any]) -> dict[str, Any]:
    """Dimensions in our keys."""
    mixer, network = "latent" if run.get("mla") else "attention", "moe" if "experts" in run else "dense"
    sizes = {**HEADS, **run}
    model = {
        "family": "transformer", "name": run["name"], "vocabulary": run["vocab"], "hidden": run["hidden"],
        "layers": run["layers"], "heads": sizes["heads"], "kv_heads": sizes["kv"], "head_width": sizes["head"],
        "tied": False, "pattern": f"{mixer}+{network}", "activation": run.get("act", "swiglu"), "source": SOURCE,
    }  # fmt: skip
    if network == "moe":
        chosen = {"experts": run["experts"], "experts_per_token": run["top_k"]}
        return model | chosen | {"expert_intermediate": run["ffn"]}
    latent = {**LATENT, "q_rank": run["q_rank"], "kv_rank": run["kv_rank"]} if run.get("mla") else {}
    return model | latent | {"intermediate": run["ffn"]}


def kernels(own: Machine) -> Iterator[Kernel]:
    """All that one micro-batch and the update launch, in no order."""
    for unit in own.units:
        for direction in "FBW":
            for part in own.parts(unit, direction):
                yield from part.kernels
    if lowered := updates(own.family, own.site.stack):
        yield from lowered.update(own.site, own.units)


class Step(NamedTuple):
    """Milliseconds of a step and its phases, bytes at its peak, and launches."""

    forward_ms: float
    backward_ms: float
    optimizer_ms: float
    step_ms: float
    peak_bytes: float
    launches: int


def step(run: Mapping[str, Any]) -> Step:
    """A run, simulated."""
    plain = from_mapping(scenario(run))
    summary = simulate(plain, interval=False).summary
    forward, backward, update = (summary["phases_s"][name] * KILO for name in ("forward", "backward", "optimizer"))
    count = sum(1 for _ in kernels(machine(lay_out(plain))))
    peak = summary["worst_memory"]["peak_bytes"]
    return Step(forward, backward, update, summary["step_time_s"] * KILO, peak, count)


def measured(run: Mapping[str, Any]) -> Step:
    """A run, as it was measured."""
    forward, backward, update, whole = (run[f"{name}_ms"] for name in ("forward", "backward", "optimizer", "step"))
    return Step(forward, backward, update, whole, run["peak_allocated"], run["kernels"])


class Compared(NamedTuple):
    """A run, simulated and measured."""

    name: str
    simulated: Step
    measured: Step

    def error(self, field: str) -> float:
        """Relative error of a figure."""
        return float(getattr(self.simulated, field) / getattr(self.measured, field) - 1)


def compared() -> list[Compared]:
    """All runs."""
    return [Compared(run["name"], step(run), measured(run)) for run in runs()]
