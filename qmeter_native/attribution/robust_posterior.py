"""The unknowns of windows' energy, given the windows: robust, none negative, with how far windows left out err."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_prior import EnergyPrior
from qmeter_native.attribution.nonnegative import nonnegative_minimum

__all__ = ["SHIFT_ERROR", "Posterior", "robust_posterior", "window_discrepancy"]

_Array = NDArray[Any]

SHIFT_ERROR: Final = 0.3
"""Prior standard deviation of what a run adds to the exponents: a core event costs V², and V goes with the clock to a
power between 0 (at the lowest voltage) and 1."""
_DEGREES: Final = 4.0
"""Of freedom of Student's t distribution of windows' errors: robust, and hardly less efficient if they are normal."""
_EFFICIENCY: Final = 0.879
"""Information of a normal window under Student-t weights of 4 degrees, over the mean weight: ``E[ψ']² / (E[ψ²] E[w])``
with ``w = 5 / (4 + r²)`` and ``ψ = w r`` (Huber, Robust Statistics, 1981, chapter 6). The Gram matrix alone would give
errors that are 7 % too small."""
_MAX_PASSES: Final = 30
_SETTLED: Final = 1e-4
"""Change of weights at which reweighting ends."""
_MAX_SQUARE: Final = 6.25
"""Squared errors of windows, over their variance, count up to here for the spread: 2.5 standard errors, beyond which
1.2 % of a normal distribution lie."""
_MEAN_SQUARE: Final = 0.9776
"""Their mean then, of a normal distribution."""
_MIN_DEGREES: Final = 4.0
"""Windows less parameters; fewer say little of their own spread."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """Unknowns (N) in the prior's scale and, last, the change of the exponents' shift over `SHIFT_ERROR`.

    Attributes:
        solution: float64 (N + 1,), the most probable.
        covariance: float64 (N + 1, N + 1), as though none were at its bound.
        residual_j: float64 (W,), of each window.
        leverage: float64 (W,), diagonal of the hat matrix: how far a window's energy moves its own prediction.
    """

    solution: _Array
    covariance: _Array
    residual_j: _Array
    leverage: _Array


def robust_posterior(design: _Array, target_j: _Array, noise_j: _Array, prior: EnergyPrior, shift: float) -> Posterior:
    """Maximum of the posterior with Student-t errors, by iteratively reweighted least squares.

    Args:
        design: float64 (W, N + 1), derivatives of windows' joules by the scaled unknowns and the shift's change.
        target_j: float64 (W,), joules above idle.
        noise_j: float64 (W,), standard error of each window: the sensor's and the form's.
        prior: Of the unknowns.
        shift: The exponents' shift so far, of which the prior is N(0, `SHIFT_ERROR`²).
    """
    relative, target = design / noise_j[:, None], target_j / noise_j
    precision = np.zeros((design.shape[1],) * 2)
    precision[:-1, :-1], precision[-1, -1] = prior.precision, 1.0
    pull = precision @ np.append(prior.mean, -shift / SHIFT_ERROR)
    weight = np.ones(len(target))
    for _ in range(_MAX_PASSES):
        gram = relative.T @ (relative * weight[:, None]) + precision
        solution = nonnegative_minimum(gram, relative.T @ (weight * target) + pull, num_unbounded=1)
        residual = target - relative @ solution
        before, weight = weight, (_DEGREES + 1) / (_DEGREES + residual**2)
        if np.abs(weight - before).max(initial=0.0) < _SETTLED:
            break
    leverage = before * np.einsum("ij,ij->i", relative @ np.linalg.inv(gram), relative)
    covariance = np.linalg.inv(_EFFICIENCY * gram + (1.0 - _EFFICIENCY) * precision)
    return Posterior(solution, covariance, residual * noise_j, np.minimum(leverage, 1 - 1e-6))


def window_discrepancy(posterior: Posterior, noise_j: _Array, sensor_j: _Array, energy_j: _Array) -> float:
    """Relative error of windows that explains how far those left out are off; 0 if the rest does.

    A window left out errs by ``r / (1 - h)``, r its residual and h its leverage, and its variance is the sensor's, the
    discrepancy's, and the parameters' ``noise² h / (1 - h)``. The discrepancy is where the mean of the squared errors
    over their variances, each up to `_MAX_SQUARE`, is that of a normal distribution (Huber's proposal 2), widened as
    Student's t distribution is by the m degrees of freedom that are left: by m / (m - 2) in variance.
    """
    left = 1.0 - posterior.leverage
    degrees = float(left.sum())
    if degrees < _MIN_DEGREES:
        return 0.0
    square = (posterior.residual_j / left) ** 2
    known = sensor_j**2 + noise_j**2 * posterior.leverage / left
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        ratio = square / (known + (middle * energy_j) ** 2 + 1e-18)
        is_more = np.minimum(ratio, _MAX_SQUARE).mean() > _MEAN_SQUARE
        low, high = (middle, high) if is_more else (low, middle)
    return low * math.sqrt(degrees / (degrees - 2.0))
