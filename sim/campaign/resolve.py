"""From a document with `campaign:` to a Campaign: the keys of a scenario say what a step is, each phase what of it
differs; all mistakes at once."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwmodels.document import Document, DocumentError, KeyPath, Place, Problem, dotted
from hwmodels.power import IDLE_W
from sim.campaign.checks import check, power, unlike
from sim.campaign.form import CampaignForm, PhaseForm, WholeForm
from sim.campaign.unfelt import unfelt
from sim.campaign.values import (
    Campaign,
    Checkpoints,
    Evaluation,
    Failures,
    Hidden,
    Nodes,
    Phase,
    Power,
    Published,
    Restart,
    Switches,
)
from sim.scenario.form import ScenarioForm
from sim.scenario.overrides import apply, merged
from sim.scenario.resolve import HASH_BYTES, resolve, validated
from sim.scenario.shelves import whole
from sim.scenario.values import Scenario

KEY = "campaign"
"""What tells a campaign from a scenario."""
OWN = (KEY, "prices")


def resolved(document: Document, overrides: Sequence[str], path: Path | None) -> Campaign:
    """The campaign that a document describes. Raises DocumentError with all that is wrong."""
    document, unread = apply(document, overrides)
    own = Document(
        {key: document.content[key] for key in OWN if key in document.content},
        {place: at for place, at in document.places.items() if not place or place[0] in OWN},
    )
    form, mistaken = validated(WholeForm, own)
    step = document.without("prices").without(KEY)
    if form is None or unread:
        _, further = validated(ScenarioForm, step)
        raise DocumentError([*unread, *mistaken, *(each for each in further if each.key != "batch")])
    wrong = list(check(form.campaign, document))
    phases, unfit = list[Phase](), dict[str, list[Problem]]()
    for number, phase in enumerate(form.campaign.phases):
        try:
            phases.append(_phase(document, step, number, phase, path))
        except DocumentError as error:
            unfit[phase.name] = list(error.problems)
    wrong.extend(_by_phase(unfit, len(form.campaign.phases)))
    if not wrong:
        wrong = [*unlike(phases, document), *power(form.campaign, phases[0].scenario, document)]
    if wrong:
        raise DocumentError(wrong)
    made = _built(form, tuple(phases), document, overrides)
    return replace(made, resolved=whole(made.resolved, path.parent)) if path else made


def _by_phase(unfit: Mapping[str, Sequence[Problem]], phases: int) -> Iterator[Problem]:
    """Problems by phase: what is wrong with the steps of all once, else with the phases' names."""
    names = dict[Problem, list[str]]()
    for name, problems in unfit.items():
        for problem in problems:
            names.setdefault(problem, []).append(name)
    for problem, each in names.items():
        where = f"phase {', '.join(map(repr, each))}: " if len(each) < phases and f"{KEY}." not in problem.key else ""
        yield replace(problem, message=f"{where}{problem.message}")


def _phase(document: Document, step: Document, number: int, form: PhaseForm, path: Path | None) -> Phase:
    """A phase with the scenario of its first step."""
    key: KeyPath = (KEY, "phases", number)
    differs = document.at(*key, "step")
    if isinstance(differs.content, Mapping):
        step = merged(step, differs)
    batch = {"sequences": form.batch.first}
    if form.sequence_length is not None:
        batch["sequence_length"] = form.sequence_length
    places: dict[KeyPath, Place] = {
        (name,): document.place((*key, "batch" if name == "sequences" else name)) for name in batch
    }
    step = merged(step, Document(batch, {(): document.place(key), **places}).under("batch"))
    step = merged(step, Document({"outputs": ["result"]}, {(): document.place(())}))
    scenario = resolve(step, (), path)
    length = scenario.batch.sequence_length
    tokens = form.samples * length if form.samples else form.tokens
    by = form.batch.by or _one_more(scenario)
    first, last = form.batch.first, form.batch.last
    if (last - first) % by:
        what = f"grows from {first} to {last} by {by}, which ends elsewhere; legal: divisors of {last - first}"
        raise DocumentError([Problem(document.place((*key, "batch")), dotted((*key, "batch")), what)])
    return Phase(form.name, scenario, length, first, last, by, tokens, form.steps, form.learning_rate)


