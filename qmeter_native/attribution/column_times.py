"""What ran in each energy window, by the estimator's columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_classes import EnergyClasses
from qmeter_native.units import NS_PER_S

__all__ = ["ColumnTimes"]

_Array = NDArray[Any]


class ColumnTimes:
    """Launches and time of each column (C) in each part of an energy window (W), added up kernel by kernel."""

    def __init__(self, num_windows: int, classes: EnergyClasses) -> None:
        self.classes = classes
        self._shape = (num_windows, classes.count)
        self._launches, self._time_ns = np.zeros((2, num_windows * classes.count))
        self._seen_launches, self._seen_ns = np.zeros((2, num_windows * classes.count))

    def cell(self, window: _Array, class_id: _Array) -> _Array:
        """int64, where kernels of a class in a window are added."""
        return np.asarray(window * self._shape[1] + self.classes.column[class_id])

    def add(self, cell: _Array, launches: _Array, shared_ns: _Array) -> None:
        """Add parts: what part of a launch each is, and the nanoseconds that it was given."""
        self._launches += np.bincount(cell, launches, len(self._launches))
        self._time_ns += np.bincount(cell, shared_ns, len(self._time_ns))

    def add_seen(self, cell: _Array, launches: _Array, shared_ns: _Array) -> None:
        """Add what the sensor saw of the same parts."""
        self._seen_launches += np.bincount(cell, launches, len(self._seen_launches))
        self._seen_ns += np.bincount(cell, shared_ns, len(self._seen_ns))

    @property
    def time_s(self) -> _Array:
        """float64 (W, C)."""
        return np.asarray(self._time_ns.reshape(self._shape) / NS_PER_S)

    @property
    def is_launch(self) -> _Array:
        """Mask (C,): a unit is a launch; of pools and of classes with unlike launches it is time over mean time."""
        return np.asarray(self.classes.is_own & ~self.classes.is_varied)

    def units(self) -> tuple[_Array, _Array]:
        """Units of each window, float64 (W, C), and the seconds of one, float64 (C,)."""
        launches, time_s = self._launches.reshape(self._shape), self.time_s
        total, total_s = launches.sum(axis=0), time_s.sum(axis=0)
        unit_s = np.divide(total_s, total, out=np.zeros(len(total)), where=total > 0)
        counted = np.divide(time_s, unit_s, out=np.zeros_like(time_s), where=unit_s > 0)
        return np.where(self.is_launch, launches, counted), unit_s

    def seen_units(self) -> _Array:
        """Units of each window as the sensor saw them, float64 (W, C); zeros if nobody told (`add_seen`)."""
        _, unit_s = self.units()
        seen_s = self._seen_ns.reshape(self._shape) / NS_PER_S
        counted = np.divide(seen_s, unit_s, out=np.zeros_like(seen_s), where=unit_s > 0)
        return np.where(self.is_launch, self._seen_launches.reshape(self._shape), counted)
