"""From a scenario document to a Scenario: names replaced by what they stand for, values validated and checked."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from hwmodels.document import Document, DocumentError, KeyPath, Place, Problem
from hwmodels.fabric import Fabric
from hwmodels.node import Node
from sim.models import hugging_face
from sim.models.family import family
from sim.models.family import form as form_of
from sim.models.form import Form
from sim.models.mixture import Mixture
from sim.models.precision import States
from sim.models.recompute import MODULES, RECIPE, Recompute
from sim.models.shape import ModelShape
from sim.models.stacks.stack import DEEPSEEK
from sim.scenario import asked, lengths, machines, messages
from sim.scenario import model as models
from sim.scenario.checks import check
from sim.scenario.form import FaultForm, ScenarioForm
from sim.scenario.histogram import Histogram, histogram
from sim.scenario.mistakes import problems
from sim.scenario.overrides import apply
from sim.scenario.stages import Layout, Spread
from sim.scenario.traced import KEY, tables
from sim.scenario.values import (
    FOREVER,
    PROFILE_SPREAD,
    Batch,
    ChunkTimes,
    Cluster,
    Comm,
    Fault,
    Lengths,
    Limits,
    Optimizer,
    Overlap,
    Parallel,
    Routing,
    Scenario,
    Schedule,
    Source,
)
from sim.schedules.program import chunked

HARDWARE: tuple[KeyPath, ...] = (("cluster", "node"), ("cluster", "fabric"))

HASH_BYTES = 16

F = TypeVar("F", bound=Form)


def resolve(document: Document, overrides: Sequence[str], path: Path | None) -> Scenario:
    """The scenario that a document, changed by overrides, describes. Raises DocumentError with all problems.

    path: of the scenario file, or None; `models/` beside it may hold models, its stem is the default name.
    """
    scenario, odds, changed = described(document, overrides, path)
    if wrong := [*odds, *check(scenario, changed)]:
        raise DocumentError(wrong)
    return scenario


def described(
    document: Document, overrides: Sequence[str], path: Path | None
) -> tuple[Scenario, list[Problem], Document]:
    """The same, whose parts are right in themselves and may not go together; words of it that say opposite things; and
    the document with its overrides. Raises DocumentError."""
    _others(document)
    if not isinstance(document.content, Mapping):
        value = "a list" if isinstance(document.content, list) else repr(document.content)
        what = "nothing is written" if document.content is None else f"found {value}"
        raise DocumentError([Problem(document.place(()), "", f"expected keys and values, e.g. schedule: zb1p; {what}")])
    source = Source(document, tuple(overrides), path)
    document, unread = apply(document, overrides)
    form, mistaken = validated(ScenarioForm, document)
    parts, unnamed = _parts(document, path)
    if form is None or unread or unnamed:
        raise DocumentError([*unread, *mistaken, *unnamed])
    scenario, odds = _built(form, parts, path).overridden(*overrides), [*messages.odds(form, document)]
    named = (*asked.of_scenario(form), *parts.asked, *asked.of_overrides(overrides))
    return replace(scenario, asked=tuple(dict.fromkeys(named)), source=source), odds, document


STUDY = "scenario"
"""A key of every sweep (see sim.experiments.sweep) and of no scenario."""


def _others(document: Document) -> None:
    """Raise DocumentError with one line where a document is of a kind that we know, and no scenario."""
    content = document.content if isinstance(document.content, Mapping) else {}
    line = ""
    if "campaign" in content:
        line = "is a campaign, not a training step; run it with: python -m sim FILE"
    elif "rl" in content:
        line = "is reinforcement learning, not a training step; run it with: python -m sim FILE"
    elif "serve" in content:
        line = "is a served load, not a training step; run it with: python -m sim FILE"
    elif STUDY in content and not {"model", "chunk_times"} & content.keys():
        line = "is a sweep, not a scenario; run it with: python -m sim sweep FILE"
    elif not {"model", "chunk_times", "cluster"} & content.keys() and (name := hugging_face.name(content)):
        file = Path(document.place(()).file).name
        line = f"is a Hugging Face config.json of {name}, not a scenario; write model: {file} in a scenario beside it"
    if line:
        raise DocumentError([Problem(Place(document.place(()).file), "", line)])


def validated(form: type[F], document: Document) -> tuple[F | None, list[Problem]]:
    """The validated form of a document, or the problems of its keys and types."""
    try:
        return form.model_validate(_pruned(document.content, ())), []
    except ValidationError as error:
        return None, problems(form, error, document)


def _pruned(content: Any, path: KeyPath) -> Any:
    """`content` without keys whose value is null: null means "as if it were not written"."""
    if isinstance(content, list):
        return [_pruned(value, (*path, index)) for index, value in enumerate(content)]
    if not isinstance(content, Mapping) or path in HARDWARE:
        return content
    return {key: _pruned(value, (*path, key)) for key, value in content.items() if value is not None}


@dataclass(frozen=True)
class Parts:
    """What a scenario's names stand for; lengths: recorded ones; plain: the same as plain values that need no files.
    asked: keys of the model that somebody asks about."""

    node: Node | None = None
    fabric: Fabric | None = None
    model: ModelShape | None = None
    histogram: Histogram | None = None
    lengths: tuple[tuple[int, int], ...] | None = None
    tables: str = ""
    asked: tuple[str, ...] = ()
    plain: Mapping[str, Any] = field(default_factory=dict)


def _parts(document: Document, path: Path | None) -> tuple[Parts, list[Problem]]:
    """The machine, the model and the histograms that the scenario names, and what is wrong with them."""
    parts: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    problems: list[Problem] = []

    def counted(part: Document, key: KeyPath, path: Path | None) -> tuple[Histogram, Any]:
        model = parts.get("model")
        return _histogram(part, key, path, family(model.family).mixture(model) if model else None)

    def modelled(part: Document, key: KeyPath, path: Path | None) -> tuple[ModelShape, Any]:
        file = models.shipped(part, path)
        read = _modelled(machines.said(part, key), file) if file else _read(part, key, path)
        shape, values, parts["asked"] = read
        return shape, values

    readers = (
        ("node", HARDWARE[0], machines.node), ("fabric", HARDWARE[1], machines.fabric), ("model", ("model",), modelled),
        ("histogram", ("routing", "histogram"), counted), ("lengths", lengths.place(document), _lengths),
        ("tables", (KEY,), tables),
    )  # fmt: skip
    for name, key, part_of in readers:
        part = document.at(*key)
        if part.content is None:
            continue
        try:
            parts[name], plain[name] = part_of(part, key, path)
        except DocumentError as error:
            problems.extend(error.problems)
    return Parts(**parts, plain=plain), problems


def _read(part: Document, key: KeyPath, path: Path | None) -> tuple[ModelShape, Any, tuple[str, ...]]:
    """A model, the same as plain values, and its keys that somebody asks about."""
    whole = models.document(part, key, path)
    shape, values = models.shape(whole, key)
    return shape, values, tuple(asked.of_model(whole, part, form_of(shape.family)))


@lru_cache(maxsize=machines.KEPT)
def _modelled(said: machines.Said, file: tuple[str, int]) -> tuple[ModelShape, Any, tuple[str, ...]]:
    return _read(said.part, said.key, None)


def _histogram(part: Document, key: KeyPath, path: Path | None, mixture: Mixture | None) -> tuple[Histogram, Any]:
    """The histogram in a file, whose name is relative to the scenario's folder, or written out."""
    rows = histogram(part, key, path.parent if path else Path(), mixture)
    return rows, [list(row) for row in rows]


