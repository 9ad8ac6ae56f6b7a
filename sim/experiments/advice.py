"""Advice for what does not fit in memory: the cheapest changes with which it does, each tried by the simulator.

A change is one choice of recompute, or one of another axis (states, what waits on the host, micro-batch, schedule,
wider groups), which recompute may join; where fewer than three fit, the lightest ones take one more axis each; where
none fits, other nodes are tried. Peaks need no run where loads are even; what fits is run for its step time. What a
scenario or a schedule refuses is no candidate.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, NamedTuple

from hwmodels import node as nodes
from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S
from sim import assembly
from sim.analysis import memory
from sim.engine import steps
from sim.engine.lowering import lower
from sim.experiments.least import computed_s, least_bytes, least_laid_out_s
from sim.layout import optimizer
from sim.layout.machine import Machine
from sim.layout.plan import Plan, lay_out
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

    @property
    def worth(self) -> tuple[float, int, int]:
        """What it is judged by, the less the better."""
        return self.step_s, len(self.words), self.peak_bytes


def advice(scenario: Scenario, step_s: float, hear: Hear = lambda text: None) -> list[dict[str, Any]]:
    """The three cheapest changes that fit, fastest first, as result.json has them; none where nothing that is tried
    fits.

    step_s: seconds of the step as it is. hear: hears what is being tried.
    """
    fitting = list(_Search(scenario, hear).fitting())
    return [_figures(each, step_s) for each in _confirmed(scenario, _least(fitting))]


def _figures(each: Candidate, step_s: float) -> dict[str, Any]:
    return {
        "change": list(each.words), "step_time_s": each.step_s, "longer_s": each.step_s - step_s,
        "peak_bytes": each.peak_bytes,
    }  # fmt: skip


class _Try:
    """A change that is tried, asked for no more than it takes to know what comes of it. words: overrides."""

    def __init__(self, scenario: Scenario, words: Words, hear: Hear) -> None:
        self.base, self.words, self.hear = scenario, words, hear

    def changed(self) -> Scenario:
        """The scenario as a user would run it. Raises Refused."""
        return from_mapping(self.base.resolved, [*self.words, "outputs=[result]"])

    @cached_property
    def scenario(self) -> Scenario:
        """The same with even loads and ranks. Raises Refused."""
        other = self.changed()
        return replace(other, routing=_even(other), faults=(), jitter=0.0, fold=True)

    @cached_property
    def plan(self) -> Plan:
        """Its plan. Raises Refused."""
        return lay_out(self.scenario)

    @cached_property
    def alone(self) -> Machine:
        """Of its plan, before traffic meets other traffic. Raises Refused."""
        return assembly.unshared(self.plan)

    @cached_property
    def least_bytes(self) -> int:
        """Bytes that the heaviest rank needs at least; more than anybody has where the change is refused."""
        self.hear(f"trying {' '.join(self.words)}")
        try:
            by_pairs = self.plan.overlapped and self.scenario.placement == "balanced"
            if not by_pairs:
                return self.bytes[0]
            return least_bytes(self.plan, assembly.prices(self.scenario, assembly.held_always(self.plan)))
        except Refused:
            return sys.maxsize

    @cached_property
    def bytes(self) -> tuple[int, int]:
        """Bytes that the heaviest rank needs, and that it may need."""
        try:
            machine = self.alone
        except Refused:
            return sys.maxsize, 0
        share = machine.cluster.node.device.host.capacity_bytes
        waits = optimizer.most_host_bytes(self.plan, machine) + memory.hosted_bytes(self.plan, machine)
        return memory.peak_bytes(self.plan, machine), room(self.scenario) if waits <= share else 0

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        least, (peak, most) = self.least_bytes, (0, 0)
        if least < sys.maxsize and least <= room(self.scenario):
            peak, most = self.bytes
        return 0 < peak <= most

    @cached_property
    def machine(self) -> Machine:
        """Of its plan, with all that traffic shares."""
        return assembly.machine(self.plan)

    @cached_property
    def work_s(self) -> float:
        """Seconds that a step takes at least, by what it computes."""
        return 0.0 if self.scenario.uneven else computed_s(self.plan, self.alone)

    @cached_property
    def least_s(self) -> float:
        """Seconds that a step takes at least, by the order of its steps."""
        return 0.0 if self.scenario.uneven else least_laid_out_s(self.plan, self.machine)

    def within(self, seconds: float) -> bool:
        """Whether a step takes no longer."""
        return self.work_s <= seconds and self.least_s <= seconds and self.candidate.step_s <= seconds

    @cached_property
    def candidate(self) -> Candidate:
        """What comes of it, by its run."""
        self.hear(f"simulating {' '.join(self.words)}")
        if self.scenario.uneven:
            return ran(self.words, self.scenario)
        lowered = lower(self.plan, self.machine)
        timeline, peak = steps.run(lowered.actors, lowered.kits), self.bytes[0]
        if self.machine.site.stack.frees_gradients:  # by a clock
            peak = max(curve.peak_bytes for curve in memory.curves(self.plan, self.machine, None, timeline, 0))
        return Candidate(self.words, timeline.end / NS_PER_S, peak)


def ran(words: Words, scenario: Scenario) -> Candidate:
    """Changes by the run of a scenario with them."""
    summary = run(scenario, interval=False).summary
    return Candidate(words, summary["step_time_s"], summary["worst_memory"]["peak_bytes"])


def _ascending(tries: Sequence[_Try], *known: Callable[[_Try], Any]) -> Iterator[_Try]:
    """Tries by the last that can be known of each. Those before it are no more, and sooner known: the next is asked
    only of those that may be first."""
    heap = [(known[0](each), 1, number) for number, each in enumerate(tries)]
    heapify(heap)
    while heap:
        _, asked, number = heappop(heap)
        if asked == len(known):
            yield tries[number]
        else:
            heappush(heap, (known[asked](tries[number]), asked + 1, number))


def _least(tries: Sequence[_Try]) -> Iterator[_Try]:
    """Fastest first, without those that change more than another one and win nothing by it, or that are as fast as one
    that needs no more."""
    kept: list[Candidate] = []
    bounds = (lambda t: (t.work_s, 0, 0)), (lambda t: (t.least_s, 0, 0)), (lambda t: t.candidate.worth)
    for tried in _ascending(tries, *bounds):
        each = tried.candidate
        needless = any(set(t.words) < set(each.words) and t.within(each.step_s * (1 + WON)) for t in tries)
        same = any(other.step_s == each.step_s and other.peak_bytes <= each.peak_bytes for other in kept)
        if not needless and not same:
            kept.append(each)
            yield tried


def _confirmed(scenario: Scenario, tries: Iterator[_Try]) -> list[Candidate]:
    """The first that also fit where ranks differ."""
    out: list[Candidate] = []
    for tried in tries:
        each = tried.candidate
        if scenario.uneven:
            tried.hear(f"simulating {' '.join(each.words)}")
            changed = tried.changed()
            each = ran(each.words, changed)
            if each.peak_bytes > room(changed):
                continue
        out.append(each)
        if len(out) == ADVISED:
            break
    return out


class _Search:
    """Looks for changes that fit."""

    def __init__(self, scenario: Scenario, hear: Hear) -> None:
        self.scenario, self.hear = scenario, hear
        self.known: dict[Words, _Try] = {}

    def tried(self, words: Words) -> _Try:
        """A change."""
        if words not in self.known:
            self.known[words] = _Try(self.scenario, words, self.hear)
        return self.known[words]

    def fitting(self) -> Iterator[_Try]:
        """Changes that fit: of recompute alone; of one axis with the least recompute that makes it fit; of more axes
        while there are too few; on other nodes where there are none."""
        choices = sorted(_choices(self.scenario), key=lambda choice: -self.tried((choice,)).bytes[0])
        alone = [each for choice in choices if (each := self.tried((choice,))).fits]
        yield from alone[: ADVISED + 1]
        less = choices[: len(choices) - len(alone)]  # what does not fit alone: more is no use beside another change
        axes, lightest, count = list(_axes(self.scenario)), [Words()], len(alone)
        levels = [lightest]
        for _ in range(MOST_AXES):
            combined = [words for base in lightest for words in _joined(base, axes)]
            fit = [each for base in combined for each in self._with_least(base, less)]
            yield from fit
            count += len(fit)
            if count >= ADVISED:
                return
            lightest = self._lightest(combined, choices[-1])
            levels.append(lightest)
        yield from () if count else self._on_other_nodes(levels, choices)

    def _lightest(self, bases: Sequence[Words], choice: str) -> list[Words]:
        """The few that need least with the most recompute."""
        tries = [self.tried((*base, choice)) for base in bases]
        ascending = _ascending(tries, lambda t: t.least_bytes, lambda t: t.bytes[0])
        return [each.words[:-1] for each in islice(ascending, WIDTH)]

    def _with_least(self, base: Words, choices: Sequence[str]) -> Iterator[_Try]:
        """The change itself, or with the least recompute that makes it fit; nothing where the most does not. Of what
        waits on the host also the next ones: what is computed again is not copied."""
        if self.tried((*base, *choices[-1:])).fits:
            tries = (self.tried(words) for words in (base, *((*base, c) for c in choices)))
            beside = any(word.startswith("offload=") for word in base)
            yield from islice((each for each in tries if each.fits), BESIDE_COPIES if beside else 1)

    def _on_other_nodes(self, levels: Sequence[Sequence[Words]], choices: Sequence[str]) -> Iterator[_Try]:
        """On nodes whose GPUs have more memory, with as few other changes as make it fit there."""
        for bases in levels:
            fit = [
                each for base in bases for node in _larger(self.scenario)
                for each in self._with_least((*base, node), choices)
            ]  # fmt: skip
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
