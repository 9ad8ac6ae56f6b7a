"""The model of a row, as a scenario writes it."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from hwmodels.document import did_you_mean, read
from hwmodels.refused import Refused
from sim.scenario.shelves import SCENARIOS
from sim.validation.runs.rows import Run
from sim.validation.runs.words import table

PROXY = re.compile(r"(.+) \((\d+)-layer proxy\)\Z")
"""A name that says how many layers of a model were run."""


def model(run: Run) -> dict[str, Any]:
    """Its document: {base: ...} with what differs. Raises Refused where none of ours can be it."""
    known = table("models")
    name, changes = run.model, {}
    if name not in known and (proxy := PROXY.fullmatch(name)):
        name, changes = proxy[1], {"layers": int(proxy[2])}
    if name not in known:
        raise Refused(f"model {name!r} is none that is known here{did_you_mean(name, known) or ''}")
    said = known[name]
    written = {"base": said} if isinstance(said, str) else dict(said)
    if "refused" in written:
        raise Refused(written["refused"])
    return {key: _value(value, run) for key, value in written.items()} | changes


def _value(value: Any, run: Run) -> Any:
    return run.sequence_length if value == "sequence_length" else value


def layers(document: Mapping[str, Any]) -> int:
    """Layers of a model as `model` gives it."""
    return int(document.get("layers") or _shipped(document["base"])["layers"])


@cache
def _shipped(name: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = read(SCENARIOS / "models" / f"{name}.yaml").content
    return content
