"""Scenarios: a machine, a model and a way to run it, or the times of a schedule's chunks; read from YAML and checked.

`load` and `from_mapping` give a frozen, picklable Scenario or raise DocumentError, which lists all that is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwmodels import fabric as fabrics
from hwmodels import node as nodes
from hwmodels.document import Document, Place, read
from hwmodels.fabric import Fabric
from hwmodels.node import Node
from hwmodels.shelf import Shelf, names
from sim import program
from sim.models.shape import ModelShape

HERE = Path(__file__).resolve().parent

SCENARIOS = HERE.parent / "scenarios"
"""Where the scenarios that ship with the project are."""

MODELS = Shelf("model", SCENARIOS / "models", "scenarios/models", cited=False)
"""Where the models that ship with the project are; a scenario's own folder may have `models/` too."""


@dataclass(frozen=True)
class Cluster:
    """`nodes` equal nodes on a fabric (None: nothing is said about switches).

    placement: packed, scattered or the slot of each node (see sim.network.allocation). routing: static, ecmp or
    adaptive (see sim.network.paths); None: traffic is priced as if nothing in the fabric blocked.
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


@dataclass(frozen=True)
class Parallel:
    """Ranks in each kind of group; zero is the ZeRO stage."""

    pipeline: int
    expert: int
    tensor: int
    zero: int


@dataclass(frozen=True)
class Schedule:
    """name: a file of sim/schedules. chunks: virtual stages a rank, where the schedule lets a scenario choose (see
    sim.program.chunked)."""

    name: str
    chunks: int = 2


@dataclass(frozen=True)
class Batch:
    """sequences: of a step over all data-parallel ranks (None with chunk times). sequence_length: tokens in each.
    micro_batch: sequences in one. micro_batches: per pipeline when given, None when they follow from sequences."""

    sequences: int | None
    sequence_length: int
    micro_batch: int
    micro_batches: int | None


@dataclass(frozen=True)
class Routing:
    """kind: how tokens choose experts: balanced (as expected), sampled, skewed or recorded (see sim.tokens.popularity).

    spread: standard deviation of experts' popularity, of sampled routing. max_vio: how far the most popular expert is
    above the mean, of skewed. histogram: tokens by layer and expert, of recorded. redundant_experts: copies a layer.
    """

    kind: str
    spread: float | None = None
    max_vio: float | None = None
    histogram: tuple[tuple[int, ...], ...] | None = None
    redundant_experts: int = 0


@dataclass(frozen=True)
class Comm:
    """sms: streaming multiprocessors that a communication kernel holds; 0: copy engines move the rows. warps: how those
    are given to its roles, follow (their loads) or fixed (as in DeepEP). exchange: how dispatch and combine are timed,
    kernel (by warps on those SMs), messages (by ports) or closed (bandwidth alone)."""

    sms: int = 20
    warps: str = "follow"
    exchange: str = "kernel"


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
    """kind: gpu (compute of a rank), node (compute of its ranks), link (the NICs of a rank) or thermal (the clock of a
    rank's GPU falls with heat). at: rank or node. slower: how many times as long things take. start_ns, end_ns: when,
    from the start of the step. every_ns: 0, or it comes again so long after each start, for lasts_ns each time.
    time_constant_ns: of a thermal fault, whose clock falls to 1 / slower exponentially from start_ns on, and stays."""

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
class Scenario:
    """One run. Either cluster and model are given, or chunk_times; the others are then None.

    placement: a rule, or layers per stage. resolved: all of it as plain values, which reload to the same scenario.
    scenario_hash: BLAKE2b of `resolved` without name and outputs, as hexadecimal text.
    """

    name: str
    cluster: Cluster | None
    model: ModelShape | None
    precision: str
    parallel: Parallel
    schedule: Schedule
    placement: str | tuple[int, ...]
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
    scenario_hash: str = ""
    resolved: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    @property
    def uneven(self) -> bool:
        """Whether ranks at one pipeline position may take different times."""
        return self.routing.kind != "balanced" or bool(self.faults) or self.jitter > 0

    @property
    def data_parallel(self) -> int:
        """Pipelines that run side by side, each on its own sequences; 1 with chunk times."""
        return self.cluster.gpus // (self.parallel.pipeline * self.parallel.tensor) if self.cluster else 1


def load(path: str, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario in a YAML file, changed by `key=value` overrides. Raises DocumentError."""
    from sim.resolve import resolve

    return resolve(read(Path(path)), overrides, Path(path))


def from_mapping(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> Scenario:
    """The scenario that plain values (as in YAML) describe, changed by overrides. Raises DocumentError."""
    from sim.resolve import resolve

    return resolve(Document(mapping, {(): Place("<mapping>")}), overrides, None)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the YAML form, with the names that are known now."""
    from sim.form import ScenarioForm
    from sim.models.family import family

    content = ScenarioForm.model_json_schema()
    content["$defs"]["ClusterForm"]["properties"]["node"] = _named(nodes.available(), nodes.KEYS)
    content["$defs"]["ClusterForm"]["properties"]["fabric"] = _named(fabrics.available(), fabrics.KEYS)
    shapes = [family(name).Shape for name in families()]
    content["properties"]["model"] = _named(models(), *(tuple(shape.__dataclass_fields__) for shape in shapes))
    content["properties"]["schedule"] = {"anyOf": [{"enum": list(program.names())}, {"$ref": "#/$defs/ScheduleForm"}]}
    content["$defs"]["ScheduleForm"]["properties"]["name"]["enum"] = list(program.names())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


def _named(legal: Sequence[str], *kinds: Sequence[str]) -> dict[str, Any]:
    """Schema of a document: a name, or a mapping of the keys of one of its kinds that may build on a name."""
    words: dict[str, Any] = {"enum": list(legal)}
    each: list[dict[str, Any]] = [{key: {} for key in keys} | {"base": words} for keys in kinds]
    mappings = ({"type": "object", "properties": keys, "additionalProperties": False} for keys in each)
    return {"anyOf": [words, *mappings]}


def families() -> tuple[str, ...]:
    """Names of the model families: the folders in sim/models that have a form."""
    return tuple(sorted(file.parent.name for file in (HERE / "models").glob("*/form.py")))


def models() -> tuple[str, ...]:
    """Names of the models that ship with the project."""
    return names(MODELS.folder)
