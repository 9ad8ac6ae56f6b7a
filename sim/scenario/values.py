"""Values of a scenario: a machine, a model and a way to run it, or the times of a schedule's chunks; all frozen."""

from dataclasses import dataclass, field, replace
from math import exp
from pathlib import Path
from typing import Any

from hwmodels.document import Document
from hwmodels.fabric import Fabric
from hwmodels.figure import OVERRIDE, Figure
from hwmodels.node import Node
from sim.models.precision import PUBLISHED, States
from sim.models.recompute import RECIPE, Recompute
from sim.models.shape import ModelShape
from sim.models.stacks.stack import DEEPSEEK, Stack
from sim.result.title import title
from sim.scenario.stages import Layout, Spread
from sim.schedules.program import Shape


@dataclass(frozen=True)
class Cluster:
    """`nodes` equal nodes on a fabric (None: nothing is said about switches).

    placement: packed, scattered or the slot of each node (see sim.scenario.slots). routing: static, ecmp or
    adaptive (see sim.communication.fabric.paths); None: traffic is priced as if nothing in the fabric blocked.
    """

    node: Node
    nodes: int
    fabric: Fabric | None
    placement: str | tuple[int, ...] = "packed"
    routing: str | None = None

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.nodes * self.node.gpus

    @property
    def figures(self) -> dict[str, Figure]:
        """Numbers of the machine by their dotted key in a scenario."""
        parts = {"node.device": self.node.device.figures, "node": self.node.figures}
        if self.fabric:
            parts["fabric"] = self.fabric.figures
        return {f"cluster.{part}.{key}": figure for part, own in parts.items() for key, figure in own.items()}

    @property
    def stated(self) -> dict[str, Figure]:
        """Those that the scenario states itself, without a source."""
        return {key: figure for key, figure in self.figures.items() if figure.source == OVERRIDE}


ORDER = "tp-cp-ep-dp-pp"
"""The usual order of axes, the fastest first, in Megatron-LM's words (`--order`; megatron/core/parallel_state.py)."""


@dataclass(frozen=True)
class Parallel:
    """Ranks in each kind of group. zero: the ZeRO stage: 0, nothing is sharded over data parallelism; 1, optimizer
    states; 2, and gradients; 3, and parameters. sequence: whether ranks of a tensor group share tokens between
    products. context_kind: ring, all_gather or all_to_all. order: of the axes (see sim.layout.mesh). shard:
    data-parallel ranks that share one copy of what is sharded; None: all of them. reshard: whether parameters that
    are sharded are let go after forward and gathered again for backward. no_sync: gradients that are sharded are
    reduced by the last micro-batch of a step alone."""

    pipeline: int
    expert: int
    tensor: int
    zero: int
    sequence: bool = False
    context: int = 1
    context_kind: str = "ring"
    expert_tensor: int = 1
    order: str = ORDER
    shard: int | None = None
    reshard: bool = True
    no_sync: bool = False

    @property
    def model(self) -> int:
        """Ranks that work on the same sequences: a copy of the model has so many."""
        return self.pipeline * self.tensor * self.context


@dataclass(frozen=True)
class Schedule:
    """The schedule of a scenario. name: a file of sim/schedules. chunks: virtual stages a rank, where the schedule lets
    a scenario choose (see sim.schedules.program.chunked). waiting: weight gradients that a rank puts off at most, where
    the schedule does so; None: as many as it would. group: micro-batches of one, where the schedule has groups (see
    sim.schedules.program.grouped); None: as many as it would."""

    name: str
    chunks: int = 2
    waiting: int | None = None
    group: int | None = None

    def shape(self, pipeline: int, micro_batches: int, paired: bool = False) -> Shape:
        """Its size on a pipeline."""
        return Shape(pipeline, micro_batches, self.chunks, paired, self.waiting, self.group)


@dataclass(frozen=True)
class Lengths:
    """Lengths of documents, in tokens. kind: fixed, uniform, lognormal or recorded. length: of every document. low,
    high: the shortest and the longest, all between as likely. median, sigma: of the lengths, and the standard deviation
    of their logarithm. histogram: (length, documents) each. The others of a kind are None."""

    kind: str
    length: int | None = None
    low: int | None = None
    high: int | None = None
    median: int | None = None
    sigma: float | None = None
    histogram: tuple[tuple[int, int], ...] | None = None

    @property
    def only(self) -> int:
        """The length of every document, where there is but one; else 0."""
        if self.kind == "recorded" and self.histogram:
            return self.histogram[0][0] if len(self.histogram) == 1 else 0
        if self.kind == "uniform":
            return self.low or 0 if self.low == self.high else 0
        return (self.length or 0) if self.kind == "fixed" else 0

    @property
    def mean(self) -> float:
        """Mean length; of lognormal ones it is median x exp(sigma^2 / 2)."""
        if self.kind == "lognormal":
            return (self.median or 1) * exp((self.sigma or 0.0) ** 2 / 2)
        if self.kind == "uniform":
            return ((self.low or 1) + (self.high or 1)) / 2
        rows = self.histogram or ((self.length or 1, 1),)
        return sum(length * count for length, count in rows) / sum(count for _, count in rows)

    @property
    def usual(self) -> float:
        """About how many tokens a document has: the median of lognormal ones, whose mean can be of few, else the
        mean."""
        return self.median or self.mean

    def alike(self, sequence: int) -> int:
        """Tokens of every document in packed sequences, where all of them are alike; else 0."""
        fits = self.only and (sequence % self.only == 0 or self.only % sequence == 0)
        return min(self.only, sequence) if fits else 0


