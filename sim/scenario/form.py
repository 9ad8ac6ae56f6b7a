"""The YAML form of a scenario: its keys, their types and defaults, read by pydantic (0.3 s to import, so on demand)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from hwmodels.document import did_you_mean, unknown
from hwmodels.refused import Refused
from hwmodels.units import KILO, SECONDS_PER_DAY, seconds_to_ns
from sim.models.form import Count, Form, Natural, Size, listed, whole
from sim.scenario import stages
from sim.scenario.layout import OverlapForm, ParallelForm, ScheduleForm
from sim.scenario.quantity import quantity
from sim.scenario.software import StackForm

PLACEMENT = {"anyOf": [{"enum": list(stages.RULES)}, {"type": "array"}, {"type": "string"}, {"type": "object"}]}
OUTPUTS = ("result", "report", "trace", "events", "links", "loads")


def _slots(value: Any) -> Any:
    """Slots of nodes: a word, or a slot for each."""
    if isinstance(value, list | tuple) and value and all(type(item) is int and item >= 0 for item in value):
        return tuple(value)
    if value not in ("packed", "scattered"):
        near = did_you_mean(value, ("packed", "scattered"))
        raise ValueError(f"found {value!r}{near or ';'} legal: packed, scattered, or a list with a slot for each node")
    return value


def _outputs(value: Any) -> Any:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        raise ValueError(f"expected a list; found {value!r}; legal: {', '.join(OUTPUTS)}")
    if not words:
        raise ValueError(f"names nothing; [result] has figures alone; legal: {', '.join(OUTPUTS)}")
    for word in words:
        if word not in OUTPUTS:
            raise ValueError(unknown(word, "output", OUTPUTS))
    return tuple(name for name in OUTPUTS if name in words)


DAYS = 30
"""Limit of a time in a scenario: steps take seconds, and 106 days of nanoseconds are more than half of 64 bits."""


def _ns(seconds: float) -> int:
    if seconds > DAYS * SECONDS_PER_DAY:
        raise Refused(f"found {seconds:g} s; legal: up to {DAYS} days")
    return seconds_to_ns(seconds)


def _share(value: float) -> float:
    if not value <= 1:
        raise ValueError(f"expected a ratio from 0 to 1; found {value:g}")
    return value


def _recompute(value: Any) -> Any:
    """A word alone is a kind; a mapping says one thing."""
    if isinstance(value, Mapping):
        given = [key for key in ("kind", "modules", "layers") if value.get(key) is not None]
        if len(given) > 1:
            raise ValueError(f"found {' and '.join(given)}; legal: one of kind, modules, layers")
        if value.get("method") is not None and given != ["layers"]:
            raise ValueError("method goes with layers, e.g. {layers: 1, method: uniform}")
    return {"kind": value} if isinstance(value, str) else value


def _word_is(key: str) -> BeforeValidator:
    """A word alone stands for {key: word}."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


Module = Literal["core_attention", "mla_up_projection", "norm", "activation", "mlp", "moe", "shared_experts"]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1), BeforeValidator(whole)]
Nanoseconds = Annotated[int, *quantity("time", _ns)]
Document = Annotated[Any, WithJsonSchema({"type": ["string", "object"]})]


class ClusterForm(Form):
    """Equal nodes on a fabric."""

    node: Document
    """The server: a name in hwmodels/nodes, or {base: name, ...} with what differs."""
    nodes: Count
    """How many of them."""
    fabric: Document = None
    """The network between them: a name in hwmodels/fabrics, or {base: name, ...}; without it nothing is said about
    switches."""
    placement: Annotated[
        Any, BeforeValidator(_slots), WithJsonSchema({"anyOf": [{"enum": ["packed", "scattered"]}, {"type": "array"}]})
    ] = None
    """Which slots of the fabric the nodes are in: side by side, in an order that the seed draws, or a slot for each."""
    routing: Literal["static", "ecmp", "adaptive"] | None = None
    """How flows choose their way through the fabric; without it (and without placement, or
    leaves with fewer links up than down) nothing in it blocks."""


