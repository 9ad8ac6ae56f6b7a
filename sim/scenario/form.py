"""The YAML form of a scenario: its keys, their types and defaults, read by pydantic (0.3 s to import, so on demand)."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, WithJsonSchema

from hwmodels.document import KeyPath, did_you_mean, unknown
from hwmodels.refused import Refused
from hwmodels.units import EXAMPLES, KILO, SECONDS_PER_DAY, parse, seconds_to_ns
from sim.models.form import Count, Form, Natural, Size, whole

OUTPUTS = ("result", "report", "trace", "events", "links", "loads")


def _quantity(dimension: str, convert: Callable[[float], float] = float) -> Any:
    schema = {"type": ["string", "number"], "format": dimension, "examples": [EXAMPLES[dimension]]}
    return (BeforeValidator(lambda value: _converted(value, dimension, convert)), WithJsonSchema(schema))


def _converted(value: Any, dimension: str, convert: Callable[[float], float]) -> float:
    """A quantity in SI; what is refused is a ValueError, for pydantic collects no other."""
    try:
        return convert(parse(value, dimension))
    except Refused as error:
        raise ValueError(str(error)) from None


def _placement(value: Any) -> Any:
    if isinstance(value, list | tuple) and value and all(type(item) is int and item >= 0 for item in value):
        return tuple(value)
    if value not in ("balanced", "even"):
        raise ValueError(f"found {value!r}; legal: balanced, even, or a list of layers for each stage")
    return value


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
    if not isinstance(words, list | tuple) or not words:
        raise ValueError(f"expected a list; found {value!r}; legal: {', '.join(OUTPUTS)}")
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


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _only_one(value: Any) -> Any:
    if value != 1:
        raise ValueError(f"{value!r} is not built yet; legal: 1")
    return value


def _word_is(key: str) -> BeforeValidator:
    """A word alone stands for {key: word}."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


Seed = Annotated[int, Field(ge=0, le=2**64 - 1), BeforeValidator(whole)]
OnlyOne = Annotated[int, Field(ge=1, le=1), BeforeValidator(_only_one), BeforeValidator(whole)]
Nanoseconds = Annotated[int, *_quantity("time", _ns)]
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


class ParallelForm(Form):
    """Ranks of each kind of parallelism."""

    pipeline: Count = 1
    """Positions of the pipeline."""
    expert: Count = 1
    """Ranks that share the experts of a layer; divides data parallelism."""
    tensor: OnlyOne = 1
    """Tensor parallelism: not built yet."""
    zero: OnlyOne = 1
    """ZeRO stage: 1, optimizer states are sharded."""


class ScheduleForm(Form):
    """The order of a pipeline's steps."""

    name: str
    """Order of forward and backward steps: a file of sim/schedules."""
    chunks: Annotated[int, Field(ge=2), BeforeValidator(whole)] | None = None
    """Stages that a position holds, for schedules that let one choose; 2 unless said."""


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


class RoutingForm(Form):
    """How tokens choose experts."""

    kind: Literal["balanced", "sampled", "skewed", "recorded"] = "balanced"
    """balanced: all experts alike; sampled, skewed: popularity drawn or made; recorded: as a histogram says."""
    spread: Annotated[float, *_quantity("ratio", _share)] | None = None
    """Standard deviation of experts' popularity, of sampled routing; 0.15 unless said, as in DeepSeek's profile."""
    max_vio: Annotated[float, *_quantity("ratio")] | None = None
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
    always where the schedule overlaps (DualPipe, DualPipeV), as in DeepSeek's profile, else while_running."""
    messages: Literal["hidden", "waited"] = "hidden"
    """Of the pipeline: hidden (an output leaves when it is there, beside what its rank does next; the DeepSeek-V3
    report) or waited (between two steps a rank waits for all it sends and receives, each message from when both ends
    have come; DualPipe's open code)."""
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

    step_time: Annotated[float, *_quantity("time")] | None = None
    """A longer step is infeasible."""
    memory: Annotated[int, *_quantity("data", round)] | None = None
    """A rank that needs more is infeasible."""


