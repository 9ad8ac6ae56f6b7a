"""Values of a campaign: phases on a cluster, what goes wrong, what an hour costs; all frozen, SI units."""

from dataclasses import dataclass, field
from typing import Any

from sim.result.title import title
from sim.scenario.values import Cluster, Scenario

BLOCKING, ASYNCHRONOUS, MEMORY = "blocking", "asynchronous", "memory"
OPTIMUM = "optimum"
"""Of a checkpoint's interval: Daly's (see sim.campaign.daly)."""


@dataclass(frozen=True)
class Phase:
    """Steps of one length and layout. tokens: at least so many; None: `steps` of them. first, last: sequences of a step
    at its start and its end, growing linearly in tokens by multiples of `by` (equal: no growth). scenario: its step, of
    the first batch. learning_rate: a label."""

    name: str
    scenario: Scenario
    length: int
    first: int
    last: int
    by: int
    tokens: int | None
    steps: int | None
    learning_rate: str = ""


@dataclass(frozen=True)
class Checkpoints:
    """kind: blocking, asynchronous or memory. every_s: between them, or OPTIMUM. storage: bytes/s that all nodes
    together write, and read. replicas: copies of a node's states in the memory of nodes, its own included.
    stored_every_s: between those of kind memory that go to storage too."""

    kind: str = ASYNCHRONOUS
    every_s: float | str = OPTIMUM
    storage: float = 0.0
    replicas: int = 2
    stored_every_s: float = 0.0


@dataclass(frozen=True)
class Nodes:
    """Failures of nodes. mtbf_s: mean time of one, from repair to failure. law: exponential or weibull, of that shape.
    spread: standard deviation over mean of the nodes' own rates, which are gamma-distributed. lemons, worse: part of
    nodes whose rate is so many times rates keep their mean). repair_s: until it is a spare.
    bad_mtbf_s: of node 0 alone, where it is a bad one."""

    mtbf_s: float
    law: str = "exponential"
    shape: float = 1.0
    spread: float = 0.0
    lemons: float = 0.0
    worse: float = 1.0
    repair_s: float = 0.0
    bad_mtbf_s: float | None = None


@dataclass(frozen=True)
class Switches:
    """Failures that take all nodes behind a switch. nodes: behind one. mtbf_s, repair_s: of one switch."""

    nodes: int
    mtbf_s: float
    repair_s: float


@dataclass(frozen=True)
class Hidden:
    """What goes wrong now and is found later. mtbf_s: mean time between them, of a node. detect_s: until then.
    slower: how many times as long steps take meanwhile, of a node that stays slow."""

    mtbf_s: float
    detect_s: float
    slower: float = 1.0


@dataclass(frozen=True)
class Failures:
    """What interrupts a campaign; None: never. software_mtbf_s: of the job, without a broken part."""

    nodes: Nodes | None = None
    switches: Switches | None = None
    software_mtbf_s: float | None = None
    silent: Hidden | None = None
    stragglers: Hidden | None = None


@dataclass(frozen=True)
class Restart:
    """The chain from a failure to the next step, seconds each; loading comes with the checkpoint's size. hangs: part of
    failures that are told only by a timeout."""

    detect_s: float = 0.0
    hangs: float = 0.0
    timeout_s: float = 0.0
    replace_s: float = 0.0
    launch_s: float = 0.0
    connect_s: float = 0.0
    warm_up_s: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """A pause of takes_s after each `every` steps."""

    every: int
    takes_s: float


@dataclass(frozen=True)
class Power:
    """Watts of a GPU while it trains and while it waits, and what the building takes over the nodes."""

    busy_w: float
    idle_w: float
    facility: float


@dataclass(frozen=True)
class Published:
    """GPU-hours that were published, beside those of some phases: compared, nothing goes by them."""

    what: str
    gpu_hours: float
    phases: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Campaign:
    """A campaign as read. resolved: its document as plain values. outputs: as of a scenario. unfelt: a line for each
    key that was given and changes nothing."""

    name: str
    phases: tuple[Phase, ...]
    checkpoint: Checkpoints
    failures: Failures
    restart: Restart
    spares: int
    evaluation: Evaluation | None
    power: Power
    gpu_hour_usd: float | None
    deadline_s: float | None
    seeds: int
    seed: int
    outputs: tuple[str, ...]
    published: tuple[Published, ...] = ()
    scenario_hash: str = ""
    overrides: tuple[str, ...] = ()
    unfelt: tuple[str, ...] = ()
    resolved: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is called, with its overrides."""
        return title(self.name, self.overrides)

    @property
    def cluster(self) -> Cluster:
        """Of all phases."""
        cluster = self.phases[0].scenario.cluster
        assert cluster is not None
        return cluster

    @property
    def nodes(self) -> int:
        """Nodes of the job, spares aside."""
        return self.cluster.nodes

    @property
    def gpus(self) -> int:
        """GPUs of the job, spares aside."""
        return self.cluster.gpus
