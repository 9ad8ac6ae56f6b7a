"""Daly's closed forms of a run that saves every tau seconds of work (J. T. Daly, A higher order estimate of the optimum
checkpoint interval for restart dumps, Future Generation Computer Systems 22, 2006).

Failures are exponential with mean M and come also while a checkpoint is written and while the run starts again, which
then starts from anew. All arguments are seconds: `work` of the run, `interval` tau of work between checkpoints, `stall`
delta of one, `restart` R, `mean` M between failures.
"""

from math import exp, expm1, inf, sqrt

from hwmodels.units import NANO


def wall(work: float, interval: float, stall: float, restart: float, mean: float) -> float:
    """Expected seconds of the run: M e^(R/M) (e^((tau + delta)/M) - 1) T / tau (his equation 13)."""
    if mean == inf:
        return work * (1 + stall / interval)
    try:
        return mean * exp(restart / mean) * expm1((interval + stall) / mean) * work / interval
    except OverflowError:
        return inf


def optimum(stall: float, mean: float) -> float:
    """The interval for which `wall` is shortest: where (1 - tau/M) e^((tau + delta)/M) is 1, found by halving."""
    if mean == inf or not stall:
        return inf if mean == inf else 0.0
    low, high = 0.0, mean
    while high - low > NANO * mean:
        middle = (low + high) / 2
        above = (1 - middle / mean) * exp((middle + stall) / mean) > 1
        low, high = (middle, high) if above else (low, middle)
    return (low + high) / 2


def young(stall: float, mean: float) -> float:
    """The first order of it: sqrt(2 M delta) (J. W. Young, CACM 17(9), 1974)."""
    return sqrt(2 * mean * stall)
