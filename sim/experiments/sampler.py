"""Points of a space that is too large to look at all of them, as Optuna chooses them: TPE or NSGA-II.

A trial has a number from 0 to 1 for each axis, in the order of the tree; it means a stop among those that no rule
forbids behind the stops before it, so every trial is a legal point. Trials are asked for in batches of one size,
however many workers there are, and kept in a journal: a search that is interrupted goes on with what it learned.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from hwmodels.refused import Refused
from sim.experiments.objectives import Facts, Figures
from sim.experiments.record import stamp
from sim.experiments.screen import Tried
from sim.experiments.search import Search
from sim.experiments.space import Choice, Space

BATCH = 16
"""Trials that are chosen before the next ones know of them."""
WORST = 1e30
"""Score of a point that lacks something, beside its constraint."""
DIGEST_BYTES = 8


class Way(Protocol):
    """A search on its way (`sim.experiments.explore.Explorer`). base: hash of its scenario. outcomes: what is known."""

    search: Search
    base: str
    outcomes: dict[Choice, Tried]

    def try_all(self, choices: Sequence[Choice]) -> None:
        """Try points, and know their outcomes."""

    def scores(self, facts: Facts | Figures) -> tuple[float, ...]:
        """Of the objectives; less is better."""


class Tree:
    """A space as numbers from 0 to 1; what rules say of each branch is asked once."""

    def __init__(self, space: Space) -> None:
        self.space, self.forbidden = space, dict[tuple[int, ...], tuple[str, str] | None]()
        self.sizes = [len(space.product.axes[number].stops) for number in space.order]

    def choice(self, shares: Sequence[float]) -> Choice | None:
        """The legal point nearest to what the numbers say, axis by axis; None where no point is legal."""
        stops = self._from((), shares)
        return None if stops is None else self.space.choice(stops)

    def _from(self, stops: tuple[int, ...], shares: Sequence[float]) -> tuple[int, ...] | None:
        if self._broken(stops):
            return None
        if len(stops) == len(self.sizes):
            return stops
        open_ = [place for place in range(self.sizes[len(stops)]) if not self._broken((*stops, place))]
        wanted = min(int(shares[len(stops)] * len(open_)), len(open_) - 1)
        for at in sorted(range(len(open_)), key=lambda at: (abs(at - wanted), at)):
            if (whole := self._from((*stops, open_[at]), shares)) is not None:
                return whole
        return None

    def _broken(self, stops: tuple[int, ...]) -> tuple[str, str] | None:
        if stops not in self.forbidden:
            self.forbidden[stops] = self.space.broken(stops)
        return self.forbidden[stops]


def sampled(way: Way, folder: Path | None) -> None:
    """Try as many points as the search says, those of an older journal first. Raises Refused without Optuna, or where
    no point is legal."""
    try:
        optuna: Any = import_module("optuna")
    except ImportError:
        what = f"more than {way.search.exhaustive} points are legal, and choosing among them needs Optuna"
        raise Refused(f"{what}: pip install 'trainyard[search]', or raise exhaustive", way.search.path) from None
    study, tree, wanted = _study(optuna, way, folder), Tree(way.search.space), way.search.sampler.trials
    axes = {axis: optuna.distributions.FloatDistribution(0, 1) for axis in _axes(way.search.space)}
    kept = [tuple(trial.user_attrs["choice"]) for trial in study.trials if trial.state.is_finished()]
    way.try_all(list(dict.fromkeys(kept)))
    while len(kept) < wanted:
        trials = [study.ask(axes) for _ in range(min(BATCH, wanted - len(kept)))]
        choices = [tree.choice([trial.params[axis] for axis in axes]) for trial in trials]
        if None in choices:
            what, why = next(broken for broken in tree.forbidden.values() if broken)
            raise Refused(f"no point is legal; some are forbidden by: {what} ({why})", way.search.path)
        chosen = [choice for choice in choices if choice is not None]
        way.try_all(list(dict.fromkeys(choice for choice in chosen if choice not in way.outcomes)))
        for trial, choice in zip(trials, chosen, strict=True):
            _tell(study, trial, way, choice)
        kept += chosen


def _axes(space: Space) -> list[str]:
    """Names of axes in the order of the tree."""
    return [space.product.axes[number].name for number in space.order]


def _tell(study: Any, trial: Any, way: Way, choice: Choice) -> None:
    outcome = way.outcomes[choice]
    good = outcome.facts is not None and not outcome.lacks
    trial.set_user_attr("choice", list(choice))
    trial.set_constraint("what must hold", 0.0 if good else 1.0)
    scores = way.scores(outcome.facts) if good and outcome.facts else (WORST,) * len(way.search.objectives)
    study.tell(trial, list(scores))


def _study(optuna: Any, way: Way, folder: Path | None) -> Any:
    """The study of this search, as far as a journal in the folder has it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    given, search = way.search.sampler, way.search
    axes = [(axis.name, axis.stops) for axis in search.space.product.axes]
    said = (way.base, stamp(), axes, search.space.product.shared, search.cheap, search.objectives, search.limits,
            dict(search.bounds), search.prices, given.kind, given.seed)  # fmt: skip
    name = hashlib.blake2b(json.dumps(said).encode(), digest_size=DIGEST_BYTES).hexdigest()
    storage = None
    if folder is not None:
        backend = optuna.storages.journal.JournalFileBackend(str(folder / "trials.journal"))
        storage = optuna.storages.JournalStorage(backend)
    kinds = {"tpe": optuna.samplers.TPESampler, "nsga2": optuna.samplers.NSGAIISampler}
    study = optuna.create_study(
        storage=storage, study_name=name, load_if_exists=True, directions=["minimize"] * len(search.objectives)
    )
    # where it goes on, it draws further numbers, not the first ones again
    study.sampler = kinds[given.kind](seed=given.seed + len(study.trials))
    return study