@dataclass(frozen=True)
class Batch:
    """The batch of a step. sequences: of a step over all data-parallel ranks (None with chunk times). sequence_length:
    tokens in each. micro_batch: sequences in one. micro_batches: per pipeline when given, None when they follow from
    sequences. lengths: of the documents in them; None: a sequence is one document. packed: documents fill sequences one
    after another; else each sequence has one, and padding behind it."""

    sequences: int | None
    sequence_length: int
    micro_batch: int
    micro_batches: int | None
    lengths: Lengths | None = None
    packed: bool = True

    @property
    def unlike(self) -> bool:
        """Whether micro-batches may differ by the documents that they are packed with."""
        return self.lengths is not None and self.packed and not self.lengths.alike(self.sequence_length)


PROFILE_SPREAD = 0.15
"""Standard deviation of popularity that gives the spread of rows in DeepSeek's published H800 profile.

Its rank of 4 of 256 experts has 31104, 30976, 36864, 31104, 34688, 32512, 32896, 28416 padded rows in eight layers
(h800_dualpipe_trace: padded_routed_rows): a root mean square of 7.6 % about the balanced 33,024. Choosing at random
gives 0.54 % and padding 0.22 % of that, so by the second moment an expert's popularity has a standard deviation of
sqrt((0.0762^2 - 0.0054^2 - 0.0022^2) * 4 / (1 - 4/256)) = 0.153; eight values put it between 0.10 and 0.29 (95 %,
chi-square). One pair of chunks cannot tell layers from micro-batches: all of it is laid to layers.

The profile's README says that its routing was made "absolutely balanced" (deepseek-ai/profile-data @4496024), while its
rows vary by 14 %: text and trace disagree, and what training did is in neither.
"""


@dataclass(frozen=True)
class Routing:
    """Routing of tokens to experts. kind: how tokens choose experts: balanced (as expected), sampled, skewed or
    recorded (see sim.routing.popularity).

    spread: standard deviation of experts' popularity, of sampled routing. max_vio: how far the most popular expert is
    above the mean, of skewed. histogram: tokens by layer and expert, of recorded. redundant_experts: copies a layer.
    """

    kind: str
    spread: float | None = None
    max_vio: float | None = None
    histogram: tuple[tuple[int, ...], ...] | None = None
    redundant_experts: int = 0


ALWAYS, WHILE_RUNNING = "always", "while_running"
"""Words of `comm.hold`."""
RING, NCCL = "ring", "nccl"
"""Words of `comm.collectives`."""


@dataclass(frozen=True)
class Comm:
    """The communication kernels of a scenario. sms: streaming multiprocessors that a communication kernel holds; 0:
    copy engines move the rows. warps: how those are given to its roles, follow (their loads) or fixed (as in DeepEP).
    exchange: how dispatch and combine are timed, kernel or events (by warps on those SMs), messages (by ports) or
    closed (bandwidth alone). hold: those SMs, always or while_running (a communication kernel); None: as the schedule
    has it (`sim.assembly.held_always`). messages: of the pipeline, hidden (they leave when they are there) or waited (a
    rank waits for what it sends and receives between two steps). waits: for peers before an exchange beside compute,
    none or measured (as in the table's profile). collectives: by a ring's closed form, or nccl (`hwmodels.nccl`)."""

    sms: int = 20
    warps: str = "follow"
    exchange: str = "kernel"
    hold: str | None = None
    messages: str = "hidden"
    waits: str = "none"
    collectives: str = RING


@dataclass(frozen=True)
class Overlap:
    """What runs beside what. expert: whether exchanges of a micro-batch do beside compute of another, in schedules that
    let a scenario choose (see sim.schedules.program.pairing); None: as the schedule has it by itself. tensor: whether
    what a tensor group exchanges goes chunk by chunk beside the products around it; None: it does not. gradients,
    parameters: whether their reduction runs beside backward and their gather beside forward, bucket by bucket. gather:
    when that is asked for, aligned, on_demand or before (see sim.layout.buckets). buckets: bytes of gradients of one.
    None of these: as the stack has it (see sim.layout.shards)."""

    expert: bool | None = None
    tensor: bool | None = None
    gradients: bool | None = None
    parameters: bool | None = None
    gather: str | None = None
    buckets: int | None = None


