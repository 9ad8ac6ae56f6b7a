"""What a study is told: the points of its sweep, each with the labels of its axes and the record of its run."""

from collections.abc import Mapping, Sequence
from typing import Any

Told = Sequence[tuple[Mapping[str, str], Mapping[str, Any]]]
"""Points of a sweep: labels by axis, and the run's record (see sim.experiments.record)."""
