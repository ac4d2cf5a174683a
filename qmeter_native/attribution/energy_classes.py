"""Kernel classes as the energy estimator tells them apart: few enough to be solved for, each with how it is counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.units import NS_PER_S

__all__ = ["EnergyClasses"]

_Array = NDArray[Any]

_MIN_SHARE: Final = 5e-4
"""Part of kernels' time below which a class shares a column with others of its family."""
_MAX_OWN: Final = 480
"""Columns of single classes: with a pool for each family about 500 unknowns, solved in a tenth of a second."""
_VARIED: Final = 0.25
"""Standard deviation over mean of launches' durations above which launches are not alike: time counts, not launches."""


@dataclass(frozen=True, slots=True)
class EnergyClasses:
    """Columns of the estimator (C), each one kernel class or a pool of rare ones of one family.

    Attributes:
        column: int64, one entry a row of `KernelClassTable`: its column.
        is_own: bool (C,), the column is one kernel class alone.
        is_meter: bool (C,), the column is qmeter-native's own markers.
        is_varied: bool (C,), its units are time over mean time, not launches.
        launches: int64, launches by kernel class.
        mean_s: float64, mean duration by kernel class; 0 of none.
    """

    column: _Array
    is_own: _Array
    is_meter: _Array
    is_varied: _Array
    launches: _Array
    mean_s: _Array

    @classmethod
    def of(cls, class_id: _Array, duration_ns: _Array, family: _Array, is_meter: _Array) -> EnergyClasses:
        """Columns for the kernels of one device.

        Args:
            class_id: int32, kernel class of each kernel.
            duration_ns: int64, how long each ran.
            family: int64, family of each kernel class, as a number.
            is_meter: Mask of the kernel classes that are markers; they share one column.
        """
        launches = np.bincount(class_id, minlength=len(family))
        total_ns = np.bincount(class_id, duration_ns, len(family))
        square = np.bincount(class_id, duration_ns.astype(float) ** 2, len(family))
        column, is_own = _columns(total_ns, family, is_meter)
        count = len(is_own)
        meter = np.zeros(count, bool)
        meter[column[is_meter]] = True
        return cls(
            column=column,
            is_own=is_own,
            is_meter=meter,
            is_varied=_is_varied(*(np.bincount(column, each, count) for each in (launches, total_ns, square))),
            launches=launches,
            mean_s=total_ns / np.maximum(launches, 1) / NS_PER_S,
        )

    @property
    def count(self) -> int:
        """C."""
        return len(self.is_own)


def _columns(total_ns: _Array, family: _Array, is_meter: _Array) -> tuple[_Array, _Array]:
    """Column of each kernel class, and whether a column is one class alone; those come first, most time first."""
    share = total_ns / max(float(total_ns.sum()), 1.0)
    ranked = np.argsort(-share, kind="stable")
    own = ranked[(share[ranked] >= _MIN_SHARE) & ~is_meter[ranked]][:_MAX_OWN]
    is_own = np.zeros(len(family), bool)
    is_own[own] = True
    pools, pool = np.unique(family[~is_own], return_inverse=True)
    column = np.empty(len(family), np.int64)
    column[own] = np.arange(len(own))
    column[~is_own] = len(own) + pool
    return column, np.arange(len(own) + len(pools)) < len(own)


def _is_varied(launches: _Array, total_ns: _Array, square: _Array) -> _Array:
    mean = total_ns / np.maximum(launches, 1)
    variance = np.maximum(square / np.maximum(launches, 1) - mean**2, 0.0)
    varied: _Array = np.sqrt(variance) > _VARIED * mean
    return varied
