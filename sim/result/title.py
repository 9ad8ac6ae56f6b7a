"""What a run is called: the name that its scenario's file gives, which may tell of that as it was, and all changes."""

from collections.abc import Mapping, Sequence
from typing import Any

DECIDE_NOTHING = ("outputs", "name")
"""Keys that decide no figure: a run that only overrides these is the run of the file."""


def changes(overrides: Sequence[str]) -> list[str]:
    """Those `key=value` that decide figures."""
    return [word.strip() for word in overrides if word.partition("=")[0].strip() not in DECIDE_NOTHING]


def title(name: str, overrides: Sequence[str]) -> str:
    """Such as "DeepSeek-V3 step on 2,048 H800, with cluster.node=h100x8 comm.sms=12"."""
    words = changes(overrides)
    return f"{name}, with {' '.join(words)}" if words else name


def of(summary: Mapping[str, Any]) -> str:
    """That of a run, by its summary as in result.json."""
    return title(str(summary.get("scenario") or "a run"), summary.get("overrides", ()))
