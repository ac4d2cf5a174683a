"""Windows alike in what they spend are wrong alike: how that widens what many windows seem to know.

What the form of a power model cannot follow, it cannot follow in any window of one mixture: of that, a thousand such
windows say no more than one. The discrepancy is therefore taken as a Gaussian process over mixtures (Kennedy and
O'Hagan, 2001), and the covariance of what was fitted as though windows were independent gets the part that they share
(the "sandwich" of Huber, 1967).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["likeness", "shared_covariance"]

_Array = NDArray[Any]

_REACH: Final = 0.1
"""Distance of two windows, in parts of their energy and of their clock, at which their errors correlate by 0.6."""


def likeness(parts_j: _Array, clock: _Array) -> _Array:
    """Correlation of the discrepancies of windows, float64 (W, W), by what they spend their energy on.

    Args:
        parts_j: float64 (W, P), joules of each part, such as idle, active and each class.
        clock: float64 (W,), over the reference.
    """
    total_j = np.maximum(parts_j.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    place = np.column_stack([parts_j / total_j, clock]) / _REACH
    square = (place**2).sum(axis=1)
    distance = np.maximum(square[:, None] + square - 2 * place @ place.T, 0.0)
    return np.asarray(np.exp(-distance / 2))


def shared_covariance(gain: _Array, discrepancy_j: _Array, alike: _Array) -> _Array:
    """What shared discrepancies add to the covariance of the unknowns, float64 (N, N).

    Args:
        gain: float64 (N, W), by how much the unknowns move with each window's energy.
        discrepancy_j: float64 (W,), standard deviation of each window's discrepancy, which was counted as independent.
        alike: float64 (W, W), their correlation.
    """
    weighted = gain * discrepancy_j
    return np.asarray(weighted @ (alike @ weighted.T) - weighted @ weighted.T)
