"""Keys that somebody asks about and a run does not feel: a line each, so that none is silent.

Those of a scenario that cannot matter where others are as they are are known by name (`idle`). A dimension of the model
is felt where any kernel, byte or FLOP of a layer is another without it. Of figures of the machine, those that no price
reads are known by name, and for each of the others the even run is made once more without it.
"""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import tee
from typing import Any

from hwmodels import kernels, pace, power
from hwmodels.device import Device
from hwmodels.document import Document
from hwmodels.op import HYBRIDEP
from hwmodels.refused import Refused
from sim import assembly
from sim.communication.exchange.price import KERNEL
from sim.layout.plan import Plan, lay_out
from sim.layout.shards import FIRST, NEVER, moves
from sim.models.family import family, form
from sim.models.form import texts
from sim.models.lowering import recipe
from sim.models.stacks.exchange import MOVED
from sim.models.stacks.stack import KINDS
from sim.models.transformer_engine import EVERY
from sim.routing.gate import gate_of
from sim.scenario.files import others
from sim.scenario.messages import waits
from sim.scenario.overrides import apply
from sim.scenario.stages import Spread
from sim.scenario.values import NCCL, Routing, Scenario
from sim.schedules.program import pairing
from sim.simulation import foretold, run

DESCRIPTIVE = {
    "cluster.node.device.registers": "no price reads it: kernels are as fast as they were measured",
    "cluster.node.device.shared_memory": "no price reads it: kernels are as fast as they were measured",
    "cluster.node.device.l2.latency": "no price reads it: kernels are as fast as they were measured",
    "cluster.node.device.l3.latency": "no price reads it: kernels are as fast as they were measured",
    "cluster.node.device.hierarchy.shared_memory": "no price reads it: kernels are as fast as they were measured",
    "cluster.node.device.dies": "it describes: prices are of whole devices",
    "cluster.node.device.peak_flops.tf32": "no product of the model is in TF32",
    "cluster.node.device.peak_flops.fp32": "no product of the model is in FP32",
    "cluster.fabric.cost": "no figure of a run is in money",
}
"""Keys that describe a machine and nothing reads, and why."""
POWER = "cluster.node.device.power"
HIERARCHY = "cluster.node.device.hierarchy"
"""What levels would be in another technology or of another capacity."""
UNTOLD = ("scenario_hash", "overrides", "events", "wall_seconds", "unfelt")
"""What a run tells of itself, not of the machine."""
LABELS = ("family", "name", "source", "unmodelled", "unmodelled_parameters")
"""Keys of a model that say what it is, or are told in a note."""
PLACEMENT = ("placement", *(f"placement.{key}" for key in Spread.__dataclass_fields__))
"""The key, and those that an override may give of a mapping."""
OF_MODELS = {
    "no kernels to price": (
        "precision",
        "pricing",
        "tables",
        "comm.collectives",
        "stack.name",
        "stack.release",
        "stack.compiled",
        "stack.cuda_graphs",
        "stack.graphed",
        "stack.dispatcher",
        "stack.attention",
        "stack.cross_entropy",
        "stack.unpadded",
        "stack.fused_experts",
        "stack.norms",
        "stack.scales",
        "stack.casts",
        "stack.early_stop",
        "stack.rope",
        "stack.router",
        "stack.gating",
        "stack.permute",
        "stack.accumulation",
        "stack.bf16_first",
        "stack.bf16_last",
        "stack.bf16_prediction",
        "stack.attention_precision",
        "stack.output_layer",
        "stack.repeated",
        "stack.compiled_ends",
        "stack.update",
        "stack.clips",
        "stack.flat",
        "stack.metrics",
    ),
    "no layers": PLACEMENT,
    "no experts": ("parallel.expert", "routing.kind", "routing.redundant_experts"),
    "no ranks that share a layer": (
        "parallel.tensor",
        "parallel.sequence",
        "parallel.context",
        "parallel.context_kind",
        "parallel.expert_tensor",
        "parallel.order",
        "overlap.tensor",
    ),
    "no sequences": ("batch.sequences", "batch.sequence_length", "batch.micro_batch"),
    "no exchanges": ("comm.sms", "comm.warps", "comm.exchange", "comm.hold", "comm.waits"),
    "no parameters to update": ("optimizer.name", "optimizer.offload", "optimizer.unseen"),
    "nothing that is kept or computed again": ("recompute.kind", "recompute.modules", "recompute.layers", "offload"),
    "no states": ("states.master", "states.moments", "states.gradients", "states.parameters"),
    "no gradients to reduce": ("optimizer.reduce", "overlap.gradients", "overlap.buckets"),
    "no parameters to share": (
        "parallel.zero",
        "parallel.shard",
        "parallel.reshard",
        "parallel.no_sync",
        "overlap.parameters",
        "overlap.gather",
    ),
    "nothing that is drawn at random": ("seed",),
    "no memory": ("limits.memory",),
}
"""What chunk times lack -> keys that are about it."""
EXCHANGES = ("comm.sms", "comm.warps", "comm.exchange", "comm.hold", "comm.waits")
OF_EXPERTS = ("stack.router", "stack.gating", "stack.sequential", "stack.fused_experts", "stack.dispatcher")
"""What a stack does with experts; other keys of theirs are refused where there are none."""
FURTHER = {
    **dict.fromkeys(PLACEMENT, "stages hold the same layers without it"),
    "cluster.placement": "no flow is in another's way",
    "cluster.routing": "no flow is in another's way",
    **dict.fromkeys(("comm.messages", "overlap.pipeline"), "nobody has to wait for a message"),
    "comm.collectives": "nothing that it times is sent or reduced",
    "parallel.order": "groups of all kinds lie on as many nodes without it",
    "parallel.expert_tensor": "no routed expert is shared",
    "tables": "no kernel of the run is near one of theirs",
    "optimizer.unseen": "no launch of a fused optimizer is of an embedding alone",
    "offload": "copies are done beside compute, and memory is at its most when they are back",
    "overlap.gradients": "the last backward of each stage is its rank's last",
    "overlap.buckets": "a bucket has whole layers, as many as without it",
}
"""Keys of a scenario that are tried as figures of the machine are, and what it means where a run does not feel them."""


