"""What a scenario's file is of: a training step, a whole campaign, or a served load; read and run alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwmodels.document import read
from sim.campaign.values import Campaign
from sim.scenario import files, shelves
from sim.scenario.values import Scenario
from sim.serving.kind import serves
from sim.serving.values import Serve

CAMPAIGN = "campaign"
"""The key that tells a campaign."""
OUTPUTS = "outputs="
"""Of overrides that sweeps add, which a served load has no use for."""


def is_campaign(file: str) -> bool:
    """Whether a file is of a campaign. Raises DocumentError where it cannot be read."""
    content = read(shelves.place(file), file).content
    return isinstance(content, Mapping) and CAMPAIGN in content


def load(file: str, overrides: Sequence[str] = ()) -> Scenario | Campaign | Serve:
    """The scenario, campaign or served load in a file, changed by overrides. Raises DocumentError."""
    if serves(file):
        from sim.serving import files as serving

        return serving.load(file, [word for word in overrides if not word.startswith(OUTPUTS)])
    if not is_campaign(file):
        return files.load(file, overrides)
    from sim.campaign import resolve  # pydantic forms: on demand

    return resolve.load(Path(file), overrides)


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
