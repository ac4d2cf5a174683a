"""Kernel classes that measured energy cannot tell apart, put into groups."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_HALF_WIDTH", "collinear_groups"]

_Array = NDArray[Any]

MAX_HALF_WIDTH: Final = 0.30
"""Half-width of a 95 % interval over its value, up to which a class counts as resolved."""
_Z95: Final = 1.96


def collinear_groups(value: _Array, covariance: _Array) -> tuple[_Array, _Array]:
    """Groups of classes of which only the sum is known, and which classes are resolved.

    A class is resolved if the half-width of its 95 % interval is at most `MAX_HALF_WIDTH` of its value. Of the others,
    the one known worst in absolute terms is merged with the other whose covariance with it is most negative relative
    to both errors: the sum of the two is known best. That goes on with the sums until each is known well enough or
    all that are not are one group. A resolved class is never drawn into a group: its own interval says enough.

    Args:
        value: float64 (C,), joules of each class in the run.
        covariance: float64 (C, C), of the values.

    Returns:
        Number of each class's group, int64 (C,), the lowest class in it; and bool (C,), whether it is resolved.
    """
    group = np.arange(len(value))
    is_resolved = _half_width(value, np.diag(covariance)) <= MAX_HALF_WIDTH
    value, covariance = value.copy(), covariance.copy()
    is_open = ~is_resolved
    while is_open.sum() > 1:
        candidates = np.flatnonzero(is_open)
        variance = np.diag(covariance)
        worst = candidates[np.argmax(variance[candidates])]
        others = candidates[candidates != worst]
        error = np.sqrt(np.maximum(variance[others] * variance[worst], np.finfo(float).tiny))
        partner = others[np.argmin(covariance[worst, others] / error)]
        kept, gone = min(worst, partner), max(worst, partner)
        value[kept] += value[gone]
        covariance[kept] += covariance[gone]
        covariance[:, kept] += covariance[:, gone]
        group[group == gone] = kept
        is_open[gone] = False
        is_open[kept] = _half_width(value[kept], covariance[kept, kept]) > MAX_HALF_WIDTH
    return group, is_resolved


def _half_width(value: _Array, variance: _Array) -> _Array:
    """Relative half-width of 95 % intervals; infinite where the value is 0."""
    half = _Z95 * np.sqrt(np.maximum(variance, 0.0))
    return np.asarray(np.divide(half, value, out=np.full_like(half, np.inf), where=np.asarray(value) > 0))
