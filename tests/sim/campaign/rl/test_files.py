"""Files of reinforcement learning: what is refused, and what changes nothing."""

from pathlib import Path

import pytest

from hwmodels.document import Document, DocumentError
from sim.campaign.rl import rows
from sim.campaign.rl.files import resolved
from sim.campaign.rl.page import PAGE
from sim.experiments import kinds
from sim.experiments.kinds import load
from sim.scenario import SCENARIOS

V3 = str(SCENARIOS / "rl_v3_256gpu.yaml")

WRONG = [
    ("rl.stale=1", "rl.stale", "found 1, but rollouts and updates take turns on the same GPUs; legal: 0, or nodes"),
    ("rl.groups=0", "rl.groups", "expected a whole number, 1 or more; found 0"),
    ("rl.updates=3", "rl.updates", "512 answers do not share 3 updates evenly; legal: divisors of 512"),
    ("rl.samples=1", "rl.samples", "one answer is as good as the mean of its group"),
    ("rl.most=1500", "batch.sequence_length", "has 1536 tokens, too few for prompt and answer of 1610 tokens"),
    (
        "rl.response={kind: fixed, length: 2000, median: null, sigma: null}",
        "rl.most",
        "cuts all answers of 2000 tokens",
    ),
    ("rl.response.sigma=null", "rl.response.sigma", "missing; lognormal lengths need it"),
    ("rl.rollout.tensor=8", "rl.rollout", "weights take 169.6 GB of the 51.2 GB that a GPU has for them"),
    ("rl.rollout.precision=int4", "rl.rollout.precision", "found 'int4'; legal: fp8, bf16"),
    ("rl.rollout.nodes=3", "rl.rollout", "instances of 32 GPUs do not share 24 evenly; legal: divisors of 24"),
    ("rl.rollout.node=h100x8", "rl.rollout.node", "says what nodes are of which there are none"),
    ("rl.sync.method=carry", "rl.sync.method", "found 'carry'; legal: gather, reshard"),
    ("rl.grops=3", "rl.grops", "did you mean 'groups'"),
    ("parallel.expert=7", "parallel.expert", "model.experts 256 cannot be divided by parallel.expert 7"),
]


@pytest.mark.parametrize(("word", "key", "line"), WRONG, ids=[word for word, *_ in WRONG])
def test_impossible_plans_are_told_in_a_line(word: str, key: str, line: str) -> None:
    with pytest.raises(DocumentError) as error:
        load(V3, [word])
    (problem,) = error.value.problems
    assert problem.key == key and line in problem.message and "\n" not in str(problem)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(DocumentError) as error:
        load(V3, ["rl.updates=3", "rl.samples=1"])
    assert {each.key for each in error.value.problems} >= {"rl.updates", "rl.samples"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["batch.sequences=512"], "batch.sequences changes nothing"),
        (["rl.kl=0", "rl.reference=host"], "rl.reference changes nothing: without a KL term"),
        (["rl.sync.takes=3 s"], "rl.sync.method changes nothing"),
        (["rl.sync.in_flight=false"], "rl.sync.in_flight changes nothing"),
        (["outputs=[result, trace, links]"], "outputs: trace, links change nothing: a step of reinforcement"),
        (["rl.reward.workers=4"], "rl.reward.workers changes nothing"),
        (["rl.rollout.nodes=32", "rl.offload=true"], "rl.offload changes nothing"),
        (["rl.rollout.nodes=32", "rl.stale=1"], "rl.pinned changes nothing"),
        (["rl.offload=false"], "rl.pinned changes nothing"),
        (["rl.rollout.nodes=32"], "rl.rollout.sleep changes nothing"),
        (["rl.log_prob_batch=2", "rl.kl=0", "rl.old_log_probs=false"], "rl.log_prob_batch changes nothing: nobody"),
        (["rl.log_prob_batch=1", "batch.micro_batch=2"], "rl.log_prob_batch changes nothing: batch.micro_batch is 2"),
    ],
)
def test_keys_that_change_nothing_say_so(words: list[str], line: str) -> None:
    assert any(each.startswith(line) for each in load(V3, words).unfelt)


def test_the_document_as_it_was_changed_gives_the_same_again() -> None:
    own = load(V3, ["rl.groups=16"])
    again = resolved(Document(own.resolved), (), Path(V3))
    assert own.unfelt == () and again.scenario_hash == own.scenario_hash != load(V3).scenario_hash


def test_kinds_know_it() -> None:
    assert kinds.kind(V3) == kinds.RL and kinds.kind(str(SCENARIOS / "v3_2048gpu.yaml")) == ""
    with pytest.raises(DocumentError, match="is reinforcement learning, not a training step"):
        from sim.scenario import load as step

        step(V3)


def test_every_published_row_is_a_scenario_and_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for row in rows.content()["rows"]:
        assert f"| {row['id']} |" in text
        assert rows.learning(row).answers.count in (512, 2048)


def test_a_shipped_scenario_is_the_row_of_its_publication() -> None:
    """The same answer, whichever of both is asked."""
    for file, number in ((V3, 0), (str(SCENARIOS / "rl_v3_512gpu_one_off.yaml"), 2)):
        shipped, row = load(file), rows.learning(rows.content()["rows"][number])
        assert shipped.serve.scenario_hash == row.serve.scenario_hash
        assert (shipped.scenario.scenario_hash, shipped.answers) == (row.scenario.scenario_hash, row.answers)


def test_a_published_step_stands_beside_the_step_that_it_is_of() -> None:
    for word in ("seed=3", "rl.steps=1", "outputs=[result]", "rl.published.step=100 s"):
        own = load(V3, [word])
        assert own.published is not None and "published" in own.resolved["rl"]
    for word in ("rl.groups=64", "cluster.nodes=64"):
        own = load(V3, [word])
        assert own.published is None and "published" not in own.resolved["rl"]
