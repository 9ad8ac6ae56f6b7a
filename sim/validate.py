"""Predictions beside what was published: one row a figure, with its error. Nothing here is ever fitted to."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import read
from hwmodels.units import GIGA, KILO, MILLI, PERCENT
from sim import footprint, metrics, plan
from sim.lower import Kit, lower
from sim.plan import Machine
from sim.result import Result
from sim.scenario import load

FOLDER = Path(__file__).parent.parent / "scenarios"


class Row(NamedTuple):
    """One figure: predicted and published in `unit`. error: relative."""

    id: str
    quantity: str
    predicted: float
    published: float
    unit: str
    source: str

    @property
    def error(self) -> float:
        return self.predicted / self.published - 1


def published(name: str) -> dict[str, Any]:
    """The figures of `scenarios/published/<name>.yaml`."""
    content: dict[str, Any] = dict(read(FOLDER / "published" / f"{name}.yaml").content)
    return content


def compare(name: str = "deepseek_v3", overrides: tuple[str, ...] = ()) -> list[Row]:
    """Every published figure of a model beside the prediction of its scenario."""
    import sim

    table = published(name)
    scenario = load(str(FOLDER / f"{table['scenario']}.yaml"), ["outputs=[result]", *overrides])
    result = sim.run(scenario)
    laid = plan.lay_out(scenario)
    machine = plan.machine(laid)
    kit = max((k for row in lower(laid, machine).kits for k in row), key=lambda k: _is_profile_pair(k))
    found = _measures(result, machine, kit)
    return [
        Row(r["id"], r["quantity"], found[r["measure"]](), float(r["value"]), r["unit"], table["sources"][r["source"]])
        for r in table["rows"]
    ]


def _is_profile_pair(kit: Kit) -> bool:
    """Whether a kit overlaps four MoE layers with four, as the published profile does."""
    phases = kit.composition.phases if kit.composition else ()
    layers = [p.name for p in phases if p.name.startswith("attn")]
    exchanges = sum(p.exchange for p in phases)
    return kit.fine.kind == "F+BW" and len(layers) == 12 and exchanges == 16


def _measures(result: Result, machine: Machine, kit: Kit) -> Mapping[str, Callable[[], float]]:
    """Prediction by name, in the units of the published rows."""
    s, shape = result.summary, machine.site.shape
    main = footprint.main_units(machine.units)
    profile = metrics.profile(kit, machine.pricer)
    phases = {name: lambda name=name: s["phases_s"][name] for name in s["phases_s"]}
    parts = {f"phase {name}": lambda ns=ns: ns * _MS for name, ns in part_times(kit).items()}
    length = machine.site.length
    return phases | parts | {
        "pair": lambda: profile.total * _MS,
        "pair compute": lambda: profile.compute * _MS,
        "pair hidden": lambda: (1 - profile.exposed / profile.communication) / PERCENT,
        "step": lambda: s["step_time_s"],
        "gpu hours": lambda: s["gpu_hours_per_trillion_tokens"] / KILO,
        "tokens a day": lambda: s["tokens_per_day"] / GIGA,
        "causal": lambda: s["tflops_per_gpu"]["causal"],
        "non-causal": lambda: s["tflops_per_gpu"]["non_causal"],
        "parameters": lambda: footprint.total_parameters(shape, main) / GIGA,
        "active": lambda: footprint.active_parameters(shape, main) / GIGA,
        "flop a token": lambda: footprint.training_flop_per_token(shape, main, length, True) / GIGA,
        "kv cache": lambda: footprint.kv_cache_bytes_per_token(shape) / KILO,
    }  # fmt: skip


_MS = MILLI * MILLI
"""Nanoseconds to milliseconds."""


def part_times(kit: Kit) -> dict[str, float]:
    """Kernel time of each compute part of a kit, launch gaps left out, mean over layers, in ns."""
    assert kit.composition is not None
    spent: dict[str, float] = {}
    layers: dict[str, set[tuple[int, str]]] = {}
    for phase, segment, (start, end) in zip(
        kit.composition.phases, kit.fine.segments, kit.timing.segments, strict=True
    ):
        if phase.exchange:
            continue
        gaps = sum(kit.fine.gap_ns[segment.lane][segment.first : segment.stop])
        spent[phase.name] = spent.get(phase.name, 0.0) + end - start - gaps
        layers.setdefault(phase.name, set()).add((phase.layer, phase.half))
    return {name: ns / len(layers[name]) for name, ns in spent.items()}


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| figure | simulated | published | error | source |", "|---|--:|--:|--:|---|"]
    for r in rows:
        figures = f"{r.predicted:,.4g} {r.unit} | {r.published:,.4g} {r.unit} | {r.error:+.1%}"
        lines.append(f"| {r.quantity} | {figures} | {r.source} |")
    return "\n".join(lines)
