"""A campaign's file: all mistakes at once, with line, key and nearest word."""

from pathlib import Path

import pytest

from hwmodels.document import DocumentError
from hwmodels.refused import Refused
from sim.campaign.resolve import resolved
from sim.experiments.kinds import load
from sim.scenario import SCENARIOS
from tests.sim.campaign.plans import PLAN, small

FILE = SCENARIOS / "campaign_v3.yaml"


def wrong(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    text = FILE.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(DocumentError) as refused:
        load(tmp_path / "c.yaml")
    return str(refused.value).replace(str(tmp_path), "").splitlines()


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    lines = wrong(
        tmp_path, ("spares: 8", "spares: -1"), ("evaluation:", "evalution:"), ("gpu_hour: 2 USD", "gpu_hour: 2"),
        ("schedule: dualpipe\n", "schedle: dualpipe\n"),
    )  # fmt: skip
    text = "\n".join(lines)
    assert len(lines) == 4
    assert "campaign.spares: expected a whole number, 0 or more; found -1" in text
    assert "unknown key 'evalution', did you mean 'evaluation'?" in text
    assert "/c.yaml:8:1: schedle: unknown key 'schedle', did you mean 'schedule'?" in text
    assert "prices.gpu_hour: number 2 needs a unit" in text


def test_what_is_wrong_with_some_phases_names_them_and_with_all_is_said_once(tmp_path: Path) -> None:
    (one,) = wrong(tmp_path, ("batch: 1920", "batch: 1921"))
    assert "batch.sequences: phase 'context of 32 K': batch.sequences 1921 is not a multiple" in one
    (every,) = wrong(tmp_path, ("fabric: mpft", "fabric: mpfd"))
    assert "phase" not in every and "did you mean 'mpft'?" in every


@pytest.mark.parametrize(("old", "new", "line"), [
    ("batch: {from: 3072, to: 4096}", "batch: {from: 3072, to: 4097}", "batch: grows from 3072 to 4097 by 128"),
    ("batch: {from: 3072, to: 4096}", "batch: {from: 4096, to: 3072}", "batch: shrinks from 4096 to 3072"),
    ("steps: 1000\n      batch: 1920", "batch: 1920", "found no length; legal: one of tokens, steps, samples"),
    ("kind: asynchronous", "kind: memory", "kind memory needs stored_every"),
    ("kind: asynchronous", "kind: asynchron", "did you mean 'asynchronous'?"),
    ("every: 30 min", "every: 30", "or the word optimum"),
    ("spread: 1.0", "shape: 0.7", "the law exponential has no shape"),
    ("timeout: 10 min", "timeout: 0", "of hangs is longer than detect"),
    ("batch: 1920", "batch: 1921", "batch.sequences 1921 is not a multiple of data parallel 16"),
    ("step: {schedule: 1f1b}", "step: {schedule: dualpipe}", "cannot run; legal: even numbers from 32 on"),
    ("step: {schedule: 1f1b}", "step: {schedule: 1f1b, cluster: {nodes: 8}}", "is the same for all phases"),
    ("  power: {busy: 700 W}", "  power: {}", "nobody says what a H800 SXM draws"),
    ("{name: low,", "{name: decay,", "campaign.phases[4].name: decay stands there twice"),
])  # fmt: skip
def test_mistakes(tmp_path: Path, old: str, new: str, line: str) -> None:
    first, *_ = lines = wrong(tmp_path, (old, new))
    assert line in first and all(each.startswith("/c.yaml:") for each in lines)


def test_what_is_missing_is_named_by_what_it_has(tmp_path: Path) -> None:
    text = FILE.read_text(encoding="utf-8")
    (tmp_path / "c.yaml").write_text(text[: text.index("campaign:")] + "campaign: {}\n")
    with pytest.raises(DocumentError) as refused:
        load(tmp_path / "c.yaml")
    phases, checkpoint = str(refused.value).splitlines()
    assert "campaign.phases: missing; expected a list of mappings with name, tokens, steps, " in phases
    assert "campaign.checkpoint: missing; expected a mapping with kind, every, " in checkpoint


def test_a_campaign_has_a_phase() -> None:
    with pytest.raises(DocumentError, match=r"campaign.phases=\[\]: expected an item or more; found \[\]"):
        load(FILE, ["campaign.phases=[]"])


def test_overrides_reach_steps_and_campaign() -> None:
    changed = load(FILE, ["campaign.spares=3", "comm.sms=12", "campaign.phases.0.step.schedule=zb1p", "seed=7"])
    assert changed.spares == 3 and changed.seed == 7
    assert {phase.scenario.comm.sms for phase in changed.phases} == {12}
    assert changed.phases[0].scenario.schedule.name == "zb1p"
    assert changed.title.endswith("comm.sms=12 campaign.phases.0.step.schedule=zb1p seed=7")


def test_hash_is_of_what_decides() -> None:
    same = load(FILE, ["name=other", "campaign.phases.0.learning_rate=1e-3"]).scenario_hash
    assert same == load(FILE).scenario_hash
    others = [
        ["campaign.spares=7"],
        ["comm.sms=12"],
        ["seed=1"],
        ["campaign.phases.2.tokens=9e12"],
        ["prices.gpu_hour=3 USD"],
    ]
    assert len({load(FILE, words).scenario_hash for words in others} | {same}) == len(others) + 1


def test_resolved_gives_the_same_again() -> None:
    from hwmodels.document import Document

    first = load(FILE, ["campaign.spares=3", "campaign.phases.0.step.schedule=zb1p"])
    again = resolved(Document(first.resolved), (), FILE)
    assert again.scenario_hash == first.scenario_hash


def test_chunk_times_are_no_campaign() -> None:
    from hwmodels.document import Document

    times = {"forward": "18 ms", "backward_input": "18 ms", "weight": "9 ms"}
    step = {"schedule": "zb1p", "parallel": {"pipeline": 8}, "chunk_times": times}
    with pytest.raises(Refused):
        resolved(Document({**step, "campaign": PLAN["campaign"]}), (), None)


def test_samples_are_tokens() -> None:
    assert small(1).phases[0].tokens is None
    phase = load(
        FILE, ['campaign.phases=[{"name":"sft","samples":1500000,"batch":15360}]', "campaign.published=[]"]
    ).phases[0]
    assert phase.tokens == 1_500_000 * 4096


@pytest.mark.parametrize(("word", "line"), [
    ("campaign.checkpoint.replicas=3", "campaign.checkpoint.replicas changes nothing: kind asynchronous keeps nothing"),
    ("campaign.restart.hangs=0", "campaign.restart.timeout changes nothing: restart.hangs says that nothing hangs"),
    ("campaign.failures=null", "campaign.restart.replace changes nothing: no node ever has to be replaced"),
    ("outputs=[report, events]", "outputs: events changes nothing: a campaign has result and report alone"),
    ("batch.sequences=7", "batch.sequences changes nothing: each phase has its own batch"),
])  # fmt: skip
def test_keys_that_change_nothing_say_so(word: str, line: str) -> None:
    assert load(FILE).unfelt == ()
    assert any(each.startswith(line) for each in load(FILE, [word]).unfelt)
