"""Serving scenarios in files: YAML and overrides to a frozen `Serve`, or all that is wrong with them at once."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwmodels import fabric as fabrics
from hwmodels import node as nodes
from hwmodels.document import Document, DocumentError, KeyPath, Place, Problem
from hwmodels.shelf import expand
from sim.models.family import family
from sim.scenario import model as models
from sim.scenario import shelves
from sim.scenario.histogram import histogram
from sim.scenario.mistakes import problems
from sim.scenario.overrides import apply
from sim.scenario.values import PROFILE_SPREAD, Routing
from sim.serving.checks import check
from sim.serving.form import LengthsForm, RequestsForm, ServeForm, ServingForm
from sim.serving.unfelt import unfelt
from sim.serving.values import (
    KIND,
    NEVER_FAILS,
    Cache,
    Failures,
    Lengths,
    Objectives,
    Pool,
    Requests,
    Serve,
    Speculation,
)

HASH_BYTES = 16
HISTOGRAM = (KIND, "routing", "histogram")


def load(word: str | Path, overrides: Sequence[str] = ()) -> Serve:
    """The scenario in a file, or one that ships by its name. Raises DocumentError."""
    return resolve(shelves.document(str(word)), overrides, shelves.place(str(word)))


def resolve(document: Document, overrides: Sequence[str] = (), path: Path | None = None) -> Serve:
    """The scenario that a document describes, changed by overrides. Raises DocumentError with all that is wrong."""
    if isinstance(document.content, Mapping) and KIND not in document.content:
        what = "is no served load: there is no key serve; run what it is with: python -m sim FILE"
        raise DocumentError([Problem(Place(document.place(()).file), "", what)])
    document, wrong = apply(document, overrides)
    form = None
    try:
        form = ServingForm.model_validate(document.content)
    except ValidationError as error:
        wrong += problems(ServingForm, error, document)
    parts: dict[str, Any] = {}
    for name, reader in READERS.items():
        key = (KIND, name)
        if (part := document.at(*key)).content is None:
            continue
        try:
            parts[name] = reader(part, key, path)
        except DocumentError as error:
            wrong += error.problems
    if (part := document.at(*HISTOGRAM)).content is not None:
        model = parts.get("model")
        mixture = family(model.family).mixture(model) if model else None
        try:
            parts["histogram"] = histogram(part, HISTOGRAM, path.parent if path else Path(), mixture)
        except DocumentError as error:
            wrong += error.problems
    if form is None or wrong:
        raise DocumentError(wrong)
    serve = _built(form, parts, tuple(overrides), path)
    if odd := [Problem(document.place((KIND, *key)), ".".join(map(str, (KIND, *key))), text)
               for key, text in check(serve)]:  # fmt: skip
        raise DocumentError(odd)
    return serve


def portable(word: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a scenario says as it was changed, for any folder: where its trace lies, and a model that lies beside it."""
    path = shelves.place(str(word))
    document = apply(shelves.document(str(word)), overrides)[0]
    own = dict(document.value(KIND))
    if own["model"] not in shelves.models():
        own["model"] = models.document(document.at(KIND, "model"), (KIND, "model"), path).content
    if file := own["requests"].get("file"):
        own["requests"] = {**own["requests"], "file": str((path.parent / file).resolve())}
    if isinstance(file := document.at(*HISTOGRAM).content, str):
        own["routing"] = {**own["routing"], "histogram": str((path.parent / file).resolve())}
    return {**document.content, KIND: own}


def _model(part: Document, key: KeyPath, path: Path | None) -> Any:
    return models.shape(models.document(part, key, path), key)[0]


def _fabric(part: Document, key: KeyPath, path: Path | None) -> Any:
    return fabrics.build(expand(part, fabrics.SHELF, key), key)


def _node(part: Document, key: KeyPath, path: Path | None) -> Any:
    return nodes.build(part, key)


READERS: dict[str, Callable[[Document, KeyPath, Path | None], Any]] = {
    "model": _model, "node": _node, "fabric": _fabric,
}  # fmt: skip


def _built(form: ServingForm, parts: Mapping[str, Any], overrides: tuple[str, ...], path: Path | None) -> Serve:
    own, plain = form.serve, form.model_dump(mode="json")
    drawn, spread = own.routing, own.routing.spread
    if drawn.kind == "sampled" and spread is None:
        spread = PROFILE_SPREAD
    asked = _requests(own.requests, path)
    failing = Failures(own.failures.mtbf, own.failures.repair) if own.failures else NEVER_FAILS
    watts = own.gpu_power or parts["node"].device.power_w
    serve = Serve(
        form.name or (path.stem if path else "serving"), parts["model"], parts["node"], parts.get("fabric"),
        own.precision, tuple(Pool(**pool.model_dump()) for pool in own.pools), _cache(own),
        Routing(drawn.kind, spread, drawn.max_vio, parts.get("histogram")), own.router,
        Speculation(**own.speculation.model_dump()), Objectives(own.objectives.ttft, own.objectives.tpot), asked,
        form.seed, own.gpu_hour or 0.0, watts, failing, own.engine, (), overrides, _hash(plain, parts, asked), plain,
        drift=drawn.drift,
    )  # fmt: skip
    return replace(serve, unfelt=tuple(unfelt(own, serve)))


def _cache(own: ServeForm) -> Cache:
    given = own.cache
    return Cache(given.format, given.block, given.memory, given.prefix, given.host, given.preempt, given.attention)


def _requests(given: RequestsForm, path: Path | None) -> Requests:
    """What is asked; a trace's file lies beside the scenario."""
    file = str((path.parent if path else Path()) / given.file) if given.file else ""
    return Requests(
        given.arrivals, given.count, given.rate or 0.0, given.variation or 1.0, given.clients or 0,
        _lengths(given.prompt), _lengths(given.output), file, given.format or "csv", given.speed or 1.0,
    )  # fmt: skip


def _lengths(given: LengthsForm | None) -> Lengths:
    return Lengths(given.most, given.least_part) if given else Lengths(1)


def _hash(plain: Mapping[str, Any], parts: Mapping[str, Any], asked: Requests) -> str:
    """Digest of all that decides the answer."""
    trace = Path(asked.file).read_bytes() if asked.file and Path(asked.file).is_file() else b""
    decides = json.dumps({key: value for key, value in plain.items() if key != "name"}, sort_keys=True)
    words = f"{decides}\n{parts['model']!r}\n{parts['node']!r}\n{parts.get('fabric')!r}\n"
    words += f"{rows!r}\n" if (rows := parts.get("histogram")) else ""
    return hashlib.blake2b(words.encode() + trace, digest_size=HASH_BYTES).hexdigest()