def _one_more(scenario: Scenario) -> int:
    """Sequences that make a micro-batch more in each pipeline."""
    return scenario.data_parallel * scenario.batch.micro_batch


def _built(form: WholeForm, phases: tuple[Phase, ...], document: Document, overrides: Sequence[str]) -> Campaign:
    given, first = form.campaign, phases[0].scenario
    stored = given.checkpoint.stored_every or 0.0
    keys = ("kind", "every", "storage", "replicas")
    kind, every, storage, replicas = (getattr(given.checkpoint, key) for key in keys)
    restart = given.restart
    content = {key: value for key, value in document.content.items() if value is not None}
    name = str(content.get("name") or "campaign")
    return Campaign(
        name=name, phases=phases,
        checkpoint=Checkpoints(kind, every, storage, replicas, stored),
        failures=_failures(given),
        restart=Restart(restart.detect, restart.hangs, restart.timeout, restart.replace, restart.launch,
                        restart.connect, restart.warm_up),
        spares=given.spares,
        evaluation=Evaluation(given.evaluation.every, given.evaluation.takes) if given.evaluation else None,
        power=_power(given, first),
        gpu_hour_usd=form.prices.gpu_hour, deadline_s=given.deadline, seeds=given.seeds, seed=first.seed,
        outputs=tuple(content.get("outputs") or ScenarioForm.model_fields["outputs"].default),
        published=tuple(Published(row.what, row.gpu_hours, row.phases, row.source) for row in given.published),
        scenario_hash=_hash(form, phases), overrides=tuple(overrides),
        unfelt=tuple(unfelt(given, document)), resolved=_plain(content, overrides, name),
    )  # fmt: skip


def _failures(given: CampaignForm) -> Failures:
    nodes, switches, software = given.failures.nodes, given.failures.switches, given.failures.software
    return Failures(
        nodes=Nodes(
            nodes.mtbf, nodes.law, nodes.shape or 1.0, nodes.spread, nodes.lemons.share if nodes.lemons else 0.0,
            nodes.lemons.worse if nodes.lemons else 1.0, nodes.repair, nodes.bad_mtbf,
        ) if nodes else None,
        switches=Switches(switches.nodes, switches.mtbf, switches.repair) if switches else None,
        software_mtbf_s=software.mtbf if software else None,
        silent=Hidden(given.failures.silent.mtbf, given.failures.silent.detect) if given.failures.silent else None,
        stragglers=Hidden(each.mtbf, each.detect, each.slower) if (each := given.failures.stragglers) else None,
    )  # fmt: skip


def _power(given: CampaignForm, scenario: Scenario) -> Power:
    assert scenario.cluster is not None
    busy, idle = given.power.busy, given.power.idle
    limit = scenario.cluster.node.device.power_w or 0.0
    return Power(limit if busy is None else busy, IDLE_W if idle is None else idle, given.power.facility)


def _plain(content: Mapping[str, Any], overrides: Sequence[str], name: str) -> dict[str, Any]:
    """The document as it was changed: it gives the same campaign again."""
    from sim.result.title import title

    return {**content, "name": title(name, overrides)}


def _hash(form: WholeForm, phases: Sequence[Phase]) -> str:
    """Digest of all that decides the answer: the campaign's own keys, and the steps of its phases."""
    own = form.model_dump(mode="json", exclude={"campaign": {"phases", "published"}})
    labels = [replace(phase, scenario=None, learning_rate="") for phase in phases]  # type: ignore[arg-type]
    content = [own, [vars(each) for each in labels], [phase.scenario.scenario_hash for phase in phases]]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).hexdigest()