class ScenarioForm(Form):
    """A scenario: a model on a cluster, or the times of a schedule's chunks."""

    name: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)] = ""
    """What the answer is called; decides nothing."""
    cluster: ClusterForm | None = None
    """The machine; with a model."""
    model: Document = None
    """What is trained: a name in scenarios/models (or models/ beside the scenario), or {base: name, ...}."""
    precision: Literal["fp8", "bf16"] = "fp8"
    """Format of matrix products: fp8 as DeepSeek-V3's recipe, or bf16."""
    parallel: ParallelForm = ParallelForm()
    """How ranks share the work; data parallelism follows."""
    schedule: Annotated[ScheduleForm, _word_is("name")]
    """The pipeline's schedule: a name, or a mapping."""
    placement: Annotated[Literal["balanced", "even"] | tuple[int, ...], BeforeValidator(_placement)] = "balanced"
    """Layers of each stage: so that the slowest position is fastest, evenly, or a list (layers_per_stage of
    result.json is one)."""
    batch: BatchForm
    """What a step trains on."""
    routing: Annotated[RoutingForm, _word_is("kind")] = RoutingForm()
    """How tokens choose experts: a kind, or a mapping."""
    comm: CommForm = CommForm()
    """The communication kernel, and what else a rank waits for."""
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
    chunk_times: ChunkTimesForm | None = None
    """Times of a schedule's chunks, instead of model and cluster."""
    outputs: Annotated[tuple[str, ...], BeforeValidator(_outputs)] = OUTPUTS
    """What is written beside scenario.yaml and result.json."""
    limits: LimitsForm = LimitsForm()
    """Limits that make a run infeasible when missed."""
    faults: Annotated[tuple[FaultForm, ...], BeforeValidator(_listed)] = ()
    """What is slow: a list."""
    jitter: Annotated[float, *_quantity("ratio", _share)] = 0.0
    """Standard deviation of random noise on durations, as a ratio."""


def mistakes(form: type[Form], error: ValidationError) -> list[tuple[KeyPath, str]]:
    """Each mistake pydantic found in a `form`, as the key path and one line in our words."""
    return [(_path(item["loc"]), _message(form, item)) for item in error.errors(include_url=False)]


def _path(loc: tuple[int | str, ...]) -> KeyPath:
    """The key path of a location; pydantic adds the names of union members and validators, which are no keys."""
    return tuple(part for part in loc if isinstance(part, int) or part.isidentifier())


def _message(form: type[Form], item: Mapping[str, Any]) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown(item["loc"][-1], "key", keys(form, item["loc"][:-1]))
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        legal = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"found {value!r}{did_you_mean(value, legal) or ';'} legal: {', '.join(legal)}"
    expected = _bounded(form, item["loc"], context) if kind in _OUT_OF_BOUNDS else _EXPECTED.get(kind, item["msg"])
    if kind in ("model_type", "model_attributes_type"):
        expected = f"a mapping with {', '.join(keys(form, item['loc']))}"
    if kind == "tuple_type" and isinstance(value, Mapping) and all(str(key).isdecimal() for key in value):
        return f"no list is written that has item {', '.join(value)}; write it whole: {item['loc'][-1]}=[...]"
    if kind == "missing":
        return f"missing; expected {_MISSING.get(item['loc'][-1], 'a value')}"
    return f"expected {expected}; found {value!r}"


def _bounded(form: type[Form], loc: KeyPath, missed: Mapping[str, Any]) -> str:
    """What the number at `loc` may be: by the bounds its field has, and the one it missed."""
    field = _part(form, loc[:-1]).model_fields[str(loc[-1])]
    bounds = {key: getattr(item, key) for item in field.metadata for key in ("gt", "ge", "le") if hasattr(item, key)}
    bounds = {**missed, **bounds}
    whole = field.annotation is not float
    number = "a whole number" if whole else "a number"
    if "gt" in bounds:
        return f"a finite number above {bounds['gt']:g}"
    if "le" in (missed if whole else bounds):
        least, most = (str(each) if whole else f"{each:g}" for each in (bounds.get("ge", 1), bounds["le"]))
        return f"{number} from {least} to {most}"
    return f"{number}, {bounds['ge']:g} or more"


_OUT_OF_BOUNDS = ("greater_than", "greater_than_equal", "less_than_equal", "finite_number")

_MISSING = {
    "schedule": "a schedule, e.g. dualpipe", "batch": "a mapping, e.g. {sequences: 15360}", "node": "e.g. h800x8",
    "nodes": "a whole number, 1 or more", "name": "text",
    **dict.fromkeys(("forward", "backward_input", "weight"), 'a time, e.g. "18.5 ms"'),
}  # fmt: skip

_EXPECTED = {
    "string_type": "text", "bool_type": "true or false", "bool_parsing": "true or false",
    "float_type": "a number", "int_type": "a whole number", "int_from_float": "a whole number", "tuple_type": "a list",
}  # fmt: skip


def keys(form: type[BaseModel], path: KeyPath) -> tuple[str, ...]:
    """The legal keys of the part of `form` at `path`."""
    return tuple(_part(form, path).model_fields)


def _part(form: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    for part in path:
        inner = form.model_fields.get(str(part))
        forms = [inner.annotation, *get_args(inner.annotation)] if inner else []
        form = next((item for item in forms if isinstance(item, type) and issubclass(item, BaseModel)), form)
    return form
