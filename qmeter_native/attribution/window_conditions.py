"""What a device's clocks and temperature were in each energy window, and where its power limit held it down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.timeline import BusyTime
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo

__all__ = ["WindowConditions", "mean_temperature"]

_Array = NDArray[Any]

_REACH_NS: Final = 1_000_000
"""A clock reading counts as taken under load if kernels ran for half of the 2 ms around it."""
_READ_NS: Final = 100_000_000
_LONGEST_HOLD_NS: Final = 1_200_000_000
"""Clocks are read so often, and recorded when they change, at the latest after a second."""
_MIN_CAPPED: Final = 0.05
"""Part of a window in which the power limit held clocks down, from which it counts as capped."""
_POWER_REASONS: Final = 0x4 | 0x80
"""NVML's clock event reasons SW power cap and HW power brake slowdown."""


@dataclass(frozen=True, slots=True)
class WindowConditions:
    """One entry an energy window.

    Attributes:
        clock_mhz: float64, mean SM clock under load; None if it was not read.
        temperature_c: float64, mean; None if it was not read.
        is_capped: Mask, the power limit held clocks down in more than 5 % of the window.
    """

    clock_mhz: _Array | None
    temperature_c: _Array | None
    is_capped: _Array

    @classmethod
    def of(cls, capture: Capture, device: DeviceInfo, cuts_ns: _Array, busy: BusyTime) -> WindowConditions:
        """Of the windows between ``cuts_ns``; windows without a reading take the nearest ones'."""
        clocks = capture.clocks
        rows = np.flatnonzero(clocks.device == device.index)
        rows = rows[np.argsort(clocks.time_ns[rows], kind="stable")]
        time_ns, row = _readings(clocks.time_ns[rows])
        rows = rows[row]
        mhz, celsius = clocks.sm_mhz[rows], clocks.temperature_c[rows]
        loaded = busy.between(time_ns - _REACH_NS, time_ns + _REACH_NS) >= _REACH_NS
        is_clock, is_warm = mhz > 0, celsius > 0
        if (is_clock & loaded).any():
            is_clock &= loaded
        return cls(
            clock_mhz=_means(time_ns[is_clock], mhz[is_clock], cuts_ns),
            temperature_c=_means(time_ns[is_warm], celsius[is_warm], cuts_ns),
            is_capped=_capped(capture, device, cuts_ns, time_ns, clocks.throttle_reasons[rows]),
        )


def mean_temperature(capture: Capture, device: DeviceInfo, start_ns: int, end_ns: int) -> float | None:
    """Mean of the temperature readings in a stretch of time; None without any."""
    clocks = capture.clocks
    is_read = (clocks.device == device.index) & (clocks.time_ns >= start_ns) & (clocks.time_ns < end_ns)
    readings = clocks.temperature_c[is_read & (clocks.temperature_c > 0)]
    return float(readings.mean()) if len(readings) else None


def _readings(row_ns: _Array) -> tuple[_Array, _Array]:
    """Times of readings and the row that each is of: rows hold only readings that differ from the one before."""
    gap_ns = np.minimum(np.diff(row_ns, append=row_ns[-1:] + 1), _LONGEST_HOLD_NS)
    count = np.maximum(-(-gap_ns // _READ_NS), 1)
    row = np.repeat(np.arange(len(row_ns)), count)
    number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return row_ns[row] + number * _READ_NS, row


def _means(time_ns: _Array, value: _Array, cuts_ns: _Array) -> _Array | None:
    """Mean of the readings in each window; where there are none, interpolated in time. None without any reading."""
    if len(value) == 0:
        return None
    window = np.searchsorted(cuts_ns, time_ns, "right") - 1
    count = len(cuts_ns) - 1
    inside = (window >= 0) & (window < count)
    number = np.bincount(window[inside], minlength=count)
    total = np.bincount(window[inside], value[inside], count)
    middle = cuts_ns[:-1] + np.diff(cuts_ns) // 2
    nearby = np.interp((middle - cuts_ns[0]).astype(float), (time_ns - cuts_ns[0]).astype(float), value)
    return np.where(number > 0, total / np.maximum(number, 1), nearby)


def _capped(capture: Capture, device: DeviceInfo, cuts_ns: _Array, time_ns: _Array, reasons: _Array) -> _Array:
    """By NVML's cumulative throttle time where it was read, else by the sampled bits."""
    throttles = capture.throttles
    rows = np.flatnonzero((throttles.device == device.index) & (throttles.power_ns >= 0))
    read_ns, first = np.unique(throttles.time_ns[rows], return_index=True)
    if len(read_ns) > 1:
        origin = int(cuts_ns[0])
        held_ns = throttles.power_ns[rows[first]].astype(float)
        at_cuts = np.interp((cuts_ns - origin).astype(float), (read_ns - origin).astype(float), held_ns)
        return np.asarray(np.diff(at_cuts) > _MIN_CAPPED * np.diff(cuts_ns))
    share = _means(time_ns, ((reasons & np.uint64(_POWER_REASONS)) != 0).astype(float), cuts_ns)
    return np.zeros(len(cuts_ns) - 1, bool) if share is None else share > _MIN_CAPPED
