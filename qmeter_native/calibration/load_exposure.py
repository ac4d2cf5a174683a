"""What ran in windows of load, as it was and as the energy counter saw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.sensor_view import SensorView
from qmeter_native.model.tables import KernelTable
from qmeter_native.units import NS_PER_S

__all__ = ["LoadExposure", "on_ticks", "seen_busy_s"]

_Array = NDArray[Any]

_TICK_REACH: Final = 0.25
"""Part of a tick by which the middle of a bracket may miss it."""


@dataclass(frozen=True, slots=True)
class LoadExposure:
    """Launches of each kind (C) in each window (W); kernels that a bound cuts count in part.

    Attributes:
        units: float64 (W, C), launches.
        time_s: float64 (W, C), their seconds.
        seen_units: float64 (W, C), launches as the counter weighs their time; None if it weighs all alike.
        seen_busy_s: float64 (W,), time with any kernel likewise.
    """

    units: _Array
    time_s: _Array
    seen_units: _Array | None
    seen_busy_s: _Array | None

    @classmethod
    def of(
        cls, kernels: KernelTable, bounds_ns: _Array, kind_of_class: _Array, num_kinds: int, view: SensorView | None
    ) -> LoadExposure:
        """Of one device's kernels, in order of their starts.

        Args:
            kernels: The device's.
            bounds_ns: int64 (W, 2).
            kind_of_class: int64, kind of each class of the capture; -1 for none.
            num_kinds: C.
            view: How the counter weighs time; None if all alike.
        """
        units, time_s, seen_units = np.zeros((3, len(bounds_ns), num_kinds))
        latest_ns = np.maximum.accumulate(kernels.end_ns) if len(kernels) else kernels.end_ns
        for number, (start_ns, end_ns) in enumerate(bounds_ns):
            first = int(np.searchsorted(latest_ns, start_ns, "right"))
            inside = kernels.slice(first, int(np.searchsorted(kernels.start_ns, end_ns)))
            kind = kind_of_class[inside.class_id]
            inside, kind = inside.take(np.flatnonzero(kind >= 0)), kind[kind >= 0]
            length_ns = np.maximum(inside.end_ns - inside.start_ns, 1)
            begin, end = np.maximum(inside.start_ns, start_ns), np.minimum(inside.end_ns, end_ns)
            end = np.maximum(begin, end)
            units[number] = np.bincount(kind, (end - begin) / length_ns, num_kinds)
            time_s[number] = np.bincount(kind, (end - begin) / NS_PER_S, num_kinds)
            if view is not None:
                seen_units[number] = np.bincount(kind, (view.seen_ns(end) - view.seen_ns(begin)) / length_ns, num_kinds)
        if view is None:
            return cls(units, time_s, None, None)
        return cls(
            units, time_s, seen_units, seen_busy_s(Intervals.of(kernels.start_ns, kernels.end_ns), bounds_ns, view)
        )


def seen_busy_s(busy: Intervals, bounds_ns: _Array, view: SensorView) -> _Array:
    """Seconds of ``busy`` between bounds, int64 (W, 2), as a counter weighs them; float64 (W,)."""
    if len(busy) == 0:
        return np.zeros(len(bounds_ns))
    start, end = view.seen_ns(busy.start_ns), view.seen_ns(busy.end_ns)
    until = np.cumsum(end - start)
    total = np.interp(
        view.seen_ns(bounds_ns),
        np.column_stack([start, end]).ravel(),
        np.column_stack([until - (end - start), until]).ravel(),
    )
    return np.asarray(np.diff(total, axis=1)[:, 0] / NS_PER_S)


def on_ticks(time_ns: _Array, view: SensorView) -> _Array:
    """Times near a tick, such as the middles of brackets, moved onto it; others as they are."""
    ticks_ns = view.ticks.time_ns
    after = np.clip(np.searchsorted(ticks_ns, time_ns), 1, len(ticks_ns) - 1)
    is_before_nearer = time_ns - ticks_ns[after - 1] <= ticks_ns[after] - time_ns
    nearest_ns = ticks_ns[np.where(is_before_nearer, after - 1, after)]
    is_near = np.abs(nearest_ns - time_ns) <= _TICK_REACH * view.ticks.period_s * NS_PER_S
    return np.where(is_near, nearest_ns, time_ns)
