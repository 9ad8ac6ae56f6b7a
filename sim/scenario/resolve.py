"""From a scenario document to a Scenario: names replaced by what they stand for, values validated and checked."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwmodels import fabric as fabrics
from hwmodels import node as nodes
from hwmodels.document import Document, DocumentError, KeyPath, Place, Problem, dotted, merge, read, unknown
from hwmodels.fabric import Fabric
from hwmodels.figure import resolved
from hwmodels.node import Node
from hwmodels.refused import Refused
from hwmodels.shelf import Shelf, expand
from sim.models import hugging_face
from sim.models.config import is_config, model_of
from sim.models.family import families, family, is_family
from sim.models.family import form as form_of
from sim.models.form import Form
from sim.models.mixture import Mixture
from sim.models.shape import ModelShape
from sim.scenario.checks import check
from sim.scenario.form import FaultForm, ScenarioForm, mistakes
from sim.scenario.histogram import Histogram, histogram
from sim.scenario.overrides import apply
from sim.scenario.shelves import MODELS
from sim.scenario.values import (
    FOREVER,
    PROFILE_SPREAD,
    Batch,
    ChunkTimes,
    Cluster,
    Comm,
    Fault,
    Limits,
    Optimizer,
    Parallel,
    Routing,
    Scenario,
    Schedule,
)
from sim.schedules.program import chunked

HARDWARE: tuple[KeyPath, ...] = (("cluster", "node"), ("cluster", "fabric"))

HASH_BYTES = 16


def resolve(document: Document, overrides: Sequence[str], path: Path | None) -> Scenario:
    """The scenario that a document, changed by overrides, describes. Raises DocumentError with all problems.

    path: of the scenario file, or None; `models/` beside it may hold models, its stem is the default name.
    """
    _others(document)
    if not isinstance(document.content, Mapping):
        value = "a list" if isinstance(document.content, list) else repr(document.content)
        what = "nothing is written" if document.content is None else f"found {value}"
        raise DocumentError([Problem(document.place(()), "", f"expected keys and values, e.g. schedule: zb1p; {what}")])
    document, unread = apply(document, overrides)
    form, mistaken = _form(document)
    parts, unnamed = _parts(document, path)
    if form is None or unread or unnamed:
        raise DocumentError([*unread, *mistaken, *unnamed])
    scenario = replace(_built(form, parts, path), overrides=tuple(overrides))
    if wrong := check(scenario, document):
        raise DocumentError(wrong)
    return scenario


STUDY = "scenario"
"""A key of every sweep (see sim.experiments.sweep) and of no scenario."""


def _others(document: Document) -> None:
    """Raise DocumentError with one line where a document is of a kind that we know, and no scenario."""
    content = document.content if isinstance(document.content, Mapping) else {}
    line = ""
    if STUDY in content and not {"model", "chunk_times"} & content.keys():
        line = "is a sweep, not a scenario; run it with: python -m sim sweep FILE"
    elif not {"model", "chunk_times", "cluster"} & content.keys() and (name := hugging_face.name(content)):
        file = Path(document.place(()).file).name
        line = f"is a Hugging Face config.json of {name}, not a scenario; write model: {file} in a scenario beside it"
    if line:
        raise DocumentError([Problem(Place(document.place(()).file), "", line)])


def _form(document: Document) -> tuple[ScenarioForm | None, list[Problem]]:
    """The validated form, or the problems of its keys and types."""
    try:
        return ScenarioForm.model_validate(_pruned(document.content, ())), []
    except ValidationError as error:
        return None, _problems(ScenarioForm, error, document)


def _problems(form: type[Form], error: ValidationError, document: Document, key: KeyPath = ()) -> list[Problem]:
    errors = mistakes(form, error)
    return [Problem(document.place(path), dotted((*key, *path)), message) for path, message in errors]


def _pruned(content: Any, path: KeyPath) -> Any:
    """`content` without keys whose value is null: null means "as if it were not written"."""
    if isinstance(content, list):
        return [_pruned(value, (*path, index)) for index, value in enumerate(content)]
    if not isinstance(content, Mapping) or path in HARDWARE:
        return content
    return {key: _pruned(value, (*path, key)) for key, value in content.items() if value is not None}


@dataclass(frozen=True)
class Parts:
    """What a scenario's names stand for; plain: the same as plain values that need no files."""

    node: Node | None = None
    fabric: Fabric | None = None
    model: ModelShape | None = None
    histogram: Histogram | None = None
    plain: Mapping[str, Any] = field(default_factory=dict)


