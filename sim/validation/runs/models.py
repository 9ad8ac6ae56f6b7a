"""The model of a row, as a scenario writes it: by its name as people spell it, or by dimensions that the row gives."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from hwmodels.document import did_you_mean, read
from hwmodels.refused import Refused
from sim.scenario.shelves import SCENARIOS
from sim.validation.runs.rows import Run
from sim.validation.runs.words import table

ASIDE = re.compile(r"[ _-]*[(\[]([^()\[\]]*)[)\]]")
"""What stands in brackets in a name."""
PROXY = re.compile(r"(?:^|[ _,([-])(\d+)[ -]?(?:layers?|l)\b(?:[ -]*proxy)?", re.IGNORECASE)
"""How many layers of a model were run."""
ADAPTERS = re.compile(r"\b(q?lora|peft|dora)\b", re.IGNORECASE)
"""What trains products beside frozen weights."""
LIKE = "gpt3_175b"
"""The model that one of which only dimensions are given is like."""
GIVEN = {
    "layers": r"(\d+)[ -]layers?|layers?[ =:]*(\d+)",
    "hidden": r"hidden(?:[ _]size)?[ =:]*(\d+)|(\d+) hidden|\bh ?= ?(\d+)",
    "heads": r"(\d+) (?:attention )?heads|heads?[ =:]*(\d+)", "kv_heads": r"(\d+) kv[ -]heads|kv[ _]heads[ =:]*(\d+)",
    "intermediate": r"(?:ffn|intermediate)(?:[ _](?:hidden[ _])?size)?[ =:]*(\d+)",
    "vocabulary": r"vocab\w*(?:[ _]size)?[ =:]*(\d+)",
}  # fmt: skip
"""Dimension -> how a row may write it."""


def model(run: Run) -> dict[str, Any]:
    """Its document: {base: ...} with what differs. Raises Refused where none of ours can be it."""
    name, said = _named(run.model)
    if said is None:
        return _dimensions(run)
    changes: dict[str, Any] = {}
    if name != run.model:
        if ADAPTERS.search(run.model):
            raise Refused("adapters beside frozen weights (LoRA) have no key")
        if proxy := PROXY.search(run.model[len(name) :] if run.model.startswith(name) else run.model):
            changes["layers"] = int(proxy[1])
        if re.search(r"(w/o|no|without) mtp", run.model, re.IGNORECASE):
            changes["mtp_depth"] = 0
    written = {"base": said} if isinstance(said, str) else dict(said)
    if "refused" in written:
        raise Refused(written["refused"])
    document = {key: _value(value, run) for key, value in written.items() if key != "instead"} | changes
    if _said(document, "dense_layers") > _said(document, "layers"):
        document["dense_layers"] = document["layers"]
    positions = _said(document, "positions")
    if run.sequence_length and 0 < positions < run.sequence_length:  # trained with as many as its sequences have
        document["positions"] = run.sequence_length
    return document


def known_as(run: Run) -> str:
    """The table's name of its model, or the row's own."""
    return _named(run.model)[0]


def instead(run: Run) -> str:
    """What of its model other blocks stand for, or ""."""
    said = _named(run.model)[1]
    return str(said.get("instead", "")) if isinstance(said, Mapping) else ""


def _named(name: str) -> tuple[str, Any]:
    """The table's name of a model and what it says of it; spelled with other capitals and hyphens, or with something in
    brackets or a number of layers behind it. None: nothing."""
    known = table("models")
    for each in (name, ASIDE.sub("", name), PROXY.sub("", ASIDE.sub("", name))):
        if each in known:
            return each, known[each]
        if (plain := _plain(each)) in _alike():
            return _alike()[plain], known[_alike()[plain]]
    return name, None


def _plain(name: str) -> str:
    """Small letters and digits of a name, without its maker."""
    return re.sub(
        r"[^a-z0-9]|proxy", "", re.sub(r"^(meta|nvidia|openai|moonshot\w*|mistralai)[/ -]", "", name.casefold())
    )


@cache
def _alike() -> Mapping[str, str]:
    return {_plain(name): name for name in reversed(list(table("models")))}


def _dimensions(run: Run) -> dict[str, Any]:
    """A model by dimensions that the row gives: a plain decoder. Raises Refused where it gives too few."""
    text = " ".join((run.model, run.parameters, run.other)).replace(",", "")
    matches = {key: re.search(pattern, text, re.IGNORECASE) for key, pattern in GIVEN.items()}
    said = {key: int(next(filter(None, match.groups()))) for key, match in matches.items() if match}
    if not {"layers", "hidden", "heads"} <= set(said) or said["hidden"] % said["heads"]:
        near = did_you_mean(run.model, table("models")) or ""
        lacking = f"; its dimensions are not given ({run.parameters})" if run.parameters else ""
        raise Refused(f"model {run.model!r} is none that is known here{near}{lacking}")
    own: dict[str, Any] = {
        "intermediate": 4 * said["hidden"],
        "kv_heads": said["heads"],
        "head_width": said["hidden"] // said["heads"],
    }
    own |= {"name": run.model, "positions": run.sequence_length, "source": f"dimensions of row {run.id}"}
    return {"base": LIKE, **own, **said}


def _value(value: Any, run: Run) -> Any:
    return run.sequence_length if value == "sequence_length" else value


def layers(document: Mapping[str, Any]) -> int:
    """Layers of a model as `model` gives it."""
    return _said(document, "layers")


def mixture(run: Run) -> bool:
    """Whether a row's model has experts."""
    return "MoE" in run.parameters or (run.expert or 1) > 1


def predicts(run: Run) -> int:
    """Prediction modules of a row's model, where it says none."""
    return _said(model(run), "mtp_depth")


def _said(document: Mapping[str, Any], key: str) -> int:
    """A count of a document, or of what it builds on; 0 where neither has it."""
    return int(document.get(key, _shipped(document["base"]).get(key, 0)))


@cache
def _shipped(name: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = read(SCENARIOS / "models" / f"{name}.yaml").content
    return content