def unfelt(scenario: Scenario, further: bool = True) -> Iterator[str]:
    """Lines, each beginning with its key. further: also what takes further runs."""
    known = _Known(lay_out(scenario))
    reasons = {key: why for keys, why in idle(known.plan) for key in reversed(keys)}
    for key in scenario.asked:
        if key in reasons:
            yield f"{key} changes nothing: {reasons[key]}"
    for key in scenario.asked if scenario.model else ():
        if key.startswith("model.") and key not in reasons and (why := _dimension(known, key, further)):
            yield f"{key} changes nothing in this run: {why}"
    for key in FURTHER if further else ():
        if key in scenario.asked and key not in reasons and _same(known, key):
            yield f"{key} changes nothing in this run: {FURTHER[key]}"
    yield from _levels(known, further)
    for key in scenario.cluster.stated if scenario.cluster else ():
        if lines := list(descriptive([key])):
            yield from lines
        elif key == POWER and scenario.cluster and not _drawn(device := scenario.cluster.node.device):
            yield f"{key} changes nothing: what watts leave of a clock is not known of {device.architecture}"
        elif further and _same(known, key):
            yield f"{key} changes nothing in this run: what it limits is not reached, or not there"


def _drawn(device: Device) -> bool:
    """Whether it is known what watts leave of its clock, to any of its libraries."""
    published = (each for each in kernels.known() if device.name in each.devices)
    return power.known(device) or any(map(pace.metered, published))


def descriptive(stated: Iterable[str]) -> Iterator[str]:
    """Lines of those of a cluster's keys that describe a machine and nothing reads."""
    for key in stated:
        at = next((name for name in DESCRIPTIVE if key == name or key.startswith(f"{name}.")), "")
        if at:
            yield f"{key} changes nothing: descriptive, {DESCRIPTIVE[at]}"


def _levels(known: "_Known", further: bool) -> Iterator[str]:
    """The same of what the device's levels would be, which its figures then have instead of it."""
    scenario = known.plan.scenario
    given = apply(scenario.source.document, scenario.source.overrides)[0] if scenario.source else Document(None, {})
    levels = given.value(*HIERARCHY.split(".")) or {}
    for key in (f"{HIERARCHY}.{level}.{name}" for level, own in levels.items() for name in own or ()):
        if lines := list(descriptive([key])):
            yield from lines
        elif next(others(scenario, key), None) is None:
            yield f"{key} changes nothing: the level is so without it"
        elif further and _same(known, key):
            yield f"{key} changes nothing in this run: no time or byte depends on it"


@dataclass(frozen=True)
class _Known:
    """What is asked of a scenario for each of its keys, found once."""

    plan: Plan

    @cached_property
    def figures(self) -> tuple[Iterator[Any], ...]:
        """See `_figures`: without links, and with them where the scenario asks for them. A copy of one begins anew."""
        return tuple(tee(_figures(self.plan.scenario, outputs), 1)[0] for outputs in self.outputs)

    @property
    def outputs(self) -> list[tuple[str, ...]]:
        return [("result",), ("result", "links")][: 1 + ("links" in self.plan.scenario.outputs)]


