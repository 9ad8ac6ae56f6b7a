"""Advice for what does not fit in memory: the cheapest changes with which it does, each tried by the simulator.

A change is one choice of recompute, or one of another axis (states, what waits on the host, micro-batch, schedule,
wider groups), which recompute may join; where fewer than three fit, the lightest ones take one more axis each; where
none fits, other nodes are tried. Peaks need no run where loads are even; what fits is run for its step time. What a
scenario or a schedule refuses is no candidate.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from hwmodels import node as nodes
from hwmodels.refused import Refused
from sim import assembly
from sim.analysis import memory
from sim.layout import optimizer
from sim.layout.plan import lay_out
from sim.models.lowering import modules
from sim.models.precision import MOMENTS
from sim.models.stacks.stack import KINDS
from sim.models.transformer_engine import EVERY
from sim.scenario.files import from_mapping
from sim.scenario.values import Routing, Scenario
from sim.schedules import program
from sim.simulation import run

ADVISED = 3
"""Changes that are told."""
MOST_AXES, WIDTH = 3, 3
"""Axes that change at once beside recompute, and combinations that take one more."""
AWAY = 0.5, 1.0
"""Parts of activations that wait on the host."""
BESIDE_COPIES = 4
"""Choices of recompute that are tried beside a part of activations on the host."""
FEW_WAIT = 2
"""Weight gradients that may wait, where a limit is tried."""
WON = 0.01
"""Part of a step that one more change must save to be told."""
MODULES = ("activation", "norm", "mla_up_projection", "core_attention", "shared_experts", "mlp", "moe")
"""Modules to compute again, from what is cheap for its bytes to what is dear."""

Words = tuple[str, ...]
Hear = Callable[[str], None]


class Candidate(NamedTuple):
    """Changes that fit. words: overrides. step_s, peak_bytes: of the run with them."""

    words: Words
    step_s: float
    peak_bytes: int


def advice(scenario: Scenario, step_s: float, hear: Hear = lambda text: None) -> list[dict[str, Any]]:
    """The three cheapest changes that fit, fastest first, as result.json has them; none where nothing that is tried
    fits.

    step_s: seconds of the step as it is. hear: hears what is being tried.
    """
    search = _Search(scenario, hear)
    candidates: list[Candidate] = []
    for words in search.fitting():
        hear(f"simulating {' '.join(words)}")
        summary = run(search.changed(words, even=True), interval=False).summary
        candidates.append(Candidate(words, summary["step_time_s"], summary["worst_memory"]["peak_bytes"]))
    return [_figures(each, step_s) for each in _confirmed(search, _least(candidates))]


def _figures(each: Candidate, step_s: float) -> dict[str, Any]:
    return {
        "change": list(each.words), "step_time_s": each.step_s, "longer_s": each.step_s - step_s,
        "peak_bytes": each.peak_bytes,
    }  # fmt: skip


def _least(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Fastest first, without those that change more than another one and win nothing by it, or that are as fast as one
    that needs no more."""
    kept: list[Candidate] = []
    for each in sorted(candidates, key=lambda c: (c.step_s, len(c.words), c.peak_bytes)):
        needless = any(
            set(other.words) < set(each.words) and other.step_s <= each.step_s * (1 + WON) for other in candidates
        )
        same = any(other.step_s == each.step_s and other.peak_bytes <= each.peak_bytes for other in kept)
        if not needless and not same:
            kept.append(each)
            yield each


def _confirmed(search: "_Search", candidates: Iterator[Candidate]) -> list[Candidate]:
    """The first that also fit where ranks differ."""
    out: list[Candidate] = []
    for each in candidates:
        if search.scenario.uneven:
            search.hear(f"simulating {' '.join(each.words)}")
            summary = run(search.changed(each.words), interval=False).summary
            worst = summary["worst_memory"]["peak_bytes"]
            if worst > room(search.changed(each.words)):
                continue
            each = Candidate(each.words, summary["step_time_s"], worst)
        out.append(each)
        if len(out) == ADVISED:
            break
    return out


