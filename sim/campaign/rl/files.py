"""From a document with `rl:` to a Learning: keys of a scenario say what an update is, those of serving what answers;
all mistakes at once."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwmodels.document import Document, DocumentError, KeyPath, Place, Problem, dotted
from hwmodels.units import seconds_to_ns
from sim.campaign.rl.checks import check, unfelt
from sim.campaign.rl.form import LearningForm, RlForm
from sim.campaign.rl.hosts import ray_s
from sim.campaign.rl.values import KIND, RAY, Answers, Learning, Published, Reward, Sync
from sim.campaign.unfelt import of_outputs
from sim.scenario import lengths
from sim.scenario.form import ScenarioForm
from sim.scenario.overrides import apply, merged
from sim.scenario.resolve import HASH_BYTES, resolve, validated
from sim.scenario.shelves import whole
from sim.scenario.values import Lengths, Scenario
from sim.serving import files as serving
from sim.serving.values import TRACE, Serve

FROM_SERVING = {
    "serve.pools.0": f"{KIND}.rollout", "serve.cache": f"{KIND}.rollout", "serve.node": f"{KIND}.rollout.node",
    "serve.fabric": "cluster.fabric", "serve.model": "model", "serve.precision": f"{KIND}.rollout.precision",
}  # fmt: skip
"""Keys of serving, and where reinforcement learning says the same."""
BESIDE = {"name", "outputs", "seed", "steps", "published"}
"""Words of keys that leave a step what it is, but for chance and how often it is run."""
ROOM = 2
"""Micro-batches a position of the pipeline, of the update that a document is first read with: every schedule runs."""


def resolved(document: Document, overrides: Sequence[str], path: Path | None) -> Learning:
    """What a document describes. Raises DocumentError with all that is wrong."""
    document, unread = apply(document, overrides)
    own = Document(
        {KIND: document.value(KIND)},
        {place: at for place, at in document.places.items() if not place or place[0] == KIND},
    )
    form, mistaken = validated(LearningForm, own)
    step = merged(document.without(KIND), Document({"outputs": ["result"]}, {(): document.place(())}))
    if form is None or unread:
        _, further = validated(ScenarioForm, step)
        raise DocumentError([*unread, *mistaken, *further])
    scenario = _update(step, path)
    response, wrong = _lengths(document, form.rl, path)
    wrong += check(form.rl, response, scenario, document)
    if wrong:
        raise DocumentError(wrong)
    serve = _serve(document, form.rl, scenario, path)
    made = _built(form.rl, scenario, serve, response, document, overrides)
    return replace(made, resolved=whole(made.resolved, path.parent)) if path else made


def _update(step: Document, path: Path | None) -> Scenario:
    """The scenario of an update, of a batch that any schedule can run; its batch follows from answers later."""
    place = step.place(("cluster",))
    first = {"sequences": ROOM, "micro_batches": None}
    given = Document({"micro_batches": ROOM * _pipeline(step), "sequences": None}, {(): place}).under("batch")
    scenario = resolve(merged(step, given), (), path)
    count = ROOM * scenario.parallel.pipeline * scenario.data_parallel * scenario.batch.micro_batch
    return resolve(merged(step, Document(first | {"sequences": count}, {(): place}).under("batch")), (), path)


def _pipeline(step: Document) -> int:
    stages = step.value("parallel", "pipeline")
    return stages if isinstance(stages, int) and not isinstance(stages, bool) and stages > 0 else 1


def _lengths(document: Document, form: RlForm, path: Path | None) -> tuple[Lengths, list[Problem]]:
    """How long answers are, with what is wrong with that."""
    key, given = (KIND, "response"), form.response
    own = Lengths(given.kind, given.length, given.low, given.high, given.median, given.sigma)
    if given.kind == "recorded" and given.histogram is not None:
        try:
            part = document.at(*key, "histogram")
            rows = lengths.recorded(part, (*key, "histogram"), path.parent if path else Path())
        except DocumentError as error:
            return own, list(error.problems)
        own = replace(own, histogram=rows)
    elif given.histogram is not None:
        own = replace(own, histogram=())  # of another kind, which is told
    wrong = [Problem(document.place((*key, name)), dotted((*key, name)), text) for name, text in lengths.mistakes(own)]
    return own, wrong


def _serve(document: Document, form: RlForm, scenario: Scenario, path: Path | None) -> Serve:
    """The deployment that answers, in serving's words. Raises DocumentError in ours."""
    own, cluster = form.rollout, scenario.cluster
    assert cluster is not None
    node = ("cluster", "node") if own.node is None else (KIND, "rollout", "node")
    pool = {key: getattr(own, key) for key in ("tensor", "expert", "batch", "chunk")} | {"host": f"{own.host!r} s"}
    asked = {"arrivals": "closed", "clients": 1, "count": 1, "prompt": form.prompt, "output": form.most}
    serve: dict[str, Any] = {
        "model": document.value("model"), "node": document.value(*node), "fabric": document.value("cluster", "fabric"),
        "precision": own.precision, "pools": [pool], "cache": {"memory": own.memory}, "requests": asked,
    }  # fmt: skip
    places: dict[KeyPath, Place] = {(): document.place(()), ("serve",): document.place((KIND, "rollout"))}
    for key, source in (("model", ("model",)), ("node", node), ("fabric", ("cluster", "fabric"))):
        places |= {("serve", key, *at): place for at, place in document.at(*source).places.items()}
    places |= {("serve", "pools", 0, key): document.place((KIND, "rollout", key)) for key in pool}
    try:
        made = serving.resolve(Document({"serve": serve, "seed": scenario.seed}, places), (), path)
    except DocumentError as error:
        raise DocumentError([_renamed(problem) for problem in error.problems]) from None
    gpus = own.nodes * made.node.gpus if own.nodes else cluster.gpus
    pool_gpus = made.pools[0].gpus
    if gpus % pool_gpus:
        what = f"instances of {pool_gpus} GPUs do not share {gpus} evenly; legal: divisors of {gpus}"
        raise DocumentError([Problem(document.place((KIND, "rollout")), f"{KIND}.rollout", what)])
    host = made.pools[0].host
    if own.executor == RAY:
        host += seconds_to_ns(ray_s(own.tensor, made.node.gpus))
    pools = (made.pools[0]._replace(instances=gpus // pool_gpus, host=host),)
    requests = made.requests._replace(arrivals=TRACE, number=form.groups * form.samples)
    return replace(made, pools=pools, requests=requests, routing=replace(scenario.routing, redundant_experts=0))


def _renamed(problem: Problem) -> Problem:
    """A problem of serving under the key that says it here."""
    key = problem.key.replace("[0]", ".0")
    for theirs, ours in FROM_SERVING.items():
        if key == theirs or key.startswith(f"{theirs}."):
            return replace(problem, key=ours + key[len(theirs) :])
    return problem


def _built(
    form: RlForm, scenario: Scenario, serve: Serve, response: Lengths, document: Document, overrides: Sequence[str]
) -> Learning:
    content = {key: value for key, value in document.content.items() if value is not None}
    name, said = str(content.get("name") or "reinforcement learning"), form.published
    beside = said is not None and _as_written(overrides)
    return Learning(
        name=name, scenario=scenario, serve=serve, apart=form.rollout.nodes is not None,
        answers=Answers(form.groups, form.samples, form.prompt, response, form.most),
        kl=form.kl, reference=form.reference, old=form.old_log_probs, packed=form.packed, updates=form.updates,
        steps=form.steps, stale=form.stale, controller_s=form.controller, send=form.send,
        offload=form.offload and form.rollout.nodes is None, pinned=form.pinned,
        asleep=form.rollout.sleep == "keep" and form.rollout.nodes is None, log_prob_batch=form.log_prob_batch,
        reward=Reward(form.reward.takes, form.reward.workers),
        sync=Sync(form.sync.method, form.sync.takes, form.sync.in_flight),
        published=Published(said.step, said.source) if said and beside else None,
        seed=scenario.seed, outputs=tuple(content.get("outputs") or ScenarioForm.model_fields["outputs"].default),
        scenario_hash=_hash(form, scenario, serve, response), overrides=tuple(overrides),
        unfelt=tuple(_unfelt(form, document)), resolved=_plain(content, overrides, name, beside),
    )  # fmt: skip


def _unfelt(form: RlForm, document: Document) -> Iterator[str]:
    yield from unfelt(form)
    each = document.value("batch", "micro_batch") or 1
    if form.log_prob_batch < each and "log_prob_batch" in form.model_fields_set:
        yield f"{KIND}.log_prob_batch changes nothing: batch.micro_batch is {each} already"
    yield from of_outputs(document, "a step of reinforcement learning")
    for key in ("sequences", "micro_batches"):
        if document.value("batch", key) is not None:
            yield f"batch.{key} changes nothing: an update has the answers of {KIND}.groups and {KIND}.samples"


def _as_written(overrides: Sequence[str]) -> bool:
    """Whether overrides leave what decides a step as the file says, but for chance: only then a step that is published
    of it stands beside."""
    return all(set(override.partition("=")[0].split(".")) & BESIDE for override in overrides)


def _plain(content: Mapping[str, Any], overrides: Sequence[str], name: str, beside: bool) -> dict[str, Any]:
    """The document as it was changed: it gives the same answer again. beside: with the step that is published of it."""
    from sim.result.title import title

    own = {key: value for key, value in content[KIND].items() if beside or key != "published"}
    return {**content, KIND: own, "name": title(name, overrides)}


def _hash(form: RlForm, scenario: Scenario, serve: Serve, response: Lengths) -> str:
    """Digest of all that decides the answer."""
    own = form.model_dump(mode="json", exclude={"published": True, "response": True})
    content = [own, repr(response), scenario.scenario_hash, serve.scenario_hash]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).hexdigest()