def idle(plan: Plan) -> Iterator[tuple[tuple[str, ...], str]]:
    """Keys of a scenario that no value of theirs would make felt, and why."""
    scenario, comm, cluster = plan.scenario, plan.scenario.comm, plan.scenario.cluster
    yield ("stack.release",), "it only says which software"
    if scenario.pricing == "roofline":
        yield ("tables",), "pricing roofline reads none"
    yield from _of_schedule(plan)
    if not scenario.batch.lengths:
        yield ("batch.packed",), "without batch.lengths a sequence is one document"
    if scenario.model is None or cluster is None:
        for lacking, keys in OF_MODELS.items():
            yield keys, f"chunk_times have {lacking}"
        if not plan.overlapped:
            yield ("chunk_times.overlapped",), f"{scenario.schedule.name} overlaps no forward with a backward"
        return
    if plan.program.stages == 1:
        yield PLACEMENT, "there is one stage"
    yield from _shared(scenario)
    own = recipe(EVERY[scenario.precision], scenario.stack, cluster.node.device.architecture)
    for name in vars(scenario.states):
        if replace(scenario.states, **{name: None}).of(own) == scenario.states.of(own):
            yield (f"states.{name}",), f"precision {scenario.precision} has them so"
    yield from _idle_shards(plan)
    routed = any(unit.routed for unit in family(scenario.model.family).units(scenario.model))
    if routed and scenario.routing.kind == "balanced":
        mean = "balanced routing gives each expert its mean"
        yield ("model.capacity",), f"{mean}, so nothing is dropped; try routing=sampled"
    if not routed:
        yield OF_EXPERTS, f"{scenario.model.name} has no experts"
        yield EXCHANGES, f"{scenario.model.name} has no experts, so no kernel of exchanges runs or holds SMs"
    elif scenario.parallel.expert == 1:
        yield EXCHANGES, "with parallel.expert 1 nothing is exchanged, so no kernel of exchanges runs or holds SMs"
    elif not comm.sms:
        yield ("comm.hold",), "comm.sms 0 holds no SMs"
    elif comm.exchange == KERNEL and (mover := _mover(scenario)):
        yield ("comm.warps",), f"{mover} moves what is exchanged, timed as it was measured"
    elif scenario.parallel.expert <= cluster.node.gpus:
        yield ("comm.warps",), "expert groups lie inside nodes, where each SM of the kernel has one role"


def _mover(scenario: Scenario) -> str:
    """Whose exchanges have no warps to share, or ""."""
    if KINDS[scenario.stack.name].library and scenario.stack.dispatcher in MOVED:
        mover = MOVED[scenario.stack.dispatcher]
        return "HybridEP" if mover == HYBRIDEP else "NCCL" if scenario.comm.collectives == NCCL else ""
    return ""


def _shared(scenario: Scenario) -> Iterator[tuple[tuple[str, ...], str]]:
    """Keys of groups that nobody is in."""
    given = scenario.parallel
    if given.tensor == 1:
        yield ("parallel.sequence", "overlap.tensor"), "with parallel.tensor 1 no layer is shared"
    elif not given.sequence:
        yield ("overlap.tensor",), "without parallel.sequence nothing is gathered or scattered"
    if given.context == 1:
        yield ("parallel.context_kind",), "with parallel.context 1 a rank has whole sequences"


def _idle_shards(plan: Plan) -> Iterator[tuple[tuple[str, ...], str]]:
    """Keys of data parallelism that change nothing."""
    parallel, own = plan.scenario.parallel, moves(plan.scenario)
    if plan.mesh.groups("data").shape[1] * plan.program.weight_copies == 1:
        keys = "parallel.zero", "parallel.shard", "parallel.reshard", "overlap.gradients", "overlap.parameters"
        what = "each parameter is on one rank, so nothing is shared, reduced or gathered"
        yield (*keys, "parallel.no_sync", "overlap.gather", "overlap.buckets"), what
        return
    if parallel.shard == plan.data:
        yield ("parallel.shard",), "that is all of data parallelism, as without it"
    if parallel.zero != 3:
        yield ("parallel.reshard",), f"with parallel.zero {parallel.zero} parameters are not let go after forward"
    if parallel.pipeline > 1:
        yield ("parallel.no_sync",), "in a pipeline of torch the last backward of a stage reduces anyway"
    elif plan.micro_batches == 1:
        yield ("parallel.no_sync",), "of one micro-batch the last one is all"
    if not parallel.zero:
        yield ("overlap.parameters",), "with parallel.zero 0 no parameters are gathered"
    if own.gathers != FIRST or own.units:
        yield ("overlap.gather",), "parameters are not gathered beside the first forwards"
    if own.reduces != NEVER:
        yield ("optimizer.reduce",), "gradients are reduced in the backwards that make them"
    if own.reduces == NEVER and not own.beside and own.gathers == NEVER:
        yield ("overlap.buckets",), "nothing is reduced or gathered beside compute"