def _lengths(part: Document, key: KeyPath, path: Path | None) -> tuple[tuple[tuple[int, int], ...], Any]:
    rows = lengths.recorded(part, key, path.parent if path else Path())
    return rows, [list(row) for row in rows]


def _built(form: ScenarioForm, parts: Parts, path: Path | None) -> Scenario:
    """The scenario of a form that is right in itself, with its resolved values and hash."""
    name, cluster = form.name or (path.stem if path else "scenario"), _cluster(form, parts)
    batch = _batch(form, cluster, parts)
    plain = _plain(form, parts, name, batch)
    return Scenario(
        name=name,
        cluster=cluster,
        model=parts.model,
        precision=form.precision,
        parallel=_parallel(form),
        schedule=_schedule(form),
        placement=form.placement,
        batch=batch,
        routing=_routing(form, parts),
        comm=Comm(**{**form.comm.model_dump(), "messages": messages.word(form)}),
        overlap=Overlap(**form.overlap.model_dump(exclude={"pipeline"})),
        optimizer=Optimizer(**form.optimizer.model_dump()),
        recompute=_recompute(form),
        stack=form.stack.value,
        states=States(**form.states.model_dump()),
        offload=form.offload,
        detail=form.detail,
        fold=form.fold,
        seed=form.seed,
        pricing=form.pricing,
        tables=parts.tables,
        chunk_times=_chunk_times(form),
        outputs=form.outputs,
        limits=Limits(form.limits.step_time, form.limits.memory),
        faults=_faults(form),
        jitter=form.jitter,
        scenario_hash=_hash(plain),
        resolved=plain,
    )


