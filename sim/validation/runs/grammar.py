"""Phrases that nobody wrote down, read token by token: what is known in them says keys, what is not is told."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from hwmodels.document import scalar

Token = Mapping[str, Any]
"""An entry of tokens.yaml."""
GROUP = re.compile(r"<(\w+)>")
DENIED_BEFORE = re.compile(r"\b(no|not|non|without|w/o|disabled?)[ -]*\Z", re.IGNORECASE)
DENIED_BEHIND = re.compile(r"[\s:=()]*(is |are |overlap )?(off|false|none|no|disabled|0)\b", re.IGNORECASE)
OPEN_BEHIND = re.compile(r"[\s:=()]*(n/a|\?|unknown|not stated)", re.IGNORECASE)
SAID_BEHIND = re.compile(rf"{DENIED_BEHIND.pattern}|{OPEN_BEHIND.pattern}|[\s:=]*(true|yes|on|1)\b", re.IGNORECASE)
FILLING = frozenset(
    [
        "a",
        "all",
        "also",
        "and",
        "are",
        "at",
        "by",
        "enabled",
        "for",
        "in",
        "is",
        "of",
        "off",
        "on",
        "only",
        "or",
        "other",
        "overlap",
        "overlapped",
        "overlaps",
        "per",
        "plus",
        "the",
        "to",
        "true",
        "use",
        "used",
        "uses",
        "using",
        "w/",
        "where",
        "with",
        "yes",
    ]
)
"""Words that say nothing by themselves."""


class Reading(NamedTuple):
    """What a phrase says: dotted keys with values, notes, what stands for what it says, and the words in it that no
    token took."""

    keys: Mapping[str, Any]
    notes: tuple[str, ...]
    instead: tuple[str, ...]
    left: str


def plain(phrase: str) -> str:
    """A phrase without quotes, and with one blank where it has white space."""
    return " ".join(re.sub(r"[\"'`“”‘’]", "", phrase).split()).strip(" .,:")


def read(tokens: Iterable[Token], phrase: str) -> Reading:
    """A phrase by the tokens of its column, each of which takes what it finds, everywhere in it."""
    keys: dict[str, Any] = {}
    text, notes, other = plain(phrase), dict[str, None](), dict[str, None]()
    for token in tokens:
        while (match := _pattern(token["find"]).search(text)) and match[0].strip():
            for key, value in _said(token, match, text).items():
                keys.setdefault(key, value)
            if "module" in token:
                _add(keys, token["module"])
            notes |= {token["note"]: None} if "note" in token else {}
            other |= {token["instead"]: None} if "instead" in token else {}
            start, end = _span(token, match, text)
            text = f"{text[:start]} | {text[end:]}"
    return Reading(keys, tuple(notes), tuple(other), _left(text))


@cache
def _pattern(find: str) -> re.Pattern[str]:
    return re.compile(find, re.IGNORECASE)


def _said(token: Token, match: re.Match[str], text: str) -> dict[str, Any]:
    """Keys of a token where it was found; a flag's are left open where the phrase does."""
    keys = {key: _filled(value, match) for key, value in token.get("keys", {}).items()}
    for key, adds in token.get("listed", {}).items():
        keys[key] = list(dict.fromkeys(adds[word] for word in re.findall(r"\w+", match[0].casefold()) if word in adds))
    behind = text[match.end() :]
    if "flag" in token and not OPEN_BEHIND.match(behind):
        denied = DENIED_BEFORE.search(text[: match.start()]) or DENIED_BEHIND.match(behind)
        keys |= dict.fromkeys(token["flag"], not denied)
    return keys


def _span(token: Token, match: re.Match[str], text: str) -> tuple[int, int]:
    """What a token takes out of a phrase: of a flag, with what denies or affirms it."""
    start, end = match.span()
    if "flag" in token:
        before, behind = DENIED_BEFORE.search(text[:start]), SAID_BEHIND.match(text[end:])
        start, end = before.start() if before else start, end + (behind.end() if behind else 0)
    return start, end


def _filled(value: Any, match: re.Match[str]) -> Any:
    """A value with what a group of the pattern found; where its alternative is empty, the other's."""
    if isinstance(value, Mapping):
        return {key: _filled(each, match) for key, each in value.items()}
    if not (isinstance(value, str) and (group := GROUP.search(value))):
        return value
    name = int(group[1]) if group[1].isdigit() else group[1]
    return scalar(value.replace(group[0], match[name] or next(each for each in match.groups() if each)))


def _add(keys: dict[str, Any], module: str) -> None:
    """A module that is computed again, unless all or none is; activations of experts are within mixtures."""
    said = keys.setdefault("recompute", {"modules": []})
    if isinstance(said, dict) and "modules" in said:
        modules = [*said["modules"], *([module] if module not in said["modules"] else [])]
        said["modules"] = [each for each in modules if each != "activation" or "moe" not in modules]


def _left(text: str) -> str:
    """Words that no token took and that are no filling."""
    words = re.findall(r"[\w./<>=&-]*\w[\w./<>=&-]*", text)
    return " ".join(word for word in words if len(word) > 1 and word.casefold() not in FILLING and not word.isdigit())
