"""What is wrong with a campaign whose keys are each right: keys that need each other, and plans that cannot be."""

from collections.abc import Iterator, Sequence

from hwmodels.document import Document, KeyPath, Problem, dotted, unknown
from sim.campaign.form import CampaignForm, NodesForm, PhaseForm
from sim.campaign.values import MEMORY, OPTIMUM, Phase
from sim.scenario.values import Scenario

KEY: KeyPath = ("campaign",)


def check(form: CampaignForm, document: Document) -> Iterator[Problem]:
    """Problems of the campaign's own keys."""

    def wrong(message: str, *key: str | int) -> Problem:
        return Problem(document.place((*KEY, *key)), dotted((*KEY, *key)), message)

    names = [phase.name for phase in form.phases]
    for number, phase in enumerate(form.phases):
        for key, message in _of_phase(phase):
            yield wrong(message, "phases", number, *key)
        if phase.name in names[:number]:
            yield wrong(f"{phase.name} stands there twice", "phases", number, "name")
    for key, message in (*_of_checkpoint(form), *_of_failures(form), *_of_published(form)):
        yield wrong(message, *key)


def _of_phase(phase: PhaseForm) -> Iterator[tuple[KeyPath, str]]:
    given = [key for key in ("tokens", "steps", "samples") if getattr(phase, key) is not None]
    if len(given) != 1:
        yield (), f"found {' and '.join(given) or 'no length'}; legal: one of tokens, steps, samples"
    if phase.batch.first > phase.batch.last:
        yield ("batch",), f"shrinks from {phase.batch.first} to {phase.batch.last}; legal: from at most to"
    if phase.batch.first != phase.batch.last and given == ["steps"]:
        yield ("steps",), "a batch grows over tokens; write tokens or samples instead"
    for key in ("cluster", "batch.sequences", "batch.sequence_length", "outputs"):
        if key in (phase.step or {}):
            yield ("step", key), "is the same for all phases, or a key of the phase itself"


def _of_checkpoint(form: CampaignForm) -> Iterator[tuple[KeyPath, str]]:
    given = form.checkpoint
    if not given.storage:
        yield ("checkpoint", "storage"), "nothing can be written at 0 B/s; legal: above 0"
    if given.kind == MEMORY and given.stored_every is None:
        yield ("checkpoint",), 'kind memory needs stored_every: the time between those on storage, e.g. "3 h"'
    if given.stored_every is not None and given.every != OPTIMUM and given.stored_every < given.every:
        yield ("checkpoint", "stored_every"), f"is shorter than every ({given.every:g} s); legal: at least that"


def _of_failures(form: CampaignForm) -> Iterator[tuple[KeyPath, str]]:
    if form.failures.nodes:
        yield from _of_nodes(form.failures.nodes)
    if form.restart.hangs and form.restart.timeout <= form.restart.detect:
        yield ("restart", "timeout"), "of hangs is longer than detect, or nothing hangs; e.g. 10 min"


def _of_published(form: CampaignForm) -> Iterator[tuple[KeyPath, str]]:
    names = [phase.name for phase in form.phases]
    for number, row in enumerate(form.published):
        for name in row.phases:
            if name not in names:
                yield ("published", number, "phases"), unknown(name, "phase", names)


def _of_nodes(nodes: NodesForm) -> Iterator[tuple[KeyPath, str]]:
    place = ("failures", "nodes")
    if nodes.law == "weibull" and nodes.shape is None:
        yield place, "law weibull needs a shape, e.g. 0.7: below 1 young nodes fail more often"
    if nodes.law != "weibull" and nodes.shape is not None:
        yield (*place, "shape"), f"the law {nodes.law} has no shape; write law: weibull"


def unlike(phases: Sequence[Phase], document: Document) -> Iterator[Problem]:
    """Phases on other nodes than the first's, and those that no step simulator can price."""
    for number, phase in enumerate(phases):
        key = (*KEY, "phases", number)
        if phase.scenario.cluster is None or phase.scenario.model is None:
            yield Problem(document.place(key), dotted(key), "a campaign needs cluster and model, not chunk_times")
        elif phase.scenario.cluster.nodes != (first := phases[0].scenario.cluster).nodes:  # type: ignore[union-attr]
            what = f"runs on {phase.scenario.cluster.nodes} nodes and the first phase on {first.nodes}; legal: the same"  # type: ignore[union-attr]
            yield Problem(document.place(key), dotted(key), what)


def power(form: CampaignForm, scenario: Scenario, document: Document) -> Iterator[Problem]:
    """A device whose limit nobody knows."""
    if form.power.busy is None and scenario.cluster and not scenario.cluster.node.device.power_w:
        what = f"nobody says what a {scenario.cluster.node.device.name} draws; write busy, e.g. 700 W"
        yield Problem(document.place((*KEY, "power")), dotted((*KEY, "power")), what)
    if form.checkpoint.kind == MEMORY and form.checkpoint.replicas > scenario.cluster.nodes:  # type: ignore[union-attr]
        key = (*KEY, "checkpoint", "replicas")
        what = f"found {form.checkpoint.replicas}; legal: up to the {scenario.cluster.nodes} nodes of the job"  # type: ignore[union-attr]
        yield Problem(document.place(key), dotted(key), what)