def _parallel(form: ScenarioForm) -> Parallel:
    """The layout; tensor groups share tokens too, unless it says that they do not."""
    given = form.parallel
    shared = given.tensor > 1 if given.sequence is None else given.sequence
    return Parallel(**{**given.model_dump(), "sequence": shared})


def _schedule(form: ScenarioForm) -> Schedule:
    """The schedule; one that is left out is 1F1B where there is no pipeline, else it has no name."""
    if form.schedule is None:
        return Schedule("1f1b" if form.parallel.pipeline == 1 else "")
    return Schedule(
        form.schedule.name, form.schedule.chunks or Schedule.chunks, form.schedule.waiting, form.schedule.group
    )


def _cluster(form: ScenarioForm, parts: Parts) -> Cluster | None:
    """The cluster; a placement alone asks for routing too, adaptive unless said, and so do leaves with fewer links up
    than down, which nothing else would feel."""
    given = form.cluster
    if not given or not parts.node:
        return None
    blocks = parts.fabric is not None and parts.fabric.blocking
    routing = given.routing or ("adaptive" if given.placement or blocks else None)
    return Cluster(parts.node, given.nodes, parts.fabric, given.placement or "packed", routing)


def _routing(form: ScenarioForm, parts: Parts) -> Routing:
    """The routing, with the profile's spread where sampled routing gives none."""
    given, spread = form.routing, form.routing.spread
    if given.kind == "sampled" and spread is None:
        spread = PROFILE_SPREAD
    return Routing(given.kind, spread, given.max_vio, parts.histogram, given.redundant_experts)


def _recompute(form: ScenarioForm) -> Recompute:
    """The choice; `sim.scenario.checks` says which keys go together."""
    given = form.recompute
    kind = given.kind or ("layers" if given.layers else "recipe" if given.modules is None else "modules")
    modules = tuple(name for name in MODULES if name in (given.modules or ()))
    return Recompute(kind, modules, given.layers or 0, given.method or Recompute.method)


def _faults(form: ScenarioForm) -> tuple[Fault, ...]:
    return tuple(
        Fault(
            f.kind, f.at, f.slower, f.start, FOREVER if f.end is None else f.end, f.every or 0, f.lasts or 0,
            f.time_constant or 0,
        )
        for f in form.faults
    )  # fmt: skip


def _batch(form: ScenarioForm, cluster: Cluster | None, parts: Parts) -> Batch:
    """The batch, with sequences worked out from micro-batches where a model's scenario gives only those."""
    own: dict[str, Any] = {**form.batch.model_dump(), "packed": form.batch.packed is not False}
    if form.batch.lengths:
        own["lengths"] = Lengths(**{**own["lengths"], "histogram": parts.lengths})
    batch = Batch(**own)
    if cluster is None or batch.sequences or not batch.micro_batches:
        return batch
    pipelines = cluster.gpus // _parallel(form).model
    return replace(batch, sequences=batch.micro_batches * batch.micro_batch * pipelines)


def _chunk_times(form: ScenarioForm) -> ChunkTimes | None:
    times = form.chunk_times
    if times is None:
        return None
    together = times.forward + times.backward_input + times.weight
    overlapped = together if times.overlapped is None else times.overlapped
    return ChunkTimes(times.forward, times.backward_input, times.weight, overlapped, times.p2p)


