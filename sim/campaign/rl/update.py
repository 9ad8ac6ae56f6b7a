"""What the step simulator says of an update and of log-probabilities, which are its forward passes alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hwmodels.collectives import wires
from hwmodels.memory import streaming
from hwmodels.refused import Refused
from sim import assembly
from sim.analysis import memory
from sim.campaign.rl import hosts, lengths
from sim.campaign.rl.lengths import Numbers
from sim.campaign.rl.values import EACH, Learning
from sim.layout.plan import lay_out
from sim.models.stacks.stack import NATIVE
from sim.scenario.files import load
from sim.scenario.values import Scenario
from sim.simulation import run

ROUND = 64
"""Tokens to a multiple of which padded sequences are filled (NVIDIA-NeMo/RL v0.6.0, sequence_length_round)."""
BF16 = 2
"""Bytes of an element of a hidden state on its way to the next position."""

SENT, SENT_FLOATS = 16, 4
"""Bytes of a token that workers get before each pass: its number and whether it counts, in 64 bits each; and of each
figure beside it before an update: log-probabilities of rollouts, of the trainer and of the reference, and advantages
(grpo_train in nemo_rl/algorithms/grpo.py of NVIDIA-NeMo/RL v0.6.0)."""
LOGITS = (46, 22)
"""Bytes of an element of logits that log-probabilities and the loss read and write, forward (cast to FP32, largest,
difference, exponents and their sum, logarithms, their exponents) and backward (negated, scaled, to BF16):
DistributedLogprob in nemo_rl/distributed/model_utils.py of NVIDIA-NeMo/RL v0.6.0."""
LOSS = {"transformer_engine": (6, 4), NATIVE: (22, 10)}
"""Those of the loss that the step simulator has (sim/models/stacks/megatron/ends.py), of which these take the place."""
FORWARDS = 3
"""An update's work, in its forward passes."""

_STEPS = dict[str, "Step"]()


@dataclass(frozen=True)
class Batch:
    """Answers of one update with their prompts, as sequences. sequences: of all pipelines, alike many on each. length:
    of each. piece: tokens that attention stays inside. tokens: that are answers and prompts, padding aside."""

    sequences: int
    length: int
    piece: int
    tokens: int

    @property
    def padding(self) -> float:
        """Part of what is computed that nobody asked for."""
        return 1 - self.tokens / (self.sequences * self.length)


@dataclass(frozen=True)
class Step:
    """A simulated step. forward_s [positions]: of one micro-batch at each position of the pipeline. micro_batches: of a
    pipeline. infeasible: why it cannot run."""

    seconds: float
    forward_s: tuple[float, ...]
    micro_batches: int
    bubble: float
    peak_bytes: int
    capacity_bytes: int
    infeasible: tuple[str, ...]


def batches(learning: Learning, tokens: Numbers) -> list[Batch]:
    """The batches of a step's updates. tokens [answers]: of the answers alone."""
    whole = tokens + learning.answers.prompt
    share = len(whole) // learning.updates
    parts = [whole[at : at + share] for at in range(0, len(whole), share)]
    return [_packed(learning, part) if learning.packed else _padded(learning, part) for part in parts]


def _packed(learning: Learning, tokens: Numbers) -> Batch:
    room = learning.scenario.batch.sequence_length
    count = _shared(learning, len(lengths.packed(tokens.tolist(), room)))
    return Batch(count, room, lengths.alike(tokens, room), int(tokens.sum()))


