"""What a scenario's file is of: a training step, a whole campaign, steps of reinforcement learning, or a served load;
read and run alike."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwmodels.document import DocumentError, read
from sim.campaign.rl.values import KIND as LEARNING
from sim.campaign.rl.values import Learning
from sim.campaign.values import Campaign
from sim.scenario import files, shelves
from sim.scenario.values import Scenario
from sim.serving.values import KIND, Serve

if TYPE_CHECKING:
    from sim.campaign.answer import Answer

CAMPAIGN, SERVE, RL = "campaign", KIND, LEARNING
"""Keys that tell a campaign, a served load and reinforcement learning."""
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
    return next((key for key in (CAMPAIGN, SERVE, RL) if isinstance(content, Mapping) and key in content), "")


def load(file: str, overrides: Sequence[str] = ()) -> Scenario | Campaign | Learning | Serve:
    """What is in a file, changed by overrides. Raises DocumentError."""
    which = kind(file)
    if which == SERVE:
        from sim.serving import files as serving

        return serving.load(file, [word for word in overrides if not word.startswith(OUTPUTS)])
    return planned(file, overrides) if which in (CAMPAIGN, RL) else files.load(file, overrides)


def planned(file: str, overrides: Sequence[str] = ()) -> Campaign | Learning:
    """The campaign, or the reinforcement learning, in a file, changed by overrides. Raises DocumentError."""
    if kind(file) == RL:
        from sim.campaign.rl import files as learning  # pydantic forms: on demand

        return learning.load(file, overrides)
    from sim.campaign import resolve

    return resolve.load(Path(file), overrides)


def answer(plan: Campaign | Learning) -> "Answer":
    """Simulate one of these. Raises Refused."""
    if isinstance(plan, Learning):
        from sim.campaign.rl.answer import run as learn

        return learn(plan)
    from sim.campaign.answer import run

    return run(plan)


def summary(plan: Campaign | Learning | Serve) -> dict[str, Any]:
    """What a campaign, reinforcement learning or a served load answers, as in result.json."""
    return _served(plan) if isinstance(plan, Serve) else answer(plan).summary


def _served(serve: Serve) -> dict[str, Any]:
    from sim.serving.answers import answers
    from sim.serving.folder import summary as content
    from sim.serving.system import run

    return content(serve, answers(serve, *run(serve)))
