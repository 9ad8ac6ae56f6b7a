"""What a scenario of reinforcement learning says, as frozen values; times in seconds, sizes in bytes."""

from dataclasses import dataclass, field
from typing import Any

from sim.result.title import title
from sim.scenario.values import Cluster, Lengths, Scenario
from sim.serving.values import Serve

KIND = "rl"
"""The top-level key that tells reinforcement learning from other scenarios."""
HOST, DEVICE = "host", "device"
"""Where the reference's weights are while nobody needs them."""
RAY = "ray"
"""What brings steps of rollouts to ranks, where processes of a node do not."""
EACH, SHARED = "each", "shared"
"""How the controller packs what workers get: for every worker anew, or once for all that get the same."""
GATHER, RESHARD = "gather", "reshard"
"""How new weights reach rollouts: each tensor whole on every GPU for a moment, or each GPU's own part alone."""


@dataclass(frozen=True)
class Answers:
    """What is asked in a step. groups: prompts; samples: answers to each. prompt: tokens of one. lengths: of answers,
    as they would be; most: tokens after which one is cut off."""

    groups: int
    samples: int
    prompt: int
    lengths: Lengths
    most: int

    @property
    def count(self) -> int:
        """Answers of a step."""
        return self.groups * self.samples


@dataclass(frozen=True)
class Reward:
    """takes_s: of one answer. workers: how many are judged at once."""

    takes_s: float
    workers: int


@dataclass(frozen=True)
class Sync:
    """How new weights reach rollouts. method: GATHER or RESHARD. takes_s: as it was measured; None: as links have it.
    in_flight: answers under way go on with them; else all are finished first."""

    method: str
    takes_s: float | None
    in_flight: bool


@dataclass(frozen=True)
class Published:
    """A step that was published, beside ours: compared, nothing goes by it."""

    step_s: float
    source: str


@dataclass(frozen=True)
class Learning:
    """Reinforcement learning as read. scenario: the update's step on the GPUs that train, of some batch. serve: what
    makes rollouts. apart: on GPUs of its own; else both take turns. kl: weight of the KL term, 0: none, and no
    reference model. reference: HOST or DEVICE. old: the trainer computes log-probabilities of the policy that answered.
    packed: answers share sequences; else each has one. updates: of a step's answers, one after another. steps: that are
    reported. stale: updates by which the weights that answer may be behind those that are trained. controller_s:
    between rewards and log-probabilities. send: None, EACH or SHARED: how batches reach workers. offload: whether the
    trainer's weights and optimizer states go to the host while rollouts run; pinned: to page-locked memory. asleep:
    whether rollouts' weights do while others have the GPUs.
    log_prob_batch: sequences of a micro-batch that is for log-probabilities alone.
    published: a step to compare with. resolved: the document as plain values. unfelt: a line for each key that was
    given and changes nothing."""

    name: str
    scenario: Scenario
    serve: Serve
    apart: bool
    answers: Answers
    kl: float
    reference: str
    old: bool
    packed: bool
    updates: int
    steps: int
    stale: int
    controller_s: float
    send: str | None
    offload: bool
    pinned: bool
    asleep: bool
    log_prob_batch: int
    reward: Reward
    sync: Sync
    published: Published | None
    seed: int
    outputs: tuple[str, ...]
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
        """The GPUs that train."""
        assert self.scenario.cluster is not None
        return self.scenario.cluster

    @property
    def gpus(self) -> int:
        """All of them, those of rollouts included."""
        return self.cluster.gpus + (self.serve.gpus if self.apart else 0)
