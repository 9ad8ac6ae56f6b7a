"""What a serving scenario says, as frozen values. Times are whole ns, sizes bytes."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hwmodels.fabric import Fabric
from hwmodels.node import Node
from sim.models.shape import ModelShape
from sim.scenario.values import Routing

PREFILL, DECODE, BOTH = "prefill", "decode", "both"
"""What the instances of a pool do."""
ROUND_ROBIN, LEAST_LOADED, PREFIX = "round_robin", "least_loaded", "prefix"
"""How a request finds its instance."""
POISSON, GAMMA, CLOSED, TRACE = "poisson", "gamma", "closed", "trace"
"""How requests arrive."""
NVLINK, NIC = "nvlink", "nic"
"""How low-latency exchanges reach GPUs of their own node."""
SGLANG, SGLANG_0_4_6, TENSORRT_LLM = "sglang", "sglang_0_4_6", "tensorrt_llm"
"""Engines: those of 2025 and 2026, whose kernels were measured, and SGLang of April 2025, whose kernels were more
(`sim.serving.rank.Rank.apart`)."""
RECOMPUTE, SWAP = "recompute", "swap"
"""What a sequence does that gives its cache up."""


class Pool(NamedTuple):
    """Equal instances. does: PREFILL, DECODE or BOTH. tensor: ranks that share attention; expert: ranks that share the
    experts (1: those of the tensor group share each expert's columns). overlap: a batch is two micro-batches. chunk:
    tokens of prompts of an attention group in a step, at most; batch: sequences of an attention group, at most. host:
    ns between two steps, in which GPUs wait. neighbours: NVLINK or NIC."""

    does: str
    instances: int
    tensor: int
    expert: int
    redundant_experts: int
    overlap: bool
    chunk: int
    batch: int
    host: int = 0
    neighbours: str = NVLINK

    @property
    def gpus(self) -> int:
        """Of an instance."""
        return max(self.tensor, self.expert)

    @property
    def groups(self) -> int:
        """Attention groups of an instance, each with a batch and a cache of its own."""
        return self.gpus // self.tensor


class Cache(NamedTuple):
    """form: of an element. block: tokens that are given out at once. memory: part of a GPU's memory for weights and
    cache. prefix: part of the cache for prompts that may come again, 0: none. host: bytes of host memory for caches, of
    each GPU. preempt: RECOMPUTE or SWAP. attention: format of its products on latents."""

    form: str
    block: int
    memory: float
    prefix: float
    host: float = 0.0
    preempt: str = RECOMPUTE
    attention: str = "bf16"


class Speculation(NamedTuple):
    """depth: tokens drafted for a step. acceptance: chance that a draft stands, where those before it do."""

    depth: int = 0
    acceptance: float = 0.0

    @property
    def tokens(self) -> float:
        """Of a step, on average."""
        return sum(self.acceptance**i for i in range(self.depth + 1))


class Objectives(NamedTuple):
    """Limits of the time to the first token and of the mean time for a later one."""

    ttft_ns: int
    tpot_ns: int


class Failures(NamedTuple):
    """Mean time between failures of a node, and until its instance serves again; 0: none fails."""

    mtbf_ns: int = 0
    repair_ns: int = 0


NEVER_FAILS = Failures()


class Lengths(NamedTuple):
    """Tokens, uniform from a part of `most` to all of it."""

    most: int
    least_part: float = 1.0


class Requests(NamedTuple):
    """arrivals: POISSON and GAMMA with `rate` a second (and `variation`, the coefficient of variation of gaps), CLOSED
    with `clients`, who each wait for an answer, or TRACE. number: how many, 0: as a trace has them."""

    arrivals: str
    number: int
    rate: float = 0.0
    variation: float = 1.0
    clients: int = 0
    prompt: Lengths = Lengths(1)
    output: Lengths = Lengths(1)
    file: str = ""
    form: str = ""
    speed: float = 1.0


KIND = "serve"
"""The top-level key that served loads have and other scenarios have not."""


@dataclass(frozen=True)
class Serve:
    """A serving scenario. cost: USD/s of a GPU, watts: that it draws at work, 0 where nobody says. engine: whose
    kernels run, where both were measured. draw: of how wrong prices are, 0: as they are (`sim.serving.draws`).
    drift: of experts' popularity (`sim.serving.experts.Gating`). unfelt: a line for each key that was given and changes
    nothing. resolved: the same as plain values."""

    name: str
    model: ModelShape
    node: Node
    fabric: Fabric | None
    precision: str
    pools: tuple[Pool, ...]
    cache: Cache
    routing: Routing
    router: str
    speculation: Speculation
    objectives: Objectives
    requests: Requests
    seed: int
    cost: float
    watts: float = 0.0
    failures: Failures = NEVER_FAILS
    engine: str = SGLANG
    unfelt: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    scenario_hash: str = ""
    resolved: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)
    draw: int = 0
    drift: float = 0.0

    def of(self, *kinds: str) -> tuple[Pool, ...]:
        """Pools that do something."""
        return tuple(pool for pool in self.pools if pool.does in kinds)

    @property
    def gpus(self) -> int:
        """Of all pools."""
        return sum(pool.gpus * pool.instances for pool in self.pools)
