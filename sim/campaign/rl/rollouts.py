"""The answers of a step, made by instances of the model as the serving simulator has them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hwmodels.units import NS_PER_S
from sim.campaign.rl import lengths
from sim.campaign.rl.values import Learning, Reward
from sim.serving.asked import Asked
from sim.serving.log import Log
from sim.serving.system import System
from sim.serving.values import Serve

Numbers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rollouts:
    """Answers of a step. tokens [answers]: of each. ends_s [answers]: when each is there, from the step's first prompt
    on. instances_s [instances]: when each instance has nothing left to do. again: how often one lost its cache."""

    tokens: Numbers
    ends_s: Reals
    instances_s: Reals
    again: int

    @cached_property
    def seconds(self) -> float:
        """Until the last answer."""
        return float(self.ends_s.max())

    @property
    def tail_s(self) -> float:
        """Of that, seconds in which an instance waits for the last of all, on average."""
        return self.seconds - float(self.instances_s.mean())

    def judged_s(self, reward: Reward) -> float:
        """Until the last reward: answers are judged in the order they come, each by the worker that is free first."""
        if not reward.takes_s:
            return self.seconds
        free = np.zeros(min(reward.workers, len(self.ends_s)))
        for end in np.sort(self.ends_s):
            at = int(free.argmin())
            free[at] = max(free[at], end) + reward.takes_s
        return float(free.max())


def rollouts(learning: Learning, steps: Sequence[int]) -> list[Rollouts]:
    """All answers of steps, each by its number, in the order in which they run. Those of a step are asked for at once,
    when those before are there; where two or more steps may be under way (stale), as soon as places are free. Raises
    Refused where one does not fit."""
    tokens = [lengths.drawn(learning.answers, learning.seed, step) for step in steps]
    if learning.stale > 1:
        return _flowing(learning, tokens)
    made = []
    for each in tokens:
        log = _log(learning, learning.serve, each)
        made.append(Rollouts(each, log.last / NS_PER_S, _ends(log), int(log.again.sum())))
    return made


def _log(learning: Learning, serve: Serve, tokens: Numbers) -> Log:
    nothing = np.zeros(len(tokens), np.int64)
    return System(serve, Asked(nothing, nothing + learning.answers.prompt, tokens)).run()


def _flowing(learning: Learning, tokens: Sequence[Numbers]) -> list[Rollouts]:
    """Answers of all steps in a row, of which `stale` are under way at most: a step lasts from the last answer of the
    one before to its own."""
    serve, count = learning.serve, learning.answers.count
    pool = serve.pools[0]
    places = max(1, -(-learning.stale * count // (pool.instances * pool.groups)))
    narrow = replace(serve, pools=(pool._replace(batch=min(pool.batch, places)),))
    log = _log(learning, narrow, np.concatenate(tokens))
    last = log.last.reshape(len(tokens), count) / NS_PER_S
    over = np.maximum.accumulate(last.max(axis=1))
    begun = np.concatenate([[0.0], over[:-1]])
    again = log.again.reshape(len(tokens), count).sum(axis=1)
    return [
        Rollouts(each, np.maximum(0.0, ends - at), np.array([end - at]), int(lost))
        for each, ends, at, end, lost in zip(tokens, last, begun, over, again, strict=True)
    ]


def _ends(log: Log) -> Reals:
    """Of each instance: the last time that it looked for something to do."""
    last: dict[int, int] = {}
    for moment, instance, *_ in log.load:
        last[instance] = max(moment, last.get(instance, 0))
    return np.array([last[each] for each in sorted(last)]) / NS_PER_S
