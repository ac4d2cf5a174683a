"""What an energy counter sees of the time: at each tick it may look at only the last part of it.

NVML's counter is no integral on data-centre parts. On an H200 each tick of 100 ms adds 100 ms times the mean power of
its last 27 ms (25 of 100 ms on A100 and H100: Yang, Adámek and Armour, SC'24). Work that keeps step with the ticks is
seen too often or too seldom: equal windows of a 20-ms pattern read 281 and 387 W. What ran when is known from the
kernels' records, so the estimator can fit what the counter saw instead of what there was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_ticks import CounterTicks
from qmeter_native.model.capture import Capture
from qmeter_native.units import NS_PER_S

__all__ = ["SensorView", "SensorWindow"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class SensorWindow:
    """What of a tick a counter looks at: ``window_s`` that end ``lag_s`` before the tick.

    Attributes:
        tick_s: Between two ticks.
        window_s: Length of the look; at most the tick less the lag.
        lag_s: Not negative.
    """

    tick_s: float
    window_s: float
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SensorView:
    """Time as a counter weighs it.

    Attributes:
        ticks: When it ticked.
        window: What it looks at.
    """

    ticks: CounterTicks
    window: SensorWindow
    _time_ns: _Array
    _seen_ns: _Array

    @classmethod
    def of(cls, capture: Capture, device: int, window: SensorWindow) -> SensorView | None:
        """The view of a device's counter; None if its ticks are not those of a clock."""
        ticks = CounterTicks.of(capture, device, window.tick_s)
        return None if ticks is None or len(ticks.time_ns) < 2 else cls.through(ticks, window)

    @classmethod
    def through(cls, ticks: CounterTicks, window: SensorWindow) -> SensorView:
        """The view through ``window`` at known ticks."""
        tick_ns = (ticks.time_ns - ticks.time_ns[0]).astype(float)
        lag_ns = min(max(window.lag_s, 0.0), 0.5 * window.tick_s) * NS_PER_S
        length_ns = np.minimum(window.window_s * NS_PER_S, np.diff(tick_ns) - lag_ns)
        look_end_ns = tick_ns[1:] - lag_ns
        knots_ns = np.column_stack([look_end_ns - length_ns, look_end_ns]).ravel()
        seen_ns = np.column_stack([tick_ns[:-1], tick_ns[1:]]).ravel()
        return cls(ticks, window, np.append(knots_ns, tick_ns[-1]), np.append(seen_ns, tick_ns[-1]))

    def seen_ns(self, time_ns: _Array) -> _Array:
        """A monotone map of time: differences are nanoseconds as the counter weighs them.

        Inside a look time counts ``tick / window`` times, outside not at all; from tick to tick it is the time itself.
        Before the first tick and after the last it is the time, too.

        Args:
            time_ns: int64, any shape.

        Returns:
            float64, nanoseconds after the first tick.
        """
        since_ns = (time_ns - self.ticks.time_ns[0]).astype(float)
        seen: _Array = np.interp(since_ns, self._time_ns, self._seen_ns)
        beyond: _Array = np.minimum(since_ns, 0.0) + np.maximum(since_ns - self._time_ns[-1], 0.0)
        return seen + beyond