def _plain(form: ScenarioForm, parts: Parts, name: str, batch: Batch) -> dict[str, Any]:
    """Everything as resolved, in the YAML form: without names of documents, with all defaults."""
    plain: dict[str, Any] = {"name": name, **form.model_dump(by_alias=True, exclude_none=True, exclude={"name"})}
    for part, key in (("node", "cluster"), ("fabric", "cluster")):
        if part in parts.plain:
            plain[key][part] = parts.plain[part]
    if form.cluster and isinstance(form.cluster.placement, tuple):
        plain["cluster"]["placement"] = list(form.cluster.placement)
    if parts.model:
        plain["model"] = dict(parts.plain["model"])
    if times := _chunk_times(form):
        plain["chunk_times"] = {key: f"{value} ns" for key, value in vars(times).items()}
    plain["routing"] = _plain_routing(form, parts)
    if parts.tables:
        plain[KEY] = parts.plain[KEY]
    plain["schedule"] = _plain_schedule(form)
    plain["comm"]["messages"] = messages.word(form)
    plain["overlap"].pop("pipeline", None)
    if batch.sequences:
        plain["batch"]["sequences"] = batch.sequences
    if parts.lengths:
        plain["batch"]["lengths"]["histogram"] = parts.plain["lengths"]
    units = {"step_time": "s", "memory": "B"}
    plain["limits"] = {key: f"{value!r} {units[key]}" for key, value in plain["limits"].items()}
    plain["outputs"] = list(form.outputs)
    plain["faults"] = [_plain_fault(f) for f in form.faults]
    plain["recompute"] = _recompute(form).plain
    plain["placement"] = _plain_placement(form.placement)
    _without_later(plain, form)
    return plain


def _without_later(plain: dict[str, Any], form: ScenarioForm) -> None:
    """Take out keys that came later where they say nothing: what was resolved before keeps its hash."""
    said = {
        "recompute": plain["recompute"] != RECIPE.plain, "stack": form.stack.value != DEEPSEEK,
        **{key: bool(plain[key]) for key in ("faults", "jitter", "offload", "overlap", "states")},
    }  # fmt: skip
    for key in (key for key, something in said.items() if not something):
        del plain[key]
    if form.comm.collectives == Comm.collectives:
        del plain["comm"]["collectives"]
    if form.overlap.buckets is not None:
        plain["overlap"]["buckets"] = f"{form.overlap.buckets} B"
    for key in ("sequence", "context", "context_kind", "expert_tensor", "order", "shard", "reshard", "no_sync"):
        if plain["parallel"].get(key) == getattr(Parallel, key):
            plain["parallel"].pop(key, None)
    for key in ("name", "offload", "unseen"):
        if plain["optimizer"][key] == getattr(Optimizer, key):
            del plain["optimizer"][key]


def _plain_schedule(form: ScenarioForm) -> dict[str, Any]:
    schedule = _schedule(form)
    plain: dict[str, Any] = {"name": schedule.name}
    if chunked(schedule.name, form.parallel.pipeline):
        plain["chunks"] = schedule.chunks
    further = {"waiting": schedule.waiting, "group": schedule.group}
    return plain | {key: value for key, value in further.items() if value is not None}


def _plain_placement(placement: str | tuple[int, ...] | Layout | Spread) -> Any:
    """Layouts in full, whichever way they were written."""
    if isinstance(placement, Spread):
        return placement.plain
    return list(placement) if isinstance(placement, tuple) else str(placement)


def _plain_fault(fault: FaultForm) -> dict[str, Any]:
    plain: dict[str, Any] = {"kind": fault.kind, "at": fault.at, "slower": fault.slower, "start": f"{fault.start} ns"}
    times = {key: getattr(fault, key) for key in ("end", "every", "lasts", "time_constant")}
    return plain | {key: f"{ns} ns" for key, ns in times.items() if ns is not None}


def _plain_routing(form: ScenarioForm, parts: Parts) -> dict[str, Any]:
    """What is said of the routing beside its kind, the histogram written out."""
    routing = {key: value for key, value in vars(_routing(form, parts)).items() if value is not None}
    if not routing["redundant_experts"]:
        del routing["redundant_experts"]
    return routing | ({"histogram": parts.plain["histogram"]} if parts.histogram else {})


def _hash(plain: Mapping[str, Any]) -> str:
    """BLAKE2b of the canonical JSON of what decides the answer."""
    content = {key: value for key, value in plain.items() if key not in ("name", "outputs")}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).hexdigest()
