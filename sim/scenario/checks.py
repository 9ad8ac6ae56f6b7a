"""What a scenario must satisfy as a whole: layouts that divide, formats the device has, kernels that leave SMs over."""

from collections.abc import Iterator, Sequence

from hwmodels.collectives import ENOUGH_SMS
from hwmodels.document import Document, Problem, dotted
from hwmodels.nccl import library
from hwmodels.refused import Refused
from hwmodels.units import LONGEST_NS, format_quantity, ns_to_seconds
from sim.models.family import family, main_units
from sim.models.layer import Unit
from sim.models.mixture import Mixture
from sim.models.precision import TENSORWISE
from sim.models.stacks.stack import KINDS
from sim.models.transformer_engine import EVERY
from sim.scenario import divides, lengths, slots, software, traced
from sim.scenario.divides import mixture as _mixture
from sim.scenario.fits import Finding, micro_batches, nearest, schedule
from sim.scenario.stages import Layout, Spread
from sim.scenario.values import FOREVER, NCCL, Cluster, Comm, Fault, Optimizer, Scenario
from sim.schedules import program


def check(scenario: Scenario, document: Document) -> list[Problem]:
    """Everything wrong with the scenario as a whole, each at the key to blame: one overridden, else the first."""
    rules = [_whole, _large, schedule, _routing, _documents, *([_model, _placement] if scenario.model else [])]
    if scenario.cluster and scenario.model:
        rules += [_machine, divides.findings, software.findings, traced.findings]
    rules += [_experts] if scenario.model else []
    rules += [_uneven] if scenario.uneven else []
    return [_placed(keys, message, document) for rule in rules for keys, message in rule(scenario)]


def _placed(keys: tuple[str, ...], message: str, document: Document) -> Problem:
    paths = {key: tuple(int(part) if part.isdigit() else part for part in key.split(".")) for key in keys}
    places = {key: document.place(path) for key, path in paths.items()}
    ours = next((key for key in keys if str(places[key]).startswith("<command line>")), keys[0])
    return Problem(places[ours], dotted(paths[keys[0]]), message)


def _whole(scenario: Scenario) -> Iterator[Finding]:
    given = [key for key in ("model", "cluster", "chunk_times") if getattr(scenario, key) is not None]
    if given not in (["model", "cluster"], ["chunk_times"]):
        what = f"found {' and '.join(given)}" if given else "found none of them"
        yield (given[0] if given else "schedule",), f"a scenario gives model and cluster, or chunk_times alone; {what}"
        return
    batch = scenario.batch
    if scenario.chunk_times and not batch.micro_batches:
        yield ("batch.micro_batches",), "missing; chunk_times need the number of micro-batches of a pipeline"
    elif not batch.micro_batches and not batch.sequences:
        yield ("batch.sequences",), "missing; expected the sequences of a step over all data-parallel ranks"


MOST_TOKENS, MOST_STEPS = 1 << 24, 1 << 16
"""Limits of the tokens of a micro-batch (a GPU holds a thousandth of what 16 million need), and micro-batches of a
pipeline: each exchange and each step is gone through one by one."""
MOST_EXPERTS = 1 << 15
"""Limit of the experts of a layer: thousands of tokens are drawn over all of them at once (see sim.routing.balanced),
0.2 MB an expert."""
MOST_RANK_STEPS = 1 << 26
"""Ranks times micro-batches, where each rank is carried: 2.4 kB each for V3 (docs/SCALE.md), 160 GB in all."""