@dataclass(frozen=True)
class Optimizer:
    """name: adamw or muon. reduce: when gradients are reduced, in_drain (each stage's as soon as its holders are
    through with it) or after (all of them when every rank is through with its steps, as a part of the optimizer).
    offload: where master weights and moments are, none (on the device) or host. unseen: part of the embedding's rows
    that no token has named yet."""

    name: str = "adamw"
    reduce: str = "in_drain"
    offload: str = "none"
    unseen: float = 0.0

    @property
    def offloaded(self) -> bool:
        """Whether the host holds master weights and moments."""
        return self.offload == "host"


@dataclass(frozen=True)
class ChunkTimes:
    """Durations of one chunk in nanoseconds; p2p is one send between neighbours."""

    forward: int
    backward_input: int
    weight: int
    overlapped: int
    p2p: int


FOREVER = 2**62
"""Nanoseconds; later than any step ends."""


@dataclass(frozen=True)
class Fault:
    """A slow part of the cluster. kind: gpu (compute of a rank), node (compute of its ranks), link (the NICs of a rank)
    or thermal (the clock of a rank's GPU falls with heat). at: rank or node. slower: how many times as long things
    take. start_ns, end_ns: when, from the start of the step. every_ns: 0, or it comes again so long after each start,
    for lasts_ns each time. time_constant_ns: of a thermal fault, whose clock falls to 1 / slower exponentially from
    start_ns on, and stays."""

    kind: str
    at: int
    slower: float
    start_ns: int = 0
    end_ns: int = FOREVER
    every_ns: int = 0
    lasts_ns: int = 0
    time_constant_ns: int = 0


@dataclass(frozen=True)
class Limits:
    """Limits that make a run infeasible when missed; None: no limit."""

    step_time_s: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Source:
    """What a scenario was read from: a document, what was overridden in it, and its file, if it has one."""

    document: Document
    overrides: tuple[str, ...]
    path: Path | None


@dataclass(frozen=True)
class Scenario:
    """One run. Either cluster and model are given, or chunk_times; the others are then None.

    placement: a rule, layers per stage, letters of each, or how layers are spread (see sim.scenario.stages). resolved:
    all of it as plain values, which reload to the same scenario.
    scenario_hash: BLAKE2b of `resolved` without name and outputs, as hexadecimal text. overrides: what was changed in
    the file or mapping, for people alone. name: as the file or mapping says it; that of `resolved` is the title.
    asked: dotted keys that somebody asks about (see `sim.scenario.asked`). source: what it was read from. tables: of a
    job's own kernels, as JSON ("": none). offload: part of what layers keep for backward that waits on the host.
    """

    name: str = field(compare=False)
    cluster: Cluster | None
    model: ModelShape | None
    precision: str
    parallel: Parallel
    schedule: Schedule
    placement: str | tuple[int, ...] | Layout | Spread
    batch: Batch
    routing: Routing
    comm: Comm
    detail: str
    fold: bool
    seed: int
    pricing: str
    chunk_times: ChunkTimes | None
    outputs: tuple[str, ...]
    limits: Limits
    faults: tuple[Fault, ...] = ()
    jitter: float = 0.0
    optimizer: Optimizer = Optimizer()
    overlap: Overlap = Overlap()
    recompute: Recompute = RECIPE
    stack: Stack = DEEPSEEK
    states: States = PUBLISHED
    offload: float = 0.0
    tables: str = ""
    scenario_hash: str = ""
    resolved: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    overrides: tuple[str, ...] = field(default=(), compare=False)
    asked: tuple[str, ...] = field(default=(), compare=False)
    source: Source | None = field(default=None, compare=False, repr=False)

    @property
    def title(self) -> str:
        """Its name, with what was changed: the name alone may still tell of the file as it was."""
        return title(self.name, self.overrides)

    def overridden(self, *words: str) -> "Scenario":
        """It, as what was changed by those `key=value` in a file or mapping; when it is loaded again, its name says
        so."""
        return replace(self, overrides=words, resolved={**self.resolved, "name": title(self.name, words)})

    @property
    def uneven(self) -> bool:
        """Whether ranks at one pipeline position may take different times."""
        return self.routing.kind != "balanced" or bool(self.faults) or self.jitter > 0 or self.batch.unlike

    @property
    def data_parallel(self) -> int:
        """Pipelines that run side by side, each on its own sequences; 1 with chunk times."""
        return self.cluster.gpus // self.parallel.model if self.cluster else 1