class _Search:
    """Looks for changes that fit."""

    def __init__(self, scenario: Scenario, hear: Hear) -> None:
        self.scenario, self.hear = scenario, hear
        self.known: dict[Words, tuple[int, int]] = {}

    def changed(self, words: Words, even: bool = False) -> Scenario:
        """The scenario with overrides; with even loads and ranks, if asked. Raises Refused."""
        other = from_mapping(self.scenario.resolved, [*words, "outputs=[result]"])
        return replace(other, routing=_even(other), faults=(), jitter=0.0, fold=True) if even else other

    def need(self, words: Words) -> tuple[int, int]:
        """Bytes that the heaviest rank needs with a change, and that it may need; more than anybody has where the
        change is refused."""
        if words not in self.known:
            self.hear(f"trying {' '.join(words)}")
            try:
                other = self.changed(words, even=True)
                plan = lay_out(other)
                machine = assembly.unshared(plan)
                share = machine.cluster.node.device.host.capacity_bytes
                waits = optimizer.most_host_bytes(plan, machine) + memory.hosted_bytes(plan, machine)
                self.known[words] = memory.peak_bytes(plan, machine), room(other) if waits <= share else 0
            except Refused:
                self.known[words] = sys.maxsize, 0
        return self.known[words]

    def fits(self, words: Words) -> bool:
        """Whether a change fits."""
        peak, most = self.need(words)
        return peak <= most

    def fitting(self) -> Iterator[Words]:
        """Changes that fit: of recompute alone; of one axis with the least recompute that makes it fit; of more axes
        while there are too few; on other nodes where there are none."""
        choices = sorted(_choices(self.scenario), key=lambda choice: -self.need((choice,))[0])
        alone = [(choice,) for choice in choices if self.fits((choice,))]
        yield from alone[: ADVISED + 1]
        less = choices[: len(choices) - len(alone)]  # what does not fit alone: more is no use beside another change
        axes, lightest, count = list(_axes(self.scenario)), [Words()], len(alone)
        levels = [lightest]
        for _ in range(MOST_AXES):
            combined = [words for base in lightest for words in _joined(base, axes)]
            fit = [words for base in combined for words in self._with_least(base, less)]
            yield from fit
            count += len(fit)
            if count >= ADVISED:
                return
            lightest = sorted(combined, key=lambda base: self.need((*base, choices[-1]))[0])[:WIDTH]
            levels.append(lightest)
        yield from () if count else self._on_other_nodes(levels, choices)

    def _with_least(self, base: Words, choices: Sequence[str]) -> Iterator[Words]:
        """The change itself, or with the least recompute that makes it fit; nothing where the most does not. Of what
        waits on the host also the next ones: what is computed again is not copied."""
        if self.fits((*base, *choices[-1:])):
            each = (words for words in (base, *((*base, c) for c in choices)) if self.fits(words))
            yield from islice(each, BESIDE_COPIES if any(word.startswith("offload=") for word in base) else 1)

    def _on_other_nodes(self, levels: Sequence[Sequence[Words]], choices: Sequence[str]) -> Iterator[Words]:
        """On nodes whose GPUs have more memory, with as few other changes as make it fit there."""
        for bases in levels:
            fit = [
                w for base in bases for node in _larger(self.scenario) for w in self._with_least((*base, node), choices)
            ]
            if fit:
                yield from fit
                return


def room(scenario: Scenario) -> int:
    """Bytes that a rank may need."""
    assert scenario.cluster is not None
    capacity, limit = scenario.cluster.node.device.hbm.capacity_bytes, scenario.limits.memory_bytes
    return capacity if limit is None else min(limit, capacity)