def _of_schedule(plan: Plan) -> Iterator[tuple[tuple[str, ...], str]]:
    """The same of the pipeline, its schedule and its messages."""
    scenario, schedule = plan.scenario, plan.scenario.schedule
    for key, free, what in (
        ("waiting", replace(schedule, waiting=None), "no more weight gradients would wait"),
        ("group", replace(schedule, group=None), "groups are as large"),
    ):
        if free != schedule and lay_out(replace(scenario, schedule=free)).program.steps == plan.program.steps:
            yield (f"schedule.{key}",), f"{what} without it"
    if pairing(schedule.name)[0]:
        yield ("overlap.expert",), f"{schedule.name} always runs forwards beside backwards"
    usual = waits(schedule.name, schedule.chunks, scenario.stack.name)
    if plan.program.positions > 1 and usual and scenario.comm.messages == "waited":
        yield ("comm.messages", "overlap.pipeline"), f"{schedule.name} on the {scenario.stack.name} stack has it so"
    if plan.program.positions == 1:
        yield ("comm.messages", "overlap.pipeline", "chunk_times.p2p"), "with parallel.pipeline 1 nothing is sent"


def _dimension(known: _Known, key: str, further: bool) -> str:
    """Why a dimension of the model changes nothing; empty where it does, or nothing says what it would be without. What
    is no number may be felt by a layer and yet by no stage."""
    scenario, name = known.plan.scenario, key.removeprefix("model.")
    assert scenario.model is not None
    field = form(scenario.model.family).model_fields.get(name)
    if field is None or name in LABELS:
        return ""
    other = next(others(scenario, key, *([] if field.is_required() else [field.default])), None)
    if other is None or other.model is None:
        return ""
    alike = all(a == b for a, b in zip(_does(known.plan), _does(lay_out(other)), strict=True))
    if not alike and not (further and field.annotation is bool and _same(known, key)):
        return ""
    text = texts(form(scenario.model.family)).get(name, "").replace("\n", " ").removesuffix(".")
    return f"no kernel, byte or FLOP of {scenario.model.name} depends on it ({text[:1].lower()}{text[1:]})"


def _does(plan: Plan) -> Iterator[Any]:
    """All that a run takes from the dimensions of its model: its units, and what they are; what is quickly told first,
    for most dimensions are felt there."""
    scenario, machine = plan.scenario, assembly.prices(plan.scenario, assembly.held_always(plan))
    site, shape, own = machine.site, machine.whole, machine.family
    yield machine.units
    rates = [own.flop(shape, scenario.batch.sequence_length, causal) for causal in (True, False)]
    drawn = (gate_of(machine.mixture), machine.mixture.capacity) if machine.mixture and scenario.uneven else None
    load = site[4:] if machine.routed else ()
    yield rates, own.workspace(site), shape.hidden, site[1:4], load, drawn
    for unit in machine.units:
        yield own.weights(site.shape, unit), own.kept(site, unit), own.kept_for_weight(site, unit)
    for unit in machine.units:
        yield [launch.op for d in "FBW" for part in machine.parts(unit, d) for launch in part.kernels]


def _same(known: _Known, key: str) -> bool:
    """Whether the run tells the same without a key; not where nothing says what it would be."""
    other = next(others(known.plan.scenario, key), None)
    if other is None:
        return False
    rows = zip(known.figures, known.outputs, strict=True)
    return all(
        one == two
        for figures, outputs in rows
        for one, two in zip(copy(figures), _figures(other, outputs), strict=True)
    )


def _figures(scenario: Scenario, outputs: tuple[str, ...]) -> Iterator[Any]:
    """Figures of the even run, or why there is none; some that are quickly told first, for most keys are felt there."""
    batch = replace(scenario.batch, lengths=None)
    even = replace(
        scenario, routing=Routing("balanced"), faults=(), jitter=0.0, fold=True, outputs=outputs, batch=batch
    )  # fmt: skip
    try:
        yield from foretold(even)
        summary = run(even, interval=False).summary
    except Refused as refused:
        yield str(refused)
        return
    yield {name: value for name, value in summary.items() if name not in UNTOLD}
