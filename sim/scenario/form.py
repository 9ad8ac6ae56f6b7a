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
    schema = {"type": ["string", "number"], "description": f'{dimension}, e.g. "{EXAMPLES[dimension]}"'}
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
    """node: a name in hwmodels/nodes or {base: name, ...}; nodes: how many; fabric: likewise, or nothing.

    placement: slots of the fabric that nodes are in. routing: how flows choose their way; neither: nothing blocks.
    """

    node: Document
    nodes: Count
    fabric: Document = None
    placement: Annotated[
        Any, BeforeValidator(_slots), WithJsonSchema({"anyOf": [{"enum": ["packed", "scattered"]}, {"type": "array"}]})
    ] = None
    routing: Literal["static", "ecmp", "adaptive"] | None = None


class ParallelForm(Form):
    """Ranks of each kind of parallelism; data parallelism follows. zero: the ZeRO stage."""

    pipeline: Count = 1
    expert: Count = 1
    tensor: OnlyOne = 1
    zero: OnlyOne = 1


class ScheduleForm(Form):
    """name: a file of sim/schedules. chunks: virtual stages a rank, where it has several."""

    name: str
    chunks: Annotated[int, Field(ge=2), BeforeValidator(whole)] | None = None


class BatchForm(Form):
    """One step: sequences over all data-parallel ranks, tokens in each, sequences in a micro-batch, micro-batches."""

    sequences: Size | None = None
    sequence_length: Size = 4096
    micro_batch: Count = 1
    micro_batches: Count | None = None


class RoutingForm(Form):
    """How tokens choose experts. spread goes with sampled, max_vio with skewed, histogram (a file) with recorded."""

    kind: Literal["balanced", "sampled", "skewed", "recorded"] = "balanced"
    spread: Annotated[float, *_quantity("ratio", _share)] | None = None
    max_vio: Annotated[float, *_quantity("ratio")] | None = None
    histogram: Annotated[Any, WithJsonSchema({"type": ["string", "array"]})] = None
    redundant_experts: Natural = 0


class CommForm(Form):
    """sms: streaming multiprocessors that a communication kernel holds; how many are legal depends on the device.
    0: none, copy engines move the rows (a what-if). warps: how the kernel's are given to its roles: follow (the load of
    each, DeepSeek-V3's own kernels) or fixed (DeepEP's). exchange: how dispatch and combine are timed: kernel (by warps
    on those SMs, as a recurrence), events (the same role by role in SimPy, which the recurrence is held equal to),
    messages (through ports, first in, first out) or closed (the bandwidth bound)."""

    sms: Annotated[int, BeforeValidator(whole), WithJsonSchema({"type": "integer", "minimum": 0, "multipleOf": 2})] = 20
    warps: Literal["follow", "fixed"] = "follow"
    exchange: Literal["kernel", "events", "messages", "closed"] = "kernel"


class ChunkTimesForm(Form):
    """Durations of one chunk; overlapped defaults to forward + backward_input + weight."""

    forward: Nanoseconds
    backward_input: Nanoseconds
    weight: Nanoseconds
    overlapped: Nanoseconds | None = None
    p2p: Nanoseconds = 0


class FaultForm(Form):
    """Something slow: gpu, link or thermal at a rank, node at a node number; slower: times as long; from start to end.

    every, lasts: it comes again and again. time_constant: of a thermal fault, which grows by and by and stays.
    """

    kind: Literal["gpu", "node", "link", "thermal"]
    at: Natural
    slower: Annotated[float, Field(ge=1, le=KILO, allow_inf_nan=False)]
    start: Nanoseconds = 0
    end: Nanoseconds | None = None
    every: Nanoseconds | None = None
    lasts: Nanoseconds | None = None
    time_constant: Nanoseconds | None = None


class LimitsForm(Form):
    """Limits that make a run infeasible when missed."""

    step_time: Annotated[float, *_quantity("time")] | None = None
    memory: Annotated[int, *_quantity("data", round)] | None = None


class ScenarioForm(Form):
    """A scenario: a model on a cluster, or the times of a schedule's chunks."""

    name: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)] = ""
    cluster: ClusterForm | None = None
    model: Document = None
    precision: Literal["fp8", "bf16"] = "fp8"
    parallel: ParallelForm = ParallelForm()
    schedule: Annotated[ScheduleForm, _word_is("name")]
    placement: Annotated[Literal["balanced", "even"] | tuple[int, ...], BeforeValidator(_placement)] = "balanced"
    batch: BatchForm
    routing: Annotated[RoutingForm, _word_is("kind")] = RoutingForm()
    comm: CommForm = CommForm()
    detail: Literal["op", "layer", "chunk"] = "layer"
    fold: bool = True
    seed: Seed = 0
    pricing: Literal["measured", "fitted", "roofline"] = "measured"
    chunk_times: ChunkTimesForm | None = None
    outputs: Annotated[tuple[str, ...], BeforeValidator(_outputs)] = OUTPUTS
    limits: LimitsForm = LimitsForm()
    faults: Annotated[tuple[FaultForm, ...], BeforeValidator(_listed)] = ()
    jitter: Annotated[float, *_quantity("ratio", _share)] = 0.0


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
