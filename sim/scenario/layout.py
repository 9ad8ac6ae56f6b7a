"""What a scenario says of its layout: ranks of each axis, the pipeline's schedule, what runs beside what."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sim.models.form import Count, Form, Natural, whole
from sim.scenario.quantity import quantity
from sim.scenario.values import ORDER


def _order(value: Any) -> Any:
    """An order of all axes."""
    if not isinstance(value, str) or sorted(value.split("-")) != sorted(ORDER.split("-")):
        raise ValueError(f"found {value!r}; legal: tp, cp, ep, dp and pp in any order, e.g. {ORDER}")
    return value


Zero = Annotated[int, Field(ge=0, le=3), BeforeValidator(whole)]


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
    zero: Zero = 1
    """ZeRO stage, what is sharded over data parallelism (arXiv:1910.02054): 0, nothing (gradients are all-reduced); 1,
    optimizer states (Megatron's distributed optimizer); 2, gradients too; 3, parameters too (FSDP)."""
    shard: Count | None = None
    """Data-parallel ranks that share one copy of what is sharded; the rest are replicas of those (hybrid sharding,
    HSDP; Megatron's instances of the distributed optimizer). All of them unless said; divides data parallelism."""
    reshard: bool = True
    """With zero 3: whether parameters are let go after forward and gathered again for backward (FSDP2's
    reshard_after_forward)."""
    no_sync: bool = False
    """Of torch with zero 2 or 3: whether the last micro-batch of a step alone reduces gradients, which all before it
    add up unsharded, in the format that is reduced (fully_shard's set_requires_gradient_sync, as no_sync of DDP, which
    torch's zero 0 and 1 do anyway; its pipelines too)."""


class ScheduleForm(Form):
    """The order of a pipeline's steps."""

    name: str
    """Order of forward and backward steps: a file of sim/schedules."""
    chunks: Count | None = None
    """Stages that a position holds, for schedules that let one choose; 2 unless said, and 1 is 1f1b."""
    group: Count | None = None
    """Micro-batches that go through one stage of a position before its next stage has them, for schedules that let one
    choose: parallel.pipeline of them unless said, and no fewer; the last group may be smaller, though not than that
    (Megatron Core's microbatch_group_size_per_vp_stage)."""
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
    gradients: bool | None = None
    """Whether gradients are reduced beside the backward that makes them, bucket by bucket (Megatron's
    --overlap-grad-reduce). Unless said: with torch they are; with megatron not, all of a rank's after its last
    backward; with deepseek not, those of each stage after its last."""
    parameters: bool | None = None
    """Whether parameters are gathered beside the forward that reads them, bucket by bucket, the next one ahead
    (Megatron's --overlap-param-gather). Unless said: with zero 2 and 3 of torch they are; else not."""
    gather: Literal["aligned", "on_demand", "before"] | None = None
    """When parameters that are gathered beside forward are asked for: aligned (by all positions when the step begins;
    Megatron's --align-param-gather), on_demand (by each stage, for all of its own, when its first forward comes to
    them, so that a first micro-batch waits for one stage after another) or before (a validation before each step has
    gathered them, and the step does not again). Unless said: on_demand with megatron where positions hold one stage,
    else aligned."""
    buckets: Annotated[int, *quantity("data", round)] | None = None
    """Bytes of gradients that are reduced at once (and parameters gathered), whole layers at least. Unless said:
    megatron 40 million parameters or a million a data-parallel rank, whichever is more; torch 25 MB (zero 0 and 1),
    else a layer."""
    pipeline: bool | None = None
    """Whether the pipeline's messages travel beside compute: true (an output leaves when it is there, beside what its
    rank does next) or false (between two steps a rank waits for all it sends and receives, in the schedule's batches;
    Megatron Core's --no-overlap-p2p-communication). Unless said, 1f1b on the megatron and torch stacks waits, as they
    do, and all else overlaps."""
