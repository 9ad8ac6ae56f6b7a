"""What the model leaves out, as a spread of the step: the second part of the 90 % interval.

Published runs say how far measured steps lie from predicted ones. How large that is beyond the spread of prices was
learned from what is known of a run before it is measured (`sim.validation.runs.learn`) and stands in left_out.json,
which `python -m sim validate --runs FILE --learn` writes. It widens intervals and moves no prediction. All spreads are
logarithms of measured over predicted.
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
TIMES, RATES = ("gpu_hours_per_trillion_tokens",), ("tokens_per_day", "tflops_per_gpu", "mfu")
"""Headlines that go with the step, and against it."""


HALF = 0.5
"""Of the BF16 peak. The further a step stays below it, the more of it goes to what is less surely known than products:
launches, exchanges, small kernels. A judgement; 0.4 to 0.8 do as well (docs/RUNS.md, Intervals)."""
FEATURES = ("mixture", "unsaid", "short", "untimed")
"""What is known of a run before it is measured, each at least zero: whether it is a mixture; deciding keys that are not
said; the logarithm of how many times its step stays below HALF; whether it is a dense model with blocks that nobody
timed (of a mixture experts take most of a step, whatever else it has)."""
FLOOR = 0.02
"""That no interval reaches less than, to either side, beside prices: runs of one dense configuration at several sites
differ by so much (docs/RUNS.md, What no prediction can beat)."""
ANY = ""
"""Of factors, the one of every run; of stacks, any that no run had."""


@dataclass(frozen=True)
class Class:
    """Runs of one class share what the model leaves out (`sim.experiments.compare`). kind: dense or mixture.
    generation: of the GPU. scale: node, cluster or large. blocks: timed, or untimed where a run has some that nobody
    timed one by one (Mamba-2's scan, attention with a window or sinks, products and casts in NVFP4, what joins the
    steps of torch's ring). launched: by the host kernel by kernel, or as graphs."""

    kind: str
    stack: str
    generation: str
    scale: str
    blocks: str = "timed"
    launched: str = "host"

    def features(self, unsaid: int, mfu: float) -> tuple[float, ...]:
        """See FEATURES. unsaid: deciding keys that are not said. mfu: of the predicted step, over the BF16 peak."""
        mixture = self.kind == "mixture"
        short = max(0.0, log(HALF / mfu)) if mfu > 0 else 0.0
        return float(mixture), float(unsaid), short, float(self.blocks == "untimed" and not mixture)


class Spread(NamedTuple):
    """groups: layouts that were run, each once. below, above: how far the 90 % reach to either side beside prices; of a
    kind in sizes, of a run as logarithms."""

    groups: int
    below: float
    above: float


@dataclass(frozen=True)
class Learned:
    """The content of left_out.json that a run needs. share: of the spread of prices that measured runs bear out. scale:
    the logarithm of how large what is left out is, in sum over FEATURES (and ANY, of every run). sides: of each kind,
    how many such sizes the 90 % reach. stretch: stack -> by how much it is wider, at least 1."""

    share: float
    scale: Mapping[str, float]
    sides: Mapping[str, Spread]
    stretch: Mapping[str, float]

    def spread(self, of: Class, unsaid: int, mfu: float) -> Spread:
        """Of a run; see `Class.features`."""
        known = zip(FEATURES, of.features(unsaid, mfu), strict=True)
        size = exp(self.scale[ANY] + sum(self.scale[name] * value for name, value in known))
        return self._sized(self.sides[of.kind], size * self.stretch.get(of.stack, self.stretch[ANY]))

    @staticmethod
    def _sized(side: Spread, size: float) -> Spread:
        return Spread(side.groups, max(FLOOR, side.below * size), max(FLOOR, side.above * size))

    def ends(self, low: float, high: float, spread: Spread) -> tuple[float, float]:
        """Of the interval of both parts, from those of prices."""
        return joined(low, high, self.share, spread.below, spread.above)


def joined(low: Any, high: Any, share: float, below: Any, above: Any) -> tuple[Any, Any]:
    """Ends of both parts together, from the middle of what prices give: independent causes, a side by itself. Numbers
    or arrays."""
    middle, half = (low + high) / 2, (high - low) / 2 * share
    return middle - (half**2 + below**2) ** 0.5, middle + (half**2 + above**2) ** 0.5


@cache
def learned() -> Learned:
    """What ships."""
    held = json.loads(FILE.read_text(encoding="utf-8"))
    sides = {kind: Spread(each["groups"], each["below"], each["above"]) for kind, each in held["sides"].items()}
    return Learned(held["share"], held["scale"], sides, held["stretch"])


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


def reach(step: float, prices: Sequence[float], of: Class, unsaid: int, mfu: float) -> tuple[float, float]:
    """Ends of the 90 % interval of a step, in the unit of its length. prices: ends by prices alone. unsaid, mfu: see
    `Class.features`."""
    low, high = (log(end / step) for end in prices)
    below, above = learned().ends(low, high, learned().spread(of, unsaid, mfu))
    return step * exp(below), step * exp(above)


def widened(intervals: Mapping[str, Any], summary: Mapping[str, Any], scenario: Scenario) -> dict[str, Any]:
    """What result.json says of both parts. intervals: of the headlines, by prices alone; those of phases and of the
    bubble stay, for runs are published as steps."""
    of, keys, step = class_of(scenario), unsaid(scenario), float(summary["step_time_s"])
    prices, mfu = [float(end) for end in intervals["step_time_s"]], float(summary["mfu"]["causal"])
    ends, alone = (reach(step, part, of, len(keys), mfu) for part in (prices, [step, step]))
    low, high = (end / step for end in ends)
    parts = {
        "prices": prices, "left_out": list(alone), "class": asdict(of), "groups": learned().sides[of.kind].groups,
        "unsaid": list(keys), "mfu": mfu,
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
