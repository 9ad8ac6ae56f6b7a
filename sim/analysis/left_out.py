"""What the model leaves out, as a spread of the step: the second part of the 90 % interval.

Published runs say how far measured steps lie from predicted ones. What is left of that beyond the spread of prices was
learned by class (`sim.validation.runs.learn`) and stands in left_out.json, which `python -m sim validate --runs FILE
--learn` writes. It widens intervals and moves no prediction. All spreads are logarithms of measured over predicted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import exp, log
from pathlib import Path
from typing import Any, NamedTuple

from sim.models.blocks.gqa import Heads
from sim.models.blocks.mamba import Mamba
from sim.models.family import family
from sim.models.stacks.stack import KINDS
from sim.scenario.values import Scenario

FILE = Path(__file__).parent / "left_out.json"
NODE, MANY = 8, 1 << 10
"""GPUs that stand in one node, and those from which a run is a large one."""
EVERYTHING = ""
"""The class of all runs."""
TIMES, RATES = ("gpu_hours_per_trillion_tokens",), ("tokens_per_day", "tflops_per_gpu", "mfu")
"""Headlines that go with the step, and against it."""


@dataclass(frozen=True)
class Class:
    """What decides how much is left out. kind: dense or mixture. generation: of the GPU. scale: node, cluster or
    large. blocks: timed, or untimed where a run has some that nobody timed one by one (Mamba-2's scan, attention with a
    window or sinks, products and casts in NVFP4, what joins the steps of torch's ring). launched: by the host kernel by
    kernel, or as graphs."""

    kind: str
    stack: str
    generation: str
    scale: str
    blocks: str = "timed"
    launched: str = "host"

    def names(self, levels: Sequence[str]) -> list[str]:
        """Of the classes that it lies in, all runs first, the narrowest last."""
        words = [str(getattr(self, level)) for level in levels]
        return [", ".join(words[:depth]) for depth in range(len(words) + 1)]


class Rule(NamedTuple):
    """How intervals of a kind are made. levels: fields of a class, the widest first, which is the kind. share: of the
    spread of prices that measured runs bear out. unsaid: how many times wider for each deciding key that is not said.
    stretch: stack -> by how much what classes left out is wider, so that families keep the promise that it was not
    learned on; "": any other's."""

    levels: tuple[str, ...]
    share: float
    unsaid: float
    stretch: Mapping[str, float] = {}

    def stretched(self, stack: str) -> float:
        """Of a stack."""
        return self.stretch.get(stack, self.stretch.get("", 1.0))


class Spread(NamedTuple):
    """Of a class. groups: layouts that were run, each once. below, above: how far the 90 % reach to either side, where
    prices are sure and everything that decides is said."""

    groups: int
    below: float
    above: float


@dataclass(frozen=True)
class Learned:
    """The content of left_out.json that a run needs. rules: of each kind. apart: what a stack gets that no run had
    here, by levels that software is not one of (None: as any other). stacks: those that runs had."""

    rules: Mapping[str, Rule]
    classes: Mapping[str, Spread]
    apart: "Learned | None" = None
    stacks: tuple[str, ...] = ()

    def nearest(self, of: Class) -> tuple[str, Spread]:
        """The narrowest class with runs of its own that a run lies in, stretched as its stack's are."""
        if self.apart and of.stack not in self.stacks:
            return self.apart.nearest(of)
        rule = self.rules[of.kind]
        name = next(name for name in reversed(of.names(rule.levels)) if name in self.classes)
        spread, wider = self.classes[name], rule.stretched(of.stack)
        return name, Spread(spread.groups, spread.below * wider, spread.above * wider)

    def ends(self, low: float, high: float, kind: str, spread: Spread, unsaid: int) -> tuple[float, float]:
        """Of the interval of both parts, from those of prices. unsaid: deciding keys that are not said."""
        rule = self.rules[kind]
        wider = rule.unsaid**unsaid
        return joined(low, high, rule.share, spread.below * wider, spread.above * wider)


def joined(low: Any, high: Any, share: float, below: Any, above: Any) -> tuple[Any, Any]:
    """Ends of both parts together, from the middle of what prices give: independent causes, a side by itself. Numbers
    or arrays."""
    middle, half = (low + high) / 2, (high - low) / 2 * share
    return middle - (half**2 + below**2) ** 0.5, middle + (half**2 + above**2) ** 0.5


@cache
def learned() -> Learned:
    """What ships."""
    held = json.loads(FILE.read_text(encoding="utf-8"))
    apart = held["apart"]
    return Learned(_rules(held), _classes(held), Learned(_rules(apart), _classes(apart)), tuple(apart["stacks"]))


def _rules(held: Mapping[str, Any]) -> dict[str, Rule]:
    return {kind: Rule(tuple(each["levels"]), each["share"], each["unsaid"], each["stretch"])
            for kind, each in held["rules"].items()}  # fmt: skip


def _classes(held: Mapping[str, Any]) -> dict[str, Spread]:
    return {name: Spread(each["groups"], each["below"], each["above"]) for name, each in held["classes"].items()}


def class_of(scenario: Scenario) -> Class:
    """Of a run with a model."""
    assert scenario.model and scenario.cluster
    mixed = family(scenario.model.family).mixture(scenario.model) is not None
    gpus = scenario.cluster.gpus
    scale = "node" if gpus <= NODE else "cluster" if gpus < MANY else "large"
    kind, generation = "mixture" if mixed else "dense", scenario.cluster.node.device.architecture
    blocks, launched = "untimed" if _untimed(scenario) else "timed", "host" if scenario.stack.launches else "graphs"
    return Class(kind, scenario.stack.name, generation, scale, blocks, launched)


def _untimed(scenario: Scenario) -> bool:
    """Whether a run has kernels that no table holds: a block's, a format's, or a ring's that joins its steps in FP32
    (torch, tensor/experimental/_attention.py, _SDPAMerger)."""
    shape, parallel = scenario.model, scenario.parallel
    assert shape
    ring = scenario.stack.name == "torch" and parallel.context > 1 and parallel.context_kind != "all_to_all"
    if scenario.precision == "nvfp4" or ring:
        return True
    own = family(shape.family)
    mixers = (own.made(shape, unit).mixer for unit in own.units(shape))
    return any(isinstance(m, Mamba) or (isinstance(m, Heads) and (m.window > 0 or m.sinks)) for m in mixers)


def unsaid(scenario: Scenario) -> tuple[str, ...]:
    """Keys that decide how long a step is and that the scenario leaves to the stack: what is computed again, whether
    the host launches kernels; of mixtures also the dispatcher and the release of the software (releases move them by
    up to 77 %; NVIDIA-NeMo/Megatron-Bridge, performance summaries 25.09 to 26.08). DeepSeek's stack is its own."""
    known, said = KINDS[scenario.stack.name].options, scenario.resolved.get("stack", {})
    if not known:
        return ()
    mixed = class_of(scenario).kind == "mixture"
    waits = {
        "recompute": scenario.recompute.kind == "recipe",
        "stack.cuda_graphs": "cuda_graphs" not in said,
        "stack.dispatcher": "dispatcher" in known and "dispatcher" not in said and scenario.parallel.expert > 1,
        "stack.release": mixed and not scenario.stack.release,
    }
    return tuple(key for key, open_ in waits.items() if open_)


def reach(step: float, prices: Sequence[float], of: Class, unsaid: int) -> tuple[float, float]:
    """Ends of the 90 % interval of a step, in the unit of its length. prices: ends by prices alone. unsaid: deciding
    keys that are not said."""
    low, high = (log(end / step) for end in prices)
    below, above = learned().ends(low, high, of.kind, learned().nearest(of)[1], unsaid)
    return step * exp(below), step * exp(above)


def widened(intervals: Mapping[str, Any], summary: Mapping[str, Any], scenario: Scenario) -> dict[str, Any]:
    """What result.json says of both parts. intervals: of the headlines, by prices alone; those of phases and of the
    bubble stay, for runs are published as steps."""
    of, keys, step = class_of(scenario), unsaid(scenario), float(summary["step_time_s"])
    prices, (name, spread) = [float(end) for end in intervals["step_time_s"]], learned().nearest(of)
    ends, alone = (reach(step, part, of, len(keys)) for part in (prices, [step, step]))
    low, high = (end / step for end in ends)
    parts = {
        "prices": prices, "left_out": list(alone), "class": asdict(of), "learned_on": name or "all runs",
        "groups": spread.groups, "unsaid": list(keys),
    }  # fmt: skip
    moved: dict[str, Any] = {"step_time_s": list(ends)}
    moved |= {key: _scaled(summary[key], low, high) for key in TIMES if key in intervals}
    moved |= {key: _scaled(summary[key], 1 / high, 1 / low) for key in RATES if key in intervals}
    return {"intervals_90": {**intervals, **moved}, "interval_parts": parts}


def _scaled(value: Any, low: float, high: float) -> Any:
    """Ends of a figure, or of each of its kinds."""
    if isinstance(value, Mapping):
        return {kind: _scaled(each, low, high) for kind, each in value.items()}
    return [value * low, value * high]
