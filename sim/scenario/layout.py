"""What a scenario says of its layout: ranks of each axis, the pipeline's schedule, what runs beside what."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sim.models.form import Count, Form, Natural, whole
from sim.scenario.values import ORDER


def _only_one(value: Any) -> Any:
    if value != 1:
        raise ValueError(f"{value!r} is not built yet; legal: 1")
    return value


def _order(value: Any) -> Any:
    """An order of all axes."""
    if not isinstance(value, str) or sorted(value.split("-")) != sorted(ORDER.split("-")):
        raise ValueError(f"found {value!r}; legal: tp, cp, ep, dp and pp in any order, e.g. {ORDER}")
    return value


OnlyOne = Annotated[int, Field(ge=1, le=1), BeforeValidator(_only_one), BeforeValidator(whole)]


class ParallelForm(Form):
    """Ranks of each kind of parallelism."""

    pipeline: Count = 1
    """Positions of the pipeline."""
    expert: Count = 1
    """Ranks that share the experts of a layer; divides data parallelism."""
    tensor: Count = 1
    """Ranks that share each layer's heads and columns of networks, and the vocabulary."""
    sequence: bool | None = None
    """Whether they also share the tokens of what lies between (sequence parallelism, arXiv:2205.05198); true beside
    tensor unless said."""
    context: Count = 1
    """Ranks that share the tokens of each sequence."""
    context_kind: Literal["ring", "all_gather", "all_to_all"] = "ring"
    """How those see each other's keys and values: ring (blocks go round beside attention, arXiv:2310.01889), all_gather
    (all of them at once) or all_to_all (heads for tokens, arXiv:2309.14509)."""
    expert_tensor: Count = 1
    """Ranks that share the columns of each routed expert."""
    order: Annotated[str, BeforeValidator(_order)] = ORDER
    """Axes from the one whose ranks are neighbours to the one whose ranks lie farthest apart: tp, cp, ep, dp and pp in
    any order. Tensor groups of routed experts stand where tp stands, what is left of data parallelism where dp does."""
    zero: OnlyOne = 1
    """ZeRO stage: 1, optimizer states are sharded."""


class ScheduleForm(Form):
    """The order of a pipeline's steps."""

    name: str
    """Order of forward and backward steps: a file of sim/schedules."""
    chunks: Annotated[int, Field(ge=2), BeforeValidator(whole)] | None = None
    """Stages that a position holds, for schedules that let one choose; 2 unless said."""
    waiting: Natural | None = None
    """Weight gradients that a position puts off at most, for schedules that do so: fewer take less memory and leave a
    larger bubble; as many as it would unless said."""


class OverlapForm(Form):
    """What runs beside what."""

    expert: bool | None = None
    """Whether expert exchanges of a micro-batch run beside compute of another: 1f1b and interleaved then run a backward
    beside a later forward, as Megatron Core's combined 1F1B, also without a pipeline; DualPipe and DualPipeV always
    do."""
    tensor: bool | None = None
    """Whether gathers before the products of a tensor group, and reduce-scatters behind them, go chunk by chunk beside
    those (Megatron's user buffers, tp_comm_overlap; torch's asynchronous tensor parallelism); false unless said. They
    need parallel.sequence."""