def _padded(learning: Learning, tokens: Numbers) -> Batch:
    longest = -(-int(tokens.max()) // ROUND) * ROUND
    return Batch(_shared(learning, len(tokens)), longest, longest, int(tokens.sum()))


def _shared(learning: Learning, sequences: int) -> int:
    """So many sequences, and empty ones until all pipelines have alike many micro-batches."""
    each = learning.scenario.data_parallel * learning.scenario.batch.micro_batch
    return -(-sequences // each) * each


def step(learning: Learning, batch: Batch) -> Step:
    """The update of a batch, simulated once as long as the process lives. Raises Refused."""
    words = [f"batch.sequences={batch.sequences}", f"batch.sequence_length={batch.length}"]
    if batch.piece < batch.length:
        words.append(f"batch.lengths={{kind: fixed, length: {batch.piece}}}")
    try:
        scenario = load(learning.scenario, words)
        if scenario.scenario_hash not in _STEPS:
            _STEPS[scenario.scenario_hash] = with_logits(_simulated(scenario), *logits_s(scenario))
    except Refused as refused:
        raise Refused(f"an update of {batch.sequences} sequences: {' '.join(str(refused).split())}") from None
    return _STEPS[scenario.scenario_hash]


def logits_s(scenario: Scenario) -> tuple[float, float]:
    """What a micro-batch's logits take more than in pretraining, forward and backward, at the last position."""
    assert scenario.cluster is not None and scenario.model is not None
    own, parallel = scenario.batch, scenario.parallel
    elements = own.micro_batch * own.sequence_length / parallel.context * scenario.model.vocabulary / parallel.tensor
    each, less_than = elements / streaming(scenario.cluster.node.device), LOSS[scenario.stack.cross_entropy]
    forward, backward = (max(0, more - less) * each for more, less in zip(LOGITS, less_than, strict=True))
    return forward, backward


def with_logits(made: Step, forward: float, backward: float) -> Step:
    """A step whose last position takes so many seconds more for each micro-batch: all wait for that where it is then
    the slowest."""
    *others, last = made.forward_s
    longer = max(0.0, FORWARDS * last + forward + backward - FORWARDS * max(made.forward_s))
    return replace(made, seconds=made.seconds + made.micro_batches * longer, forward_s=(*others, last + forward))


def _simulated(scenario: Scenario) -> Step:
    summary: dict[str, Any] = run(scenario, interval=False).summary
    worst, phases = summary["worst_memory"], summary
    each = _micro_batches(scenario)
    if summary["phases_s"]["overlapped"]:  # forward passes beside backward ones: a schedule without tells them apart
        phases = run(load(scenario, ["schedule=1f1b"]), interval=False).summary
    forward = tuple(seconds / each for seconds in phases["phases_per_rank"]["forward"])
    return Step(
        summary["step_time_s"], forward, each, summary["bubble_fraction"], worst["peak_bytes"],
        worst["capacity_bytes"], tuple(summary["infeasible"]),
    )  # fmt: skip


def _micro_batches(scenario: Scenario) -> int:
    assert scenario.batch.sequences is not None
    return scenario.batch.sequences // (scenario.data_parallel * scenario.batch.micro_batch)


def log_probs_s(learning: Learning, batch: Batch) -> float:
    """Forward passes of a batch over the pipeline: alike micro-batches one after another through each position, so all
    of them once through the slowest and one through all others, and its messages on the way."""
    scenario, own = learning.scenario, step(learning, batch)
    update = scenario.batch.micro_batch
    each = max(update, learning.log_prob_batch)
    if each != update:
        least = 2 * scenario.parallel.pipeline * scenario.data_parallel * each
        larger = replace(learning, scenario=load(scenario, [f"batch.micro_batch={each}", f"batch.sequences={least}"]))
        own = replace(
            step(larger, replace(batch, sequences=least)), micro_batches=-(-own.micro_batches * update // each)
        )
    return passed_s(own.forward_s, own.micro_batches, _message_s(scenario, each * batch.length))


def passed_s(forward_s: Sequence[float], micro_batches: int, message_s: float) -> float:
    """Until so many alike micro-batches are through all positions, of which one takes forward_s each."""
    return sum(forward_s) + (micro_batches - 1) * max(forward_s) + (len(forward_s) - 1) * message_s


def sent_s(learning: Learning, tokens: Numbers) -> tuple[float, float]:
    """Seconds until workers have what a pass for log-probabilities is over, and what a step's updates are: each its
    data-parallel rank's answers with their prompts, padded to the longest of the step."""
    if learning.send is None:
        return 0.0, 0.0
    parts = learning.scenario.data_parallel
    padded = -(-learning.answers.count // parts) * (int(tokens.max()) + learning.answers.prompt)
    figures = 2 + learning.old + (learning.kl > 0)
    forward, whole = (
        hosts.sent_s(learning.cluster.gpus, parts, padded * each, learning.send == EACH)
        for each in (SENT, SENT + SENT_FLOATS * figures)
    )
    return forward, whole


def _message_s(scenario: Scenario, length: int) -> float:
    """Hidden states of so many tokens to the next position, over the NICs where there are several nodes."""
    assert scenario.cluster is not None and scenario.model is not None
    links, ranks = wires(scenario.cluster.node, scenario.cluster.fabric), scenario.parallel.tensor
    tokens = length / (scenario.parallel.context * ranks)
    rate = links.network if scenario.cluster.nodes > 1 else links.nvlink.effective
    return tokens * scenario.model.hidden * BF16 / rate


def held(scenario: Scenario) -> tuple[float, float]:
    """Bytes of the rank that has most: of its weights, and of its optimizer states."""
    plan = lay_out(scenario)
    machine, _ = assembly.assembled(plan)
    parts = [memory.constant(plan, machine, at) for at in range(plan.program.positions)]
    return float(max(part["weights"] for part in parts)), float(max(part["optimizer states"] for part in parts))