class LengthsForm(Form):
    """How long documents are."""

    kind: Literal["fixed", "uniform", "lognormal", "recorded"]
    """fixed: all alike; uniform, lognormal: drawn; recorded: as a histogram says."""
    length: Size | None = None
    """Tokens of every document, of fixed lengths."""
    low: Annotated[Size | None, Field(alias="from")] = None
    """Tokens of the shortest document, of uniform lengths."""
    high: Annotated[Size | None, Field(alias="to")] = None
    """Tokens of the longest, of uniform lengths."""
    median: Size | None = None
    """Tokens of the median document, of lognormal lengths."""
    sigma: Annotated[float, Field(ge=0, le=8, allow_inf_nan=False)] | None = None
    """Standard deviation of the logarithm of lognormal lengths."""
    histogram: Annotated[Any, WithJsonSchema({"type": ["string", "array"]})] = None
    """Of recorded lengths: a CSV file with columns length and count beside the scenario, or a list of such pairs."""


def _lengths(value: Any) -> Any:
    """A file alone stands for recorded lengths."""
    return {"kind": "recorded", "histogram": value} if isinstance(value, str) else value


class BatchForm(Form):
    """What one step trains on."""

    sequences: Size | None = None
    """Sequences of a step over all data-parallel ranks."""
    sequence_length: Size = 4096
    """Tokens of a sequence."""
    micro_batch: Count = 1
    """Sequences of a micro-batch."""
    micro_batches: Count | None = None
    """Micro-batches of a pipeline, instead of sequences."""
    lengths: Annotated[LengthsForm | None, BeforeValidator(_lengths)] = None
    """Lengths of the documents in sequences, a distribution or a file: attention stays inside a document, so what it
    costs differs from rank to rank. Without it a sequence is one document."""
    packed: bool | None = None
    """With lengths: whether documents fill sequences one after another, cut where a sequence ends (the default), or
    each sequence has one document, cut to its length, and padding that is computed like tokens."""


class RoutingForm(Form):
    """How tokens choose experts."""

    kind: Literal["balanced", "sampled", "skewed", "recorded"] = "balanced"
    """balanced: all experts alike; sampled, skewed: popularity drawn or made; recorded: as a histogram says."""
    spread: Annotated[float, *quantity("ratio", _share)] | None = None
    """Standard deviation of experts' popularity, of sampled routing; 0.15 unless said, as in DeepSeek's profile."""
    max_vio: Annotated[float, *quantity("ratio")] | None = None
    """How far the most popular expert is above the mean, of skewed routing."""
    histogram: Annotated[Any, WithJsonSchema({"type": ["string", "array"]})] = None
    """Tokens by layer and expert, of recorded routing: a file, or lists."""
    redundant_experts: Natural = 0
    """Copies of popular experts in a layer, placed by EPLB as published: two of one expert may share a rank."""


class CommForm(Form):
    """The communication kernel, how it is timed, and what else a rank waits for."""

    sms: Annotated[int, BeforeValidator(whole), WithJsonSchema({"type": "integer", "minimum": 0, "multipleOf": 2})] = 20
    """Streaming multiprocessors that a communication kernel holds: an even number; 0: none, copy engines move the
    rows (a what-if)."""
    warps: Literal["follow", "fixed"] = "follow"
    """How those are given to the kernel's roles: follow (the load of each, DeepSeek-V3's own kernels) or fixed
    (DeepEP's)."""
    exchange: Literal["kernel", "events", "messages", "closed"] = "kernel"
    """How dispatch and combine are timed: kernel (by warps on those SMs, as a recurrence), events (the same role by
    role in SimPy, which the recurrence is held equal to), messages (through ports, first in, first out) or closed
    (the bandwidth bound)."""
    collectives: Literal["ring", "nccl"] = "ring"
    """How messages and what the optimizer reduces and gathers are timed: ring (bytes over effective bandwidth, and
    latencies) or nccl (the way that NCCL takes, with its protocol and SMs: docs/COLLECTIVES.md)."""
    hold: Literal["always", "while_running"] | None = None
    """Whether those SMs are lost to compute always or while_running (while a communication kernel runs); by default
    always where the schedule overlaps by itself (DualPipe, DualPipeV), as in DeepSeek's profile, else while_running."""
    messages: Literal["hidden", "waited"] = "hidden"
    """An older word for overlap.pipeline: hidden (true; the DeepSeek-V3 report) or waited (false: each message leaves
    when both of its ends have come; DualPipe's open code)."""
    waits: Literal["none", "measured"] = "none"
    """For peers before an exchange beside compute: none, or measured (the mean of the device's profile, which is that
    of its one rank)."""


