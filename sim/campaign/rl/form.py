"""The YAML form of `rl:` (pydantic): its keys, types and defaults."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from sim.campaign.form import Mean
from sim.models.form import Count, Form, Size, whole
from sim.scenario.form import Document, LengthsForm
from sim.scenario.quantity import quantity
from sim.serving.form import Part

Seconds = Annotated[float, *quantity("time")]
Steps = Annotated[int, Field(ge=1, le=64), BeforeValidator(whole)]


class RolloutForm(Form):
    """What makes answers: instances of the model as in serving."""

    nodes: Count | None = None
    """Nodes beside those of `cluster` that make rollouts alone; unless said, rollouts and updates take turns on
    `cluster`."""
    node: Document = None
    """Of those nodes: a name in hwmodels/nodes, or {base: name, ...}; as the cluster's unless said."""
    tensor: Count = 1
    """Ranks that share attention's heads and the columns of networks."""
    expert: Count = 1
    """Ranks that share the experts, a multiple of tensor; 1: all of the tensor group share each expert's columns."""
    precision: Literal["fp8", "bf16"] = "bf16"
    """Format of matrix products and of their weights."""
    memory: Part = 0.9
    """Part of a GPU's memory for weights and cache."""
    batch: Count = 256
    """Sequences of an attention group, at most."""
    chunk: Count = 8192
    """Tokens of prompts in a step of an attention group, at most."""
    host: Seconds = 0.0
    """Between two steps, while GPUs wait for the host that schedules and samples."""
    executor: Literal["processes", "ray"] = "processes"
    """How steps reach an instance's ranks: processes of its node or Ray's compiled graphs, whose time comes on top of
    `host` (docs/RL.md)."""
    sleep: Literal["drop", "keep"] = "drop"
    """What becomes of their weights while updates have the GPUs: they are dropped, for new ones come, or go to the host
    and back (vLLM's sleep of level 1)."""


class RewardForm(Form):
    """How answers are judged."""

    takes: Seconds = 0.0
    """Of one answer."""
    workers: Count = 1
    """How many are judged at once, each as soon as it is there."""


class SyncForm(Form):
    """How new weights reach rollouts."""

    method: Literal["gather", "reshard"] = "gather"
    """gather: pipeline, expert and tensor groups gather each tensor whole, and where rollouts are apart it is broadcast
    to all of them through the same NICs; reshard: each GPU gets its own part alone."""
    takes: Seconds | None = None
    """As it was measured; unless said, as long as links need."""
    in_flight: bool = True
    """Whether answers under way wait and go on with new weights; else they are finished first."""


class PublishedForm(Form):
    """A published step, beside the answer's: nothing goes by it."""

    step: Mean
    """Seconds of it."""
    source: str
    """Where it is published."""


class RlForm(Form):
    """Steps of GRPO (arXiv:2402.03300): no critic, advantages within groups."""

    groups: Count
    """Prompts of a step."""
    samples: Count
    """Answers to each prompt."""
    prompt: Size
    """Tokens of a prompt."""
    response: LengthsForm
    """How long answers are before they are cut off: fixed, uniform, lognormal or recorded."""
    most: Size
    """Tokens after which an answer is cut off."""
    kl: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0
    """Weight of the KL term; 0: there is none, and no reference model."""
    reference: Literal["host", "device"] = "host"
    """Where the reference's weights wait: host (they and the policy's change places twice a step) or device."""
    old_log_probs: bool = True
    """Whether the trainer computes log-probabilities of the policy that answered; else rollouts' own are taken."""
    packed: bool = True
    """Whether answers fill sequences of batch.sequence_length, first fit, longest first; else each has a sequence,
    padded to the longest of the step."""
    updates: Count = 1
    """Updates of a step, each on an equal part of its answers."""
    steps: Steps = 5
    """Steps that are reported; those that fill a pipeline of stale rollouts come before them."""
    stale: Annotated[int, Field(ge=0, le=16), BeforeValidator(whole)] = 0
    """Updates by which the weights that answer may be behind: 0 is on-policy, 1 is one step off;
    with 2 or more, prompts of later steps take places that become free."""
    controller: Seconds = 0.0
    """What the controller does between rewards and log-probabilities: gathering, padding and sharding answers."""
    send: Literal["each", "shared"] | None = None
    """How the controller hands workers what each pass is over, through Ray: each: packed anew for every worker; shared:
    packed once for all that get the same; unless said, in no time (docs/RL.md)."""
    log_prob_batch: Count = 1
    """Sequences of a micro-batch of passes for log-probabilities, which keep nothing for a backward."""
    offload: bool = True
    """Whether the trainer's weights and optimizer states go to the host while rollouts have the GPUs."""
    pinned: bool = True
    """Whether optimizer states go to page-locked memory that is kept; else tensor by tensor to new memory that is not
    (docs/RL.md)."""
    rollout: RolloutForm = RolloutForm()
    """What makes answers."""
    reward: RewardForm = RewardForm()
    """How they are judged."""
    sync: SyncForm = SyncForm()
    """How new weights reach rollouts."""
    published: PublishedForm | None = None
    """A published step to compare with."""


class LearningForm(Form):
    """Keys of reinforcement learning beside those of a scenario, whose step is the update."""

    rl: RlForm
    """Rollouts, rewards, log-probabilities, update, weights."""
