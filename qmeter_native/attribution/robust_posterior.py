"""Robust, non-negative least squares with a prior, and how far observations err that it did not see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.nonnegative import nonnegative_minimum

__all__ = ["Posterior", "left_out_spread", "robust_posterior"]

_Array = NDArray[Any]

_DEGREES: Final = 4.0
"""Of freedom of Student's t distribution of errors: robust, and hardly less efficient if they are normal."""
_EFFICIENCY: Final = 0.879
"""Information of a normal observation under such weights, over the mean weight: ``E[ψ']² / (E[ψ²] E[w])``
with ``w = 5 / (4 + r²)`` and ``ψ = w r`` (Huber, Robust Statistics, 1981, chapter 6). The Gram matrix alone would give
errors that are 7 % too small."""
_MAX_PASSES: Final = 30
_SETTLED: Final = 1e-4
"""Change of weights at which reweighting ends."""
_MAX_SQUARE: Final = 6.25
"""Squared errors, over their variance, count up to here for the spread: 2.5 standard errors, beyond which
1.2 % of a normal distribution lie."""
_MEAN_SQUARE: Final = 0.9776
"""Their mean then, of a normal distribution."""
_MIN_DEGREES: Final = 4.0
"""Observations less unknowns; fewer say little of their own spread."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """Unknowns (N), given observations (M).

    Attributes:
        solution: float64 (N,), the most probable.
        covariance: float64 (N, N), as though none were at its bound.
        residual: float64 (M,), observed less predicted.
        leverage: float64 (M,), diagonal of the hat matrix: how far an observation moves its own prediction.
        gain: float64 (N, M), by how much the unknowns move with each observation.
    """

    solution: _Array
    covariance: _Array
    residual: _Array
    leverage: _Array
    gain: _Array

    @property
    def left_out(self) -> _Array:
        """float64 (M,), residual of each observation from what the others predict (Cook and Weisberg, 1982)."""
        return np.asarray(self.residual / (1.0 - self.leverage))


def robust_posterior(
    design: _Array, target: _Array, noise: _Array, mean: _Array, precision: _Array, num_unbounded: int = 0
) -> Posterior:
    """Maximum of the posterior with Student-t errors, by iteratively reweighted least squares.

    Args:
        design: float64 (M, N), derivatives of the observations by the unknowns.
        target: float64 (M,), observed.
        noise: float64 (M,), standard error of each observation, positive.
        mean: float64 (N,), of the unknowns' normal prior; they are best scaled to be about 1.
        precision: float64 (N, N), its inverse covariance.
        num_unbounded: How many unknowns, the last ones, may be negative.
    """
    relative, observed = design / noise[:, None], target / noise
    pull = precision @ mean
    weight = np.ones(len(target))
    for _ in range(_MAX_PASSES):
        gram = relative.T @ (relative * weight[:, None]) + precision
        solution = nonnegative_minimum(gram, relative.T @ (weight * observed) + pull, num_unbounded)
        residual = observed - relative @ solution
        before, weight = weight, (_DEGREES + 1) / (_DEGREES + residual**2)
        if np.abs(weight - before).max(initial=0.0) < _SETTLED:
            break
    pull_of_each = np.linalg.inv(gram) @ relative.T
    leverage = before * np.einsum("ij,ji->i", relative, pull_of_each)
    gain = pull_of_each * np.minimum(before, 1.0) / noise
    covariance = np.linalg.inv(_EFFICIENCY * gram + (1.0 - _EFFICIENCY) * precision)
    return Posterior(solution, covariance, residual * noise, np.minimum(leverage, 1 - 1e-6), gain)


def left_out_spread(posterior: Posterior, noise: _Array, known: _Array, size: _Array) -> float | None:
    """Standard deviation over ``size`` that explains how far observations left out are off.

    0 if the rest explains it; None if there are hardly more observations than unknowns.

    An observation left out errs by ``r / (1 - h)``, r its residual and h its leverage, and its variance is its own
    known one, the spread's, and the unknowns' ``noise² h / (1 - h)``. The spread is where the mean of the squared
    errors over their variances, each up to `_MAX_SQUARE`, is that of a normal distribution (Huber's proposal 2),
    widened as Student's t distribution is by the m degrees of freedom that are left: by m / (m - 2) in variance.
    Observations count by ``1 - h``: one that alone determines an unknown says nothing.

    Args:
        posterior: With its residuals.
        noise: float64 (M,), standard errors that it was fitted with.
        known: float64 (M,), the part of them that is known.
        size: float64 (M,), what the spread is relative to, such as the observed values.
    """
    left = 1.0 - posterior.leverage
    degrees = float(left.sum())
    if degrees < _MIN_DEGREES:
        return None
    square = posterior.left_out**2
    variance = known**2 + noise**2 * posterior.leverage / left
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        ratio = square / (variance + (middle * size) ** 2 + np.finfo(float).tiny)
        is_more = left @ np.minimum(ratio, _MAX_SQUARE) > _MEAN_SQUARE * degrees
        low, high = (middle, high) if is_more else (low, middle)
    return low * math.sqrt(degrees / (degrees - 2.0))