class OptimizerForm(Form):
    """What follows the steps."""

    name: Literal["adamw", "muon"] = "adamw"
    """How parameters are updated: adamw, or muon (matrices of linear layers and of experts by orthogonal momentum, with
    one moment; AdamW for the rest)."""
    reduce: Literal["in_drain", "after"] = "in_drain"
    """When gradients are reduced: in_drain (each stage's as soon as all that hold it are through with it) or after
    (all of them when every rank is through with its steps; it then counts as optimizer)."""
    offload: Literal["none", "host"] = "none"
    """Where master weights and moments are: none (on the device) or host, whose CPU updates them; gradients and
    parameters then go over PCIe."""
    unseen: Annotated[float, *quantity("ratio", _share)] = 0.0
    """Part of the embedding's rows that no token of the run has named yet, as in a run's first steps: torch's fused
    AdamW takes twice as long where gradients and moments are zero."""


class StatesForm(Form):
    """Formats of what a parameter has beside its activations; those not given are the recipe's, as in DeepSeek-V3."""

    master: Literal["fp32", "bf16"] | None = None
    """Master weights; FP32 unless said."""
    moments: Literal["fp32", "bf16", "fp8"] | None = None
    """Moments of the optimizer; BF16 unless said; fp8: 8 bits, with an FP32 scale for 2,048 of them."""
    gradients: Literal["fp32", "bf16"] | None = None
    """Gradients as they are summed over micro-batches, held and reduced; FP32 unless said."""
    parameters: Literal["bf16", "fp8"] | None = None
    """The copies that products read; as precision has it unless said. bf16 beside precision fp8: they are quantised
    before each product. fp8 on megatron in fp8_delayed or fp8_current: parameters are cast where they are updated, and
    gathered and kept so (--fp8-param-gather). On torch in fp8_current: shards are cast before they are gathered
    (torchao's enable_fsdp_float8_all_gather), by scales of whole tensors that are found once a step."""


class RecomputeForm(Form):
    """What backward computes again: a kind, or modules or layers."""

    kind: Literal["recipe", "none", "full", "selective_op"] | None = None
    """recipe (as the model's publishers did, the default), none, full (every layer from its input) or, of torch,
    selective_op: torchtitan's policy, which keeps attention and every second product."""
    modules: Annotated[tuple[Module, ...], BeforeValidator(listed)] | None = None
    """Those and no others: attention without its projections, latent attention's up-projections and rope, norms,
    activations of feed-forward networks, dense networks, mixtures with gate and exchanges, shared experts."""
    layers: Count | None = None
    """So many layers whole: in groups, or of each stage."""
    method: Literal["uniform", "block", "every"] | None = None
    """uniform (all layers, in groups of so many, which keep one input; the default), block (the first of each stage,
    the others keep all) or every (one in so many of each stage)."""


class ChunkTimesForm(Form):
    """Durations of one chunk of a pipeline stage."""

    forward: Nanoseconds
    """Forward of a chunk."""
    backward_input: Nanoseconds
    """Gradients of its inputs."""
    weight: Nanoseconds
    """Gradients of its weights."""
    overlapped: Nanoseconds | None = None
    """A forward and a whole backward overlapped; their sum unless said."""
    p2p: Nanoseconds = 0
    """One send between neighbours."""


class FaultForm(Form):
    """Something slow."""

    kind: Literal["gpu", "node", "link", "thermal"]
    """gpu, link (its NICs) or thermal (its clock falls with heat) of a rank; node: all GPUs of one."""
    at: Natural
    """The rank, or the node."""
    slower: Annotated[float, Field(ge=1, le=KILO, allow_inf_nan=False)]
    """How many times as long its work takes."""
    start: Nanoseconds = 0
    """When it begins, from the start of the step."""
    end: Nanoseconds | None = None
    """When it ends; without it, never."""
    every: Nanoseconds | None = None
    """It comes again so long after each start."""
    lasts: Nanoseconds | None = None
    """How long it lasts each time."""
    time_constant: Nanoseconds | None = None
    """Of a thermal fault: how fast the clock falls."""


class LimitsForm(Form):
    """What a run must keep."""

    step_time: Annotated[float, *quantity("time")] | None = None
    """A longer step is infeasible."""
    memory: Annotated[int, *quantity("data", round)] | None = None
    """A rank that needs more is infeasible."""


