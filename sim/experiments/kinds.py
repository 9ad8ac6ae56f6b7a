"""What a scenario's file is of: a training step, a whole campaign, or a served load; read and run alike."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hwmodels.document import DocumentError, read
from sim.campaign.values import Campaign
from sim.scenario import files, shelves
from sim.scenario.values import Scenario
from sim.serving.values import KIND, Serve

CAMPAIGN, SERVE = "campaign", KIND
"""Keys that tell a campaign and a served load."""
OUTPUTS = "outputs="
"""Of overrides that sweeps add, which a served load has no use for."""


def kind(file: str) -> str:
    """The key that tells what a file, or a scenario that ships, is of; none for a training step, and for what cannot be
    read, which is told when it is loaded."""
    place = shelves.place(file)
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
    return next((key for key in (CAMPAIGN, SERVE) if isinstance(content, Mapping) and key in content), "")


def load(file: str, overrides: Sequence[str] = ()) -> Scenario | Campaign | Serve:
    """The scenario, campaign or served load in a file, changed by overrides. Raises DocumentError."""
    which = kind(file)
    if which == SERVE:
        from sim.serving import files as serving

        return serving.load(file, [word for word in overrides if not word.startswith(OUTPUTS)])
    if which == CAMPAIGN:
        from sim.campaign import resolve  # pydantic forms: on demand

        return resolve.load(Path(file), overrides)
    return files.load(file, overrides)


def summary(campaign: Campaign | Serve) -> dict[str, Any]:
    """What a campaign or a served load answers, as in result.json."""
    if isinstance(campaign, Serve):
        return _served(campaign)
    from sim.campaign.answer import run

    return run(campaign).summary


def _served(serve: Serve) -> dict[str, Any]:
    from sim.serving.answers import answers
    from sim.serving.folder import summary as content
    from sim.serving.system import run

    return content(serve, answers(serve, *run(serve)))