def _large(scenario: Scenario) -> Iterator[Finding]:
    """What could be counted, but takes more time or memory to simulate than anybody has."""
    batch, steps = scenario.batch, micro_batches(scenario)
    tokens = batch.sequence_length * batch.micro_batch
    if scenario.model and tokens > MOST_TOKENS:
        what = f"{tokens} tokens a micro-batch (with batch.micro_batch {batch.micro_batch})"
        yield ("batch.sequence_length", "batch.micro_batch"), f"makes {what}; legal: up to {MOST_TOKENS}"
    if steps > MOST_STEPS:
        what = f"{steps} micro-batches a pipeline; legal: up to {MOST_STEPS}"
        yield ("batch.micro_batches" if batch.micro_batches else "batch.sequences",), f"makes {what}"
    mixture = _mixture(scenario) if scenario.model else None
    if mixture and mixture.experts > MOST_EXPERTS:
        yield ("model.experts", "model"), f"found {mixture.experts}; legal: up to {MOST_EXPERTS}"
    each = scenario.cluster.gpus * steps if scenario.cluster and (scenario.uneven or not scenario.fold) else 0
    if each > MOST_RANK_STEPS:
        what = f"micro-batches of all ranks, each rank carried by itself; legal: up to {MOST_RANK_STEPS}"
        yield ("cluster.nodes", "batch.sequences", "batch.micro_batches"), f"makes {each} {what}"
    if (of := batch.lengths) and batch.unlike:
        pieces = scenario.data_parallel * steps * batch.micro_batch * (1 + int(batch.sequence_length / of.usual))
        if pieces > MOST_RANK_STEPS:
            yield ("batch.lengths",), f"makes about {pieces} documents a step; legal: up to {MOST_RANK_STEPS}"
    if (times := scenario.chunk_times) and (long := steps * sum(vars(times).values())) > LONGEST_NS:
        what = f"take {_time(long)} over {steps} micro-batches; legal: up to {_time(LONGEST_NS)} in all"
        yield ("chunk_times", "batch.micro_batches"), what


def _routing(scenario: Scenario) -> Iterator[Finding]:
    """Whether the kind of routing has what it needs, and nothing that belongs to another."""
    routing = scenario.routing
    if scenario.chunk_times and not scenario.model and routing.kind != "balanced":
        yield ("routing.kind", "routing"), f"{routing.kind} routing needs a model; chunk_times have no experts"
    for key, kind in OF_KIND.items():
        if getattr(routing, key) is not None and routing.kind != kind:
            yield (f"routing.{key}", "routing.kind"), f"only {kind} routing has it; found kind {routing.kind}"
    for key, kind, expected in (("max_vio", "skewed", "a ratio, e.g. 0.5"), ("histogram", "recorded", "a file")):
        if routing.kind == kind and getattr(routing, key) is None:
            yield (f"routing.{key}", "routing.kind"), f"missing; {kind} routing needs it: {expected}"


def _documents(scenario: Scenario) -> Iterator[Finding]:
    """Whether lengths of documents are there where they are asked for, and right in themselves."""
    given = scenario.batch.lengths
    if given is None:
        return
    if scenario.chunk_times and not scenario.model:
        yield ("batch.lengths",), "lengths of documents need a model; chunk_times have no attention"
    for key, message in lengths.mistakes(given):
        yield (f"batch.lengths.{key}", "batch.lengths.kind", "batch.lengths"), message


def _uneven(scenario: Scenario) -> Iterator[Finding]:
    """Faults name ranks and nodes that exist, and times that can be."""
    if scenario.cluster is None:
        for key, verb in (("faults", "need"), ("jitter", "needs")):
            if getattr(scenario, key):
                yield (key,), f"{key} {verb} a cluster; chunk_times have no ranks on nodes"
        return
    for i, fault in enumerate(scenario.faults):
        count = scenario.cluster.nodes if fault.kind == "node" else scenario.cluster.gpus
        if fault.at >= count:
            what = "nodes" if fault.kind == "node" else "ranks"
            yield (f"faults.{i}.at", "faults"), f"{fault.at} is not there; legal: 0 to {count - 1} ({what})"
        for key, message in _when(fault):
            yield (f"faults.{i}.{key}", f"faults.{i}", "faults"), message


SHORTEST_NS = 100_000
"""Limit of the time between two starts of a recurring fault: a step of 20 s then has at most 200,000 windows."""