class ScenarioForm(Form):
    """A scenario: a model on a cluster, or the times of a schedule's chunks."""

    name: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)] = ""
    """What the answer is called; decides nothing."""
    cluster: ClusterForm | None = None
    """The machine; with a model."""
    model: Document = None
    """What is trained: a name in scenarios/models (or models/ beside the scenario), or {base: name, ...}."""
    precision: Literal["fp8", "bf16", "fp8_delayed", "fp8_current", "fp8_block", "fp8_rowwise", "mxfp8", "nvfp4"] = (
        "fp8"
    )
    """Format of matrix products: fp8 as DeepSeek-V3's recipe, bf16, or a recipe of TransformerEngine on the megatron
    stack. Compiled torch has torchao's: fp8_current, its float8 with a scale a tensor, fp8_rowwise, with a scale a row
    of what a product reads, and mxfp8, of dense layers that no tensor group shares."""
    stack: Annotated[StackForm, _word_is("name")] = StackForm()
    """Whose kernels train the model: a name, or a mapping."""
    parallel: ParallelForm = ParallelForm()
    """How ranks share the work; data parallelism follows."""
    schedule: Annotated[ScheduleForm | None, _word_is("name")] = None
    """The pipeline's schedule: a name, or a mapping. Without a pipeline it may be left out: the backward of each
    micro-batch then follows its forward (1f1b), and gradients add up."""
    placement: Annotated[Any, BeforeValidator(stages.placement), WithJsonSchema(PLACEMENT)] = "balanced"
    """Layers of each stage: balanced (so that the slowest position is fastest), even, or a list (layers_per_stage of
    result.json is one) in the order of the model, in which interleaved stage s is on position s mod pipeline. A layout
    as Megatron Core's, e.g. Et*4|(t*4|)*14tmL, or a list of words for each stage: E embedding, t layer, m MTP layer, L
    head and loss. {first: n, last: m}: layers of the first and of the last position, all others alike.
    {embedding: true, head: true}: that counts as a layer where all positions have equally many."""
    batch: BatchForm
    """What a step trains on."""
    routing: Annotated[RoutingForm, _word_is("kind")] = RoutingForm()
    """How tokens choose experts: a kind, or a mapping."""
    comm: CommForm = CommForm()
    """The communication kernel, and what else a rank waits for."""
    overlap: OverlapForm = OverlapForm()
    """What runs at the same time, beside what the schedule has so by itself."""
    recompute: Annotated[RecomputeForm, BeforeValidator(_recompute)] = RecomputeForm()
    """What backward computes again instead of keeping it: a kind, {modules: [...]} or {layers: n, method: ...}."""
    states: StatesForm = StatesForm()
    """Formats of parameters, gradients and optimizer states."""
    offload: Annotated[float, *quantity("ratio", _share)] = 0.0
    """Part of what layers keep for backward that is copied to the host's memory behind their forward, and back before
    their backward, beside compute; the last layer of a stage keeps its own."""
    optimizer: OptimizerForm = OptimizerForm()
    """What follows the steps of the schedule."""
    detail: Literal["op", "layer", "chunk"] = "layer"
    """What is drawn: kernels, parts of layers, or steps of the schedule; no figure depends on it."""
    fold: bool = True
    """Carry ranks that nothing tells apart as one; the same answer in less time."""
    seed: Seed = 0
    """Of all that is drawn at random."""
    pricing: Literal["measured", "fitted", "roofline"] = "measured"
    """Best prices to use: measured rows, curves fitted to them, or the roofline alone."""
    tables: Annotated[Any, WithJsonSchema({"type": ["string", "object"]})] = None
    """Folder of tables that `python -m numerics calibrate --trace` wrote of a job's trace, or what it holds: where its
    rows are near they are the prices, and others elsewhere."""
    chunk_times: ChunkTimesForm | None = None
    """Times of a schedule's chunks, instead of model and cluster."""
    outputs: Annotated[tuple[str, ...], BeforeValidator(_outputs)] = OUTPUTS
    """What is written beside scenario.yaml and result.json."""
    limits: LimitsForm = LimitsForm()
    """Limits that make a run infeasible when missed."""
    faults: Annotated[tuple[FaultForm, ...], BeforeValidator(listed)] = ()
    """What is slow: a list."""
    jitter: Annotated[float, *quantity("ratio", _share)] = 0.0
    """Standard deviation of random noise on durations, as a ratio."""
