"""Small regressions in numpy, behind the calibration tables."""

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


def relative_least_squares(terms: Vector, times: Vector) -> tuple[Vector, float]:
    """Coefficients x >= 0 that minimise the squared relative error of terms @ x against times, and its rms.

    terms [n, k], times [n]. Negative coefficients are dropped one at a time, the most negative first.
    """
    weighted = terms / times[:, None]
    keep = list(range(terms.shape[1]))
    while True:
        solution = np.linalg.lstsq(weighted[:, keep], np.ones(len(times)), rcond=None)[0]
        if len(keep) == 1 or solution.min() >= 0:
            break
        del keep[int(solution.argmin())]
    x = np.zeros(terms.shape[1])
    x[keep] = np.maximum(solution, 0.0)
    return x, float(np.sqrt(np.mean((weighted @ x - 1.0) ** 2)))


def fixed_effects(times: Vector, regressors: Vector) -> tuple[Vector, Vector]:
    """Effects shared by all operations, from repeats of each: log t[op, i] = level[op] + regressors[op, i] @ effect.

    times [ops, repeats], regressors [ops, repeats, k]. Returns exp(effect) [k] and its standard error [k]. Every
    operation weighs alike; variation between operations is removed by subtracting each one's mean.
    """
    y = np.log(times)
    y = (y - y.mean(1, keepdims=True)).ravel()
    x = (regressors - regressors.mean(1, keepdims=True)).reshape(-1, regressors.shape[2])
    effect, *_ = np.linalg.lstsq(x, y, rcond=None)
    residual = y - x @ effect
    freedom = max(1, len(y) - times.shape[0] - x.shape[1])
    covariance = np.linalg.pinv(x.T @ x) * float(residual @ residual) / freedom
    return np.exp(effect), np.exp(effect) * np.sqrt(np.diag(covariance))
