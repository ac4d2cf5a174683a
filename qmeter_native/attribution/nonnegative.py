"""Least squares with no negative unknown, from a Gram matrix."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["nonnegative_minimum"]

_Array = NDArray[Any]

_PATIENCE: Final = 3
"""Exchanges of whole blocks that may fail to lower the number of violations before single ones are exchanged."""


def nonnegative_minimum(gram: _Array, linear: _Array, num_unbounded: int = 0) -> _Array:
    """The ``z``, all but the last ``num_unbounded`` of it ``>= 0``, that minimises ``z'Gz / 2 - b'z``, exactly.

    An active-set method with exchanges of whole blocks (Portugal, Júdice and Vicente, 1994; Lawson and Hanson, 1974,
    exchange one unknown at a time): unknowns are free or at zero, the free ones solve their own equations, and those
    that come out negative, or at zero would rather grow, change sides. Where blocks do not settle, single exchanges
    (Murty's rule) do, as G is positive definite. Rounding could make them go round in circles where G nearly is not;
    they are given up after ``10 n + 100`` exchanges, with what is below zero put there.

    Args:
        gram: float64 (n, n), symmetric positive definite, best with a diagonal of one order of magnitude.
        linear: float64 (n,), b.
        num_unbounded: How many unknowns, the last ones, may be negative.
    """
    is_free = np.ones(len(linear), bool)
    tolerance = 1e-10 * max(1.0, float(np.abs(linear).max(initial=0.0)))
    is_bounded = np.arange(len(linear)) < len(linear) - num_unbounded
    fewest, patience = len(linear) + 1, _PATIENCE
    for _ in range(10 * len(linear) + 100):
        solution = np.zeros(len(linear))
        if is_free.any():
            solution[is_free] = np.linalg.solve(gram[np.ix_(is_free, is_free)], linear[is_free])
        pull = linear - gram @ solution
        is_wrong = np.where(is_free, is_bounded & (solution < 0.0), pull > tolerance)
        num_wrong = int(is_wrong.sum())
        if num_wrong == 0:
            break
        if num_wrong < fewest:
            fewest, patience = num_wrong, _PATIENCE
        elif patience > 0:
            patience -= 1
        else:
            is_wrong[: int(np.flatnonzero(is_wrong)[-1])] = False
        is_free ^= is_wrong
    return np.where(is_bounded, np.maximum(solution, 0.0), solution)