def _when(fault: Fault) -> Iterator[tuple[str, str]]:
    """Key and message of what is wrong with the times of a fault."""
    if fault.end_ns <= fault.start_ns:
        yield "end", f"found {_time(fault.end_ns)}; legal: later than start ({_time(fault.start_ns)})"
    if fault.kind == "thermal":
        if not fault.time_constant_ns:
            yield "time_constant", 'missing; thermal faults need it: a time above zero, e.g. "5 s"'
        for key in ("end", "every"):
            if getattr(fault, f"{key}_ns") not in (0, FOREVER):
                yield key, "a clock that heat has lowered stays down; leave it out"
    elif fault.time_constant_ns:
        yield "time_constant", f"only thermal faults have it; found kind {fault.kind}"
    if bool(fault.every_ns) != bool(fault.lasts_ns):
        yield ("lasts" if fault.every_ns else "every"), "missing; a fault that recurs has both every and lasts"
    elif fault.every_ns and fault.lasts_ns >= fault.every_ns:
        most = f"shorter than every ({_time(fault.every_ns)}), or leave both out"
        yield "lasts", f"found {_time(fault.lasts_ns)}; legal: {most}"
    if 0 < fault.every_ns < SHORTEST_NS:
        what = "what comes and goes faster is felt as its mean: say that in slower"
        yield "every", f"found {_time(fault.every_ns)}; legal: {_time(SHORTEST_NS)} or longer ({what})"


def _time(ns: int) -> str:
    return format_quantity(ns_to_seconds(ns), "time")


OF_KIND = {"spread": "sampled", "max_vio": "skewed", "histogram": "recorded"}
"""Key of the routing -> the kind it belongs to."""


def _experts(scenario: Scenario) -> Iterator[Finding]:
    """Whether the model can be routed as the scenario says: imbalance, histogram and copies of experts."""
    routing, ranks, mixture = scenario.routing, scenario.parallel.expert, _mixture(scenario)
    if mixture is None or not _routed(scenario):
        yield from _nothing_to_route(scenario, mixture)
        return
    most = mixture.experts / mixture.chosen - 1
    if routing.max_vio is not None and routing.max_vio > most >= 0:
        what = f"a token chooses an expert once, {mixture.chosen} of {mixture.experts}"
        yield ("routing.max_vio", "model"), f"found {routing.max_vio:g}; legal: 0 to {most:g} ({what})"
    if routing.histogram:
        yield from _recorded(scenario, routing.histogram, mixture)
    if routing.redundant_experts and mixture.experts % ranks == 0:
        yield from _redundant(routing.redundant_experts, mixture.experts, ranks)


def _routed(scenario: Scenario) -> list[Unit]:
    """Layers with experts."""
    model = scenario.model
    assert model is not None
    return [unit for unit in family(model.family).units(model) if unit.routed]


def _nothing_to_route(scenario: Scenario, mixture: Mixture | None) -> Iterator[Finding]:
    """What a scenario may not say of the experts of a model that has none."""
    model, routing = scenario.model, scenario.routing
    assert model is not None
    none = f"{model.name} has no experts"
    if scenario.parallel.expert != 1 and mixture is None:
        yield ("parallel.expert", "model"), f"found {scenario.parallel.expert}; legal: 1 ({none})"
    if routing.kind != "balanced":
        yield ("routing.kind", "routing", "model"), f"{routing.kind} routing needs experts; legal: balanced ({none})"
    if routing.redundant_experts:
        yield ("routing.redundant_experts", "model"), f"found {routing.redundant_experts}; legal: 0 ({none})"


def _redundant(copies: int, experts: int, ranks: int) -> Iterator[Finding]:
    """A second copy of an expert on one rank would take memory and even nothing out."""
    keys, most, total = ("routing.redundant_experts", "parallel.expert"), experts * (ranks - 1), experts + copies
    if copies > most:
        legal, what = f"multiples of {ranks} from 0 to {most}" if most else "0", f"then has all {experts} experts"
        yield keys, f"found {copies}; legal: {legal} (each rank of parallel.expert {ranks} {what})"
    elif total % ranks:
        near = nearest(copies, ranks)
        yield (
            keys,
            (
                f"{total} slots (model.experts {experts} + {copies}) cannot be divided by parallel.expert {ranks};"
                f" nearest legal: {near}"
            ),
        )


def _recorded(scenario: Scenario, histogram: tuple[tuple[int, ...], ...], mixture: Mixture) -> Iterator[Finding]:
    routed = _routed(scenario)
    if len(histogram[0]) != mixture.experts:
        yield ("routing.histogram", "model"), f"has {len(histogram[0])} experts; the model has {mixture.experts}"
    legal = sorted({1, len(main_units(routed)), len(routed)})
    if len(histogram) not in legal:
        what = f"legal: {', '.join(map(str, legal))} (1 for all, or those with experts, MTP last)"
        yield ("routing.histogram", "model"), f"has {len(histogram)} layers; {what}"


