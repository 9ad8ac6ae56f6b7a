"""What no reinforcement learning can be, though its keys are each right; and keys that change nothing in it."""

from collections.abc import Iterator

from hwmodels.document import Document, Problem, dotted
from sim.campaign.rl.form import RlForm
from sim.campaign.rl.values import KIND
from sim.scenario.values import Lengths, Scenario

Line = tuple[tuple[str, ...], str]


def check(form: RlForm, response: Lengths, scenario: Scenario, document: Document) -> Iterator[Problem]:
    """Problems of keys that need each other."""
    for key, text in (*_answers(form, response, scenario), *_placement(form, scenario)):
        yield Problem(document.place(key), dotted(key), text)


def _answers(form: RlForm, response: Lengths, scenario: Scenario) -> Iterator[Line]:
    room = scenario.batch.sequence_length
    if form.packed and form.prompt + form.most > room:
        what = f"prompt and answer of {form.prompt + form.most} tokens; legal: at least that, or {KIND}.packed: false"
        yield ("batch", "sequence_length"), f"has {room} tokens, too few for {what}"
    if form.groups * form.samples % form.updates:
        what = f"{form.groups * form.samples} answers do not share {form.updates} updates evenly"
        yield (KIND, "updates"), f"{what}; legal: divisors of {form.groups * form.samples}"
    if form.samples == 1:
        yield (KIND, "samples"), "one answer is as good as the mean of its group; legal: 2 or more (GRPO)"
    if response.kind == "fixed" and response.length and response.length > form.most:
        yield (KIND, "most"), f"cuts all answers of {response.length} tokens off; legal: at least that"


def _placement(form: RlForm, scenario: Scenario) -> Iterator[Line]:
    if form.stale and form.rollout.nodes is None:
        what = "rollouts and updates take turns on the same GPUs; legal: 0, or nodes for rollouts (rl.rollout.nodes)"
        yield (KIND, "stale"), f"found {form.stale}, but {what}"
    if form.rollout.node is not None and form.rollout.nodes is None:
        yield (KIND, "rollout", "node"), "says what nodes are of which there are none; write nodes beside it"
    if scenario.cluster is None or scenario.model is None:
        yield (KIND,), "needs cluster and model, not chunk_times"
    elif form.rollout.nodes is not None and scenario.cluster.fabric is None:
        yield ("cluster", "fabric"), "missing; weights reach the nodes of rollouts through it"


def unfelt(form: RlForm) -> Iterator[str]:
    """Lines such as "rl.reference changes nothing: ..."."""
    given = form.model_fields_set
    apart = form.rollout.nodes is not None
    if "reference" in given and not form.kl:
        yield f"{KIND}.reference changes nothing: without a KL term (rl.kl) there is no reference"
    if "offload" in given and apart:
        yield f"{KIND}.offload changes nothing: rollouts have nodes of their own"
    if "pinned" in given and (apart or not form.offload):
        yield f"{KIND}.pinned changes nothing: no optimizer states go to the host"
    if "sleep" in form.rollout.model_fields_set and apart:
        yield f"{KIND}.rollout.sleep changes nothing: rollouts have nodes of their own"
    if "executor" in form.rollout.model_fields_set and form.rollout.tensor == 1:
        yield f"{KIND}.rollout.executor changes nothing: a rank schedules for itself"
    if "log_prob_batch" in given and not (form.kl or form.old_log_probs):
        yield f"{KIND}.log_prob_batch changes nothing: nobody asks for log-probabilities"
    if "in_flight" in form.sync.model_fields_set and not (apart and form.stale):
        yield f"{KIND}.sync.in_flight changes nothing: no answer is under way when weights change"
    if "method" in form.sync.model_fields_set and form.sync.takes is not None:
        yield f"{KIND}.sync.method changes nothing: rl.sync.takes says how long it takes"
    if "workers" in form.reward.model_fields_set and not form.reward.takes:
        yield f"{KIND}.reward.workers changes nothing: a reward takes no time"