def _choices(scenario: Scenario) -> list[str]:
    """Choices of recompute, by modules that the model has."""
    site = assembly.prices(scenario, assembly.held_always(lay_out(scenario))).site
    known = modules(site, MODULES)
    own = [module for module in MODULES if module in known]
    some = [own[: i + 1] for i in range(len(own))] + [[m] for m in own[1:] if m == "mla_up_projection"]
    policy = ["recompute=selective_op"] if KINDS[scenario.stack.name].selective else []
    return [
        "recompute=recipe",
        *policy,
        *(f"recompute={{modules: [{', '.join(each)}]}}" for each in some),
        "recompute=full",
    ]


def _larger(scenario: Scenario) -> Iterator[str]:
    """Nodes that ship with as many GPUs and more memory in each."""
    assert scenario.cluster is not None
    own = scenario.cluster.node
    for name in nodes.available():
        node = nodes.load(name)
        if node.gpus == own.gpus and node.device.hbm.capacity_bytes > own.device.hbm.capacity_bytes:
            yield f"cluster.node={name}"


def _even(scenario: Scenario) -> Routing:
    return Routing("balanced", redundant_experts=scenario.routing.redundant_experts)


def _joined(base: Words, axes: Sequence[Sequence[Words]]) -> Iterator[Words]:
    """A combination with one more axis behind those that it has."""
    behind = max((i for i, axis in enumerate(axes) for words in axis if set(words) <= set(base)), default=-1) + 1
    for axis in axes[behind:]:
        yield from ((*base, *words) for words in axis)


def _axes(scenario: Scenario) -> Iterator[list[Words]]:
    """Other changes that take less memory, in alternatives of each axis."""
    recipe, parallel, batch = scenario.states.of(EVERY[scenario.precision]), scenario.parallel, scenario.batch
    width = recipe.moment.row_bytes(1)
    yield [(f"states.moments={name}",) for name in ("bf16", "fp8") if MOMENTS[name].row_bytes(1) < width]
    yield [("states.gradients=bf16",)] if recipe.gradient.bits > MOMENTS["bf16"].element.bits else []
    yield [] if scenario.optimizer.offloaded else [("optimizer.offload=host",)]
    yield [(f"offload={part:g}",) for part in AWAY if part > scenario.offload]
    own, pipeline = scenario.schedule.name, parallel.pipeline
    named = [name for name in program.names() if name != own or program.postponing(name)]
    limits = [f"schedule={{name: {name}, waiting: {FEW_WAIT}}}" for name in named if program.postponing(name)]
    yield [
        *((f"schedule={name}", *_free(scenario, name, pipeline)) for name in named if name != own),
        *((words,) for words in limits),
    ]
    yield [(f"batch.micro_batch={n}", *_steps(scenario, batch.micro_batch / n)) for n in _divisors(batch.micro_batch)]
    yield [(f"parallel.zero={zero}",) for zero in (2, 3) if zero > parallel.zero and scenario.stack.library]
    for key in ("tensor", "context", "expert"):
        yield [(f"parallel.{key}={getattr(parallel, key, 1) * times}",) for times in (2, 4, 8)]
    yield [(f"parallel.pipeline={2 * pipeline}", *_free(scenario, own, 2 * pipeline), *_steps(scenario, 2))]


def _divisors(number: int) -> list[int]:
    return [n for n in range(number - 1, 0, -1) if number % n == 0]


def _free(scenario: Scenario, schedule: str, pipeline: int) -> Words:
    """What a placement of other stages than these gives way to."""
    if isinstance(scenario.placement, str):
        return ()
    before, after = (
        program.stages(name, scenario.schedule.shape(positions, positions))
        for name, positions in ((scenario.schedule.name, scenario.parallel.pipeline), (schedule, pipeline))
    )
    return ("placement=balanced",) if before != after else ()


def _steps(scenario: Scenario, times: float) -> Words:
    """As many sequences in so many times as many micro-batches, where these are given."""
    count = scenario.batch.micro_batches
    return () if count is None else (f"batch.micro_batches={round(count * times)}",)
