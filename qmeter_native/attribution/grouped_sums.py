"""Sums by group along the last axis of an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["grouped_sums"]

_Array = NDArray[Any]


def grouped_sums(values: _Array, group: _Array, count: int) -> _Array:
    """Sums ``(…, count)`` of ``values`` ``(…, n)``, in their dtype; ``group`` ``(n,)`` is int64 below ``count``."""
    totals = np.zeros((*values.shape[:-1], count), values.dtype)
    np.add.at(totals.T, group, values.T)
    return totals