def _model(scenario: Scenario) -> Iterator[Finding]:
    """What the model's family says of its dimensions."""
    model = scenario.model
    assert model is not None
    for key, message in family(model.family).mistakes(model):
        yield (f"model.{key}", "model"), message


def _placement(scenario: Scenario) -> Iterator[Finding]:
    model, name, pipeline = scenario.model, scenario.schedule.name, scenario.parallel.pipeline
    assert model is not None
    if name not in program.names():
        return
    stages = program.stages(name, scenario.schedule.shape(pipeline, max(1, micro_batches(scenario))))
    of = f"{name} with parallel.pipeline {pipeline} has {stages} stages"
    match scenario.placement:
        case str():
            yield from divides.stages(scenario)
        case Spread() as spread:
            yield from _spread(scenario, spread, stages)
        case Layout() as layout:
            yield from _letters(scenario, layout, of, stages)
        case counts:
            yield from _counts(counts, of, stages, model.layers)


def _counts(counts: Sequence[int], of: str, stages: int, layers: int) -> Iterator[Finding]:
    """Whether a list of layers is of these stages and of this model."""
    if len(counts) != stages:
        yield ("placement", "parallel.pipeline", "schedule"), f"{of}; found {len(counts)} numbers of layers"
    if sum(counts) != layers:
        yield ("placement", "model"), f"the stages hold {sum(counts)} layers; the model has {layers}"
    if empty := [stage for stage, number in enumerate(counts) if not number and 0 < stage < stages - 1]:
        what = "only the first, which has the embedding, and the last, which has the head, may be without layers"
        yield ("placement",), f"stage {empty[0]} holds nothing; {what}"


def _letters(scenario: Scenario, layout: Layout, of: str, stages: int) -> Iterator[Finding]:
    """Whether a layout is of these stages and of this model."""
    model, pipeline, listed = scenario.model, scenario.parallel.pipeline, len(layout.stages)
    assert model is not None
    if listed != stages:
        chunks = f"; schedule={{name: interleaved, chunks: {listed // pipeline}}} has as many"
        more = chunks if not listed % pipeline and pipeline > 1 else ""
        yield ("placement", "parallel.pipeline", "schedule"), f"{of}; the layout has {listed}{more}"
    has = [unit.beside for unit in family(model.family).units(model) if unit.block]
    for letter, count, what in (("t", has.count(False), "layers"), ("m", has.count(True), "MTP layers")):
        if layout.count(letter) != count:
            yield (
                ("placement", "model"),
                f"the layout has {layout.count(letter)} {letter}; the model has {count} {what}",
            )