def _parts(document: Document, path: Path | None) -> tuple[Parts, list[Problem]]:
    """The machine, the model and the histogram that the scenario names, and what is wrong with them."""
    parts: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    problems: list[Problem] = []

    def counted(part: Document, key: KeyPath, path: Path | None) -> tuple[Histogram, Any]:
        model = parts.get("model")
        return _histogram(part, key, path, family(model.family).mixture(model) if model else None)

    readers = (
        ("node", HARDWARE[0], _node), ("fabric", HARDWARE[1], _fabric), ("model", ("model",), _model),
        ("histogram", ("routing", "histogram"), counted),
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


def _node(part: Document, key: KeyPath, path: Path | None) -> tuple[Node, Any]:
    whole = nodes.expanded(part, key)
    node = nodes.build(whole, key)
    inner = {f"device.{name}": figure for name, figure in node.device.figures.items()}
    return node, resolved(whole.content, {**node.figures, **inner})


def _fabric(part: Document, key: KeyPath, path: Path | None) -> tuple[Fabric, Any]:
    whole = expand(part, fabrics.SHELF, key)
    fabric = fabrics.build(whole, key)
    return fabric, resolved(whole.content, fabric.figures)


def _model(part: Document, key: KeyPath, path: Path | None) -> tuple[ModelShape, Any]:
    """The model named: in a file, from `models/` beside the scenario, or else from those that ship."""
    whole = _whole_model(part, key, path)
    _theirs(whole, key)
    name = _family(whole, key)
    form = form_of(name)
    try:
        written = form.model_validate(whole.content)
    except ValidationError as error:
        raise DocumentError(_problems(form, error, whole, key)) from None
    # what no model needs is not said of those that lack it
    plain = written.model_dump(exclude_defaults=True)
    plain["source"] = plain.pop("source")  # last, as in the documents
    return family(name).Shape(**written.model_dump()), plain


FILES = (".json", ".yaml", ".yml")
"""Ends of names that are files and not names of models."""


def _whole_model(part: Document, key: KeyPath, path: Path | None, trail: tuple[Path, ...] = ()) -> Document:
    """A model with what it builds on: a name, or a file relative to the folder of the one that names it, of ours or a
    config.json of Hugging Face. trail: files being read, to find loops."""
    changes = part.content if isinstance(part.content, Mapping) else {}
    word = changes.get("base") if changes else part.content
    if not isinstance(word, str) or not word.endswith(FILES):
        return expand(part, _models(path, word), key)
    file = (path.parent if path else Path()) / word
    if file.resolve() in trail:
        loop = " -> ".join(each.name for each in (*trail, file))
        raise DocumentError([Problem(part.place(("base",)), dotted(key), f"base goes in a circle: {loop}")])
    document = read(file, word)
    if is_config(document.content):
        document = _translated(document, word, key)
    whole = _whole_model(document, key, file, (*trail, file.resolve()))
    if not changes:
        return whole
    rest = {inner: place for inner, place in part.places.items() if inner[:1] != ("base",)}
    return merge(whole, Document({name: value for name, value in changes.items() if name != "base"}, rest))


def _translated(document: Document, word: str, key: KeyPath) -> Document:
    """A config.json in our keys, all of them at its place. It is called as its file is, or as its folder."""
    file, place = Path(word), document.place(())
    name = file.parent.name if file.stem == "config" and file.parent.name else file.stem
    try:
        return Document(model_of(document.content, name), {(): place})
    except Refused as error:
        raise DocumentError([Problem(place, dotted(key), str(error))]) from None


def _theirs(whole: Document, key: KeyPath) -> None:
    """Raise DocumentError with one line where a model is written in Hugging Face's names."""
    name = whole.content.get("family") if isinstance(whole.content, Mapping) else None
    legal = family(name).Shape.__dataclass_fields__ if is_family(name) else {}
    theirs, line = hugging_face.remark(whole.content, legal)
    if line and not legal:
        line += f"; legal: {', '.join(families())}, see scenarios/models"
    if line:
        raise DocumentError([Problem(whole.place((theirs,)), dotted(key), line)])


def _family(whole: Document, key: KeyPath) -> str:
    """The family that a model says it is of."""
    name = whole.content.get("family") if isinstance(whole.content, Mapping) else None
    if not is_family(name):
        what = unknown(name, "model family", families()) if name else f"missing; legal: {', '.join(families())}"
        raise DocumentError([Problem(whole.place(("family",)), dotted((*key, "family")), what)])
    return str(name)


def _histogram(part: Document, key: KeyPath, path: Path | None, mixture: Mixture | None) -> tuple[Histogram, Any]:
    """The histogram in a file, whose name is relative to the scenario's folder, or written out."""
    rows = histogram(part, key, path.parent if path else Path(), mixture)
    return rows, [list(row) for row in rows]


def _models(path: Path | None, word: object) -> Shelf:
    beside = path.parent / "models" if path else None
    if beside and isinstance(word, str) and (beside / f"{word}.yaml").is_file() and beside.resolve() != MODELS.folder:
        return Shelf("model", beside, str(beside), cited=False)
    return MODELS


def _built(form: ScenarioForm, parts: Parts, path: Path | None) -> Scenario:
    """The scenario of a form that is right in itself, with its resolved values and hash."""
    name, cluster = form.name or (path.stem if path else "scenario"), _cluster(form, parts)
    batch = _batch(form, cluster)
    plain = _plain(form, parts, name, batch)
    return Scenario(
        name=name,
        cluster=cluster,
        model=parts.model,
        precision=form.precision,
        parallel=Parallel(**form.parallel.model_dump()),
        schedule=Schedule(form.schedule.name, form.schedule.chunks or Schedule.chunks),
        placement=form.placement,
        batch=batch,
        routing=_routing(form, parts),
        comm=Comm(**form.comm.model_dump()),
        optimizer=Optimizer(**form.optimizer.model_dump()),
        detail=form.detail,
        fold=form.fold,
        seed=form.seed,
        pricing=form.pricing,
        chunk_times=_chunk_times(form),
        outputs=form.outputs,
        limits=Limits(form.limits.step_time, form.limits.memory),
        faults=_faults(form),
        jitter=form.jitter,
        scenario_hash=_hash(plain),
        resolved=plain,
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


def _faults(form: ScenarioForm) -> tuple[Fault, ...]:
    return tuple(
        Fault(
            f.kind, f.at, f.slower, f.start, FOREVER if f.end is None else f.end, f.every or 0, f.lasts or 0,
            f.time_constant or 0,
        )
        for f in form.faults
    )  # fmt: skip


def _batch(form: ScenarioForm, cluster: Cluster | None) -> Batch:
    """The batch, with sequences worked out from micro-batches where a model's scenario gives only those."""
    batch = Batch(**form.batch.model_dump())
    if cluster is None or batch.sequences or not batch.micro_batches:
        return batch
    pipelines = cluster.gpus // (form.parallel.pipeline * form.parallel.tensor)
    return Batch(
        batch.micro_batches * batch.micro_batch * pipelines, batch.sequence_length, batch.micro_batch,
        batch.micro_batches,
    )  # fmt: skip


def _chunk_times(form: ScenarioForm) -> ChunkTimes | None:
    times = form.chunk_times
    if times is None:
        return None
    together = times.forward + times.backward_input + times.weight
    overlapped = together if times.overlapped is None else times.overlapped
    return ChunkTimes(times.forward, times.backward_input, times.weight, overlapped, times.p2p)


def _plain(form: ScenarioForm, parts: Parts, name: str, batch: Batch) -> dict[str, Any]:
    """Everything as resolved, in the YAML form: without names of documents, with all defaults."""
    plain: dict[str, Any] = {"name": name, **form.model_dump(exclude_none=True, exclude={"name"})}
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
    if chunked(form.schedule.name, form.parallel.pipeline):
        plain["schedule"]["chunks"] = form.schedule.chunks or Schedule.chunks
    if batch.sequences:
        plain["batch"]["sequences"] = batch.sequences
    units = {"step_time": "s", "memory": "B"}
    plain["limits"] = {key: f"{value!r} {units[key]}" for key, value in plain["limits"].items()}
    plain["outputs"] = list(form.outputs)
    plain["faults"] = [_plain_fault(f) for f in form.faults]
    for key in ("faults", "jitter"):
        if not plain[key]:
            del plain[key]
    if form.optimizer.name == Optimizer.name:  # a default that came later: what was resolved before keeps its hash
        del plain["optimizer"]["name"]
    if form.comm.collectives == Comm.collectives:
        del plain["comm"]["collectives"]
    plain["placement"] = form.placement if isinstance(form.placement, str) else list(form.placement)
    return plain


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
