"""What a scenario's file is of: a training step, or one of the kinds beside it; read and run alike."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from hwmodels.document import Document, DocumentError, Place, read
from sim.experiments.campaigns import CAMPAIGN as OF_CAMPAIGNS
from sim.experiments.kind import Kind
from sim.experiments.learnings import LEARNING
from sim.experiments.served import SERVED
from sim.result import title as title_
from sim.scenario import files, shelves
from sim.scenario.overrides import apply

KINDS: Mapping[str, Kind] = {each.key: each for each in (SERVED, OF_CAMPAIGNS, LEARNING)}
"""Top-level key -> the kind that it tells."""
CAMPAIGN, SERVE, RL = OF_CAMPAIGNS.key, SERVED.key, LEARNING.key
Source = str | Path | Mapping[str, Any]
"""A file, the name of a scenario that ships, or plain values as in YAML."""


class Value(Protocol):
    """What a file of any kind describes. scenario_hash: digest of all that decides the answer. overrides: what was
    changed in the file."""

    @property
    def scenario_hash(self) -> str: ...
    @property
    def overrides(self) -> tuple[str, ...]: ...


def kind(source: Source) -> str:
    """The key that tells what a source is of; none for a training step, and for what cannot be read, which is told when
    it is loaded."""
    if isinstance(source, Mapping):
        return next((key for key in KINDS if key in source), "")
    place = shelves.place(str(source))
    if not place.is_file():
        return ""
    status = place.stat()
    return _kind(place, status.st_mtime_ns, status.st_size)


@lru_cache(256)
def _kind(place: Path, *_: int) -> str:
    """Kept while its file is as it was: a sweep asks for each point."""
    try:
        content = read(place, str(place)).content
    except DocumentError:
        return ""
    return next((key for key in KINDS if isinstance(content, Mapping) and key in content), "")


def of(source: Source) -> Kind | None:
    """The kind that a source is of; None: a training step."""
    return KINDS.get(kind(source))


def load(source: Source, overrides: Sequence[str] = ()) -> Value:
    """What a source describes, changed by overrides. Raises DocumentError."""
    own = of(source)
    if own is None:
        return files.load(source, overrides)
    value: Value = own.resolve(*_document(source, overrides))
    return value


def content(source: Source, overrides: Sequence[str] = ()) -> Any:
    """What a file says, as it was written and changed. Raises DocumentError."""
    document, wrong = apply(_document(source, ())[0], overrides)
    if wrong:
        raise DocumentError(wrong)
    return document.content


def portable(place: Path, overrides: Sequence[str] = ()) -> Any:
    """The same of a file, for any folder. Raises DocumentError."""
    return shelves.whole(content(place, overrides), place.parent)


def _document(source: Source, overrides: Sequence[str]) -> tuple[Document, Sequence[str], Path | None]:
    if isinstance(source, Mapping):
        return Document(source, {(): Place("<mapping>")}), overrides, None
    return shelves.document(str(source)), overrides, shelves.place(str(source))


def title(value: Value) -> str:
    """What it is called, with its overrides."""
    return title_.title(str(getattr(value, "name", "")), value.overrides)


def summary(value: Value) -> dict[str, Any]:
    """What one of these kinds answers, as in result.json. Raises Refused."""
    own = next(each for each in KINDS.values() if isinstance(value, each.makes))
    return dict(own.run(value).summary)
