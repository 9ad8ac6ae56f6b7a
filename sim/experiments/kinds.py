"""What a scenario's file is of: a training step, or a whole campaign; read and run alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwmodels.document import read
from sim.campaign.values import Campaign
from sim.scenario import files, shelves
from sim.scenario.values import Scenario

CAMPAIGN = "campaign"
"""The key that tells a campaign."""


def is_campaign(file: str) -> bool:
    """Whether a file is of a campaign. Raises DocumentError where it cannot be read."""
    content = read(shelves.place(file), file).content
    return isinstance(content, Mapping) and CAMPAIGN in content


def load(file: str, overrides: Sequence[str] = ()) -> Scenario | Campaign:
    """The scenario or campaign in a file, changed by overrides. Raises DocumentError."""
    if not is_campaign(file):
        return files.load(file, overrides)
    from sim.campaign import resolve  # pydantic forms: on demand

    return resolve.load(Path(file), overrides)


def summary(campaign: Campaign) -> dict[str, Any]:
    """What a campaign answers, as in result.json."""
    from sim.campaign.answer import run

    return run(campaign).summary
