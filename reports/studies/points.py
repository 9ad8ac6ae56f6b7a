"""Points of a sweep, of which a study is made: each with the labels of its axes and the record of its run."""

from collections.abc import Mapping, Sequence
from typing import Any

Points = Sequence[tuple[Mapping[str, str], Mapping[str, Any]]]
"""Points of a sweep: labels by axis, and the run's record (see sim.experiments.record)."""
