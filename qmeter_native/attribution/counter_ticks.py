"""When an energy counter ticked, for every tick, whether it was seen or not.

A sampler that polls sees an edge in a bracket some milliseconds wide, and looks for few edges since a poll costs
milliseconds. But the counter ticks like a clock: on an H200 every 99.9995 ms, 2 000 edges in 400 s all within their
brackets of a straight line. So the brackets of many edges, shifted onto one tick, overlap in a sliver in which that
tick must lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.units import NS_PER_S

__all__ = ["CounterTicks"]

_Array = NDArray[Any]

_MIN_EDGES: Final = 6
_REACH: Final = 30
"""Edges to each side that pin a tick: a minute at one edge a second, in which the clocks' drift stays below 0.1 ms."""
_MAX_STRAYS: Final = 0.1
"""Part of the edges that may lie outside of what the clock says before it is none."""


@dataclass(frozen=True, slots=True)
class CounterTicks:
    """The ticks from the first edge that was seen to the last.

    Attributes:
        time_ns: int64 (N,), increasing, one a tick.
        slack_ns: float64 (N,), by how much each may be off to both sides.
        edge_tick: int64 (E,), tick of each edge of the capture's `EnergyTable`, in order of time.
        period_s: Mean time between two ticks.
    """

    time_ns: _Array
    slack_ns: _Array
    edge_tick: _Array
    period_s: float

    @classmethod
    def of(cls, capture: Capture, device: int, tick_s: float) -> CounterTicks | None:
        """Find the ticks of a device's NVML counter.

        Args:
            capture: The capture.
            device: ``DeviceInfo.index``.
            tick_s: About how long a tick is, to 1 %.

        Returns:
            None with fewer than six edges, or if they do not come like a clock's.
        """
        table = capture.energy
        rows = np.flatnonzero((table.device == device) & (table.source == EnergySource.NVML_TOTAL_ENERGY))
        rows = rows[np.argsort(table.high_ns[rows], kind="stable")]
        if len(rows) < _MIN_EDGES:
            return None
        origin_ns = int(table.low_ns[rows[0]])
        low_ns = (table.low_ns[rows] - origin_ns).astype(float)
        high_ns = (table.high_ns[rows] - origin_ns).astype(float)
        edge_tick = _numbers((low_ns + high_ns) / 2, tick_s * NS_PER_S)
        if edge_tick[-1] == 0:
            return None
        period_ns, first_ns = np.polyfit(edge_tick, (low_ns + high_ns) / 2, 1)
        clock_ns = first_ns + period_ns * edge_tick
        shift_ns, slack_ns = _pinned(low_ns - clock_ns, high_ns - clock_ns)
        is_stray = (clock_ns + shift_ns < low_ns - slack_ns) | (clock_ns + shift_ns > high_ns + slack_ns)
        if is_stray.mean() > _MAX_STRAYS:
            return None
        ticks = np.arange(edge_tick[-1] + 1)
        time_ns = first_ns + period_ns * ticks + np.interp(ticks, edge_tick, shift_ns)
        return cls(
            time_ns=origin_ns + np.round(time_ns).astype(np.int64),
            slack_ns=np.interp(ticks, edge_tick, slack_ns),
            edge_tick=edge_tick,
            period_s=float(period_ns) / NS_PER_S,
        )


def _numbers(time_ns: _Array, tick_ns: float) -> _Array:
    """Ticks from the first edge to each: gaps are rounded one by one, so that an error of the period does not grow."""
    gaps = np.maximum(np.round(np.diff(time_ns) / tick_ns), 0)
    return np.concatenate([[0], np.cumsum(gaps)]).astype(np.int64)


def _pinned(low_ns: _Array, high_ns: _Array) -> tuple[_Array, _Array]:
    """Where the clock stands to its straight line at each edge, and its slack, from the brackets of its neighbours.

    The middle of what all brackets have in common; where they have nothing in common, which is drift or a late poll,
    half of what they lack is added to the slack.
    """
    reach = min(_REACH, len(low_ns) - 1)

    def around(values: _Array) -> _Array:
        return sliding_window_view(np.pad(values, reach, mode="edge"), 2 * reach + 1)

    highest_low, lowest_high = around(low_ns).max(axis=1), around(high_ns).min(axis=1)
    return (highest_low + lowest_high) / 2, np.abs(lowest_high - highest_low) / 2