def _spread(scenario: Scenario, spread: Spread, stages: int) -> Iterator[Finding]:
    """Whether layers can be spread so over positions and their stages."""
    model, name, pipeline = scenario.model, scenario.schedule.name, scenario.parallel.pipeline
    assert model is not None
    if stages != pipeline and not program.chunked(name, pipeline):
        what = f"stages of {name} do not go round the positions"
        yield ("placement", "schedule"), f"{what}; legal: balanced, even, a list of layers for each stage, or a layout"
    elif wrong := spread.misfit(model.layers, pipeline, stages // pipeline):
        yield ("placement", "parallel.pipeline", "schedule", "model"), wrong


GATHER_FP8 = {"megatron": TENSORWISE, "torch": ("fp8_current",)}
"""Stack -> precisions in which it casts parameters before they are gathered."""


def _machine(scenario: Scenario) -> Iterator[Finding]:
    cluster = divides.cluster_of(scenario)
    device, sms = cluster.node.device, scenario.comm.sms
    products = EVERY[scenario.precision].linear
    if products not in device.peak_flops:
        known = KINDS[scenario.stack.name].precisions
        what = f"{device.name} (cluster.node) has no {products} peak"
        have = ", ".join(name for name in known if EVERY[name].linear in device.peak_flops)
        yield ("precision", "cluster.node.device", "cluster.node"), f"{what}; legal: {have}"
    if scenario.optimizer.offloaded and scenario.optimizer.name != Optimizer.name:
        what = f"the host's CPU makes no matrix orthogonal; legal with {scenario.optimizer.name}: none"
        yield ("optimizer.offload", "optimizer.name"), f"found host; {what}"
    kept = ("fp8", *GATHER_FP8.get(scenario.stack.name, ()))
    if scenario.states.parameters == "fp8" and scenario.precision not in kept:
        what = f"products in {scenario.precision} read no FP8 copies; legal: bf16, or write precision={kept[-1]}"
        yield ("states.parameters", "precision"), f"found fp8; {what}"
    elif scenario.states.parameters == "fp8" and scenario.stack.name == "torch" and scenario.parallel.zero < 2:
        what = "torch casts parameters for their gathers alone, and none is gathered"
        yield ("states.parameters", "parallel.zero"), f"found fp8; {what}; legal: bf16, or parallel.zero 2 or 3"
    if sms % 2 or not 0 <= sms < device.sms:
        most, has = (device.sms - 1) // 2 * 2, f"{device.name} has {device.sms} SMs"
        legal = f"even numbers from 2 to {most} ({has}), 0: copy engines" if most else f"0 ({has}): copy engines"
        small = 0 < device.sms <= sms == Comm.sms
        usual = ", the default (of an H800's 132); write fewer, or comm.sms=0" if small else ""
        yield ("comm.sms", "cluster.node.device"), f"found {sms}{usual}; legal: {legal}"
    yield from _comm(scenario.comm)
    if scenario.comm.collectives == NCCL and not library.known(device.architecture):
        what = f"nobody measured NCCL on {device.architecture} ({device.name})"
        yield ("comm.collectives", "cluster.node.device"), f"{what}; legal: ring"
    if cluster.fabric:
        most = cluster.fabric.most_nodes(cluster.node.gpus * cluster.node.nics_per_gpu)
        if cluster.nodes > most:
            what = f"{cluster.fabric.name} (cluster.fabric) joins at most {most} nodes"
            yield ("cluster.nodes", "cluster.fabric"), f"{what}; found {cluster.nodes}"
    yield from _wiring(cluster)


def _comm(comm: Comm) -> Iterator[Finding]:
    """Whether what is said of the communication kernel goes with how exchanges are timed."""
    if not comm.sms and comm.warps != type(comm).warps:
        yield ("comm.warps", "comm.sms"), "copy engines (comm.sms 0) have no warps; legal: comm.sms 2 or more"
    if comm.exchange in ("kernel", "events"):
        return
    if comm.sms == 0:
        what = "0 SMs are copy engines instead of the kernel"
        legal = "legal: kernel, events, or comm.sms above 0"
        yield ("comm.exchange", "comm.sms"), f"{comm.exchange} knows no SMs; {what}; {legal}"
    elif comm.sms < ENOUGH_SMS:
        what = f"{comm.exchange} takes links at their full rate, which takes {ENOUGH_SMS} SMs or more"
        yield ("comm.sms", "comm.exchange"), f"found {comm.sms}; {what}; for fewer write comm.exchange=kernel"
    if comm.warps != type(comm).warps:
        yield ("comm.warps", "comm.exchange"), f"only kernel and events have warps; found comm.exchange {comm.exchange}"


def _wiring(cluster: Cluster) -> Iterator[Finding]:
    """Whether nodes are in slots that there are, on switches whose links can be told apart."""
    if not cluster.routing:
        return
    if cluster.fabric is None:
        yield ("cluster.routing", "cluster.placement"), "nothing is said about switches; name a cluster.fabric"
        return
    most = cluster.fabric.most_nodes(cluster.node.gpus * cluster.node.nics_per_gpu)
    if not isinstance(cluster.placement, str):
        try:
            slots.allocate(cluster.placement, cluster.nodes, most)
        except Refused as error:
            yield ("cluster.placement",), str(error)
    try:
        next(iter(cluster.fabric.topology.cables()))
    except Refused as error:
        yield ("cluster.fabric", "cluster.routing"), str(error)
