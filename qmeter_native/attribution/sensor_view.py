"""What an energy counter sees of the time: it adds up samples of a filtered power, so it weighs moments unevenly.

NVML's counter is no integral on data-centre parts. On an H200 it adds, every 100 ms, five samples 20 ms apart, each
the mean power of 31 ms: of every 20 ms, 11 are seen twice and 9 once (docs/decisions/0012). Work that keeps step with
the samples is seen too often or too seldom: equal windows of a 20-ms pattern read 281 and 387 W. What ran when is known
from the kernels' records, so the estimator can fit what the counter saw instead of what there was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_ticks import CounterTicks
from qmeter_native.devices.sensor_windows import counter_window
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import SensorModel
from qmeter_native.units import NS_PER_S

__all__ = ["SensorView", "SensorWindow"]

_Array = NDArray[Any]

_TICKS_BEYOND: Final = 2
"""The looks go on so far on both sides."""
_SHORTEST_S: Final = 1e-6


@dataclass(frozen=True, slots=True)
class SensorWindow:
    """What a counter looks at: ``window_s`` that end ``lag_s`` before a tick, and so every ``look_s`` before that.

    Attributes:
        tick_s: Between two ticks, at which the counter changes.
        window_s: Length of a look; longer than ``look_s`` where looks overlap.
        lag_s: From a look's end to the tick. A little below 0 where ticks are found a little early.
        look_s: Between two looks, a whole part of a tick; None for one look a tick.
    """

    tick_s: float
    window_s: float
    lag_s: float = 0.0
    look_s: float | None = None

    @classmethod
    def of(cls, device: str, sensor: SensorModel | None = None) -> SensorWindow | None:
        """What is known of a device's counter; None if nothing is, and then it counts as an integral.

        Args:
            device: The vendor's name of it.
            sensor: Its calibrated sensor, if there is one; what it does not tell is taken from parts of that name.
        """
        if sensor is not None:
            known = (sensor.tick_s, sensor.counter_window_s, sensor.counter_lag_s, sensor.counter_look_s)
            tick_s, window_s, lag_s, look_s = (estimate.value for estimate in known)
            if tick_s is not None and window_s is not None:
                return cls(tick_s, window_s, lag_s or 0.0, look_s)
        window = counter_window(device)
        return None if window is None else cls(*window)

    @property
    def num_looks(self) -> int:
        """Looks a tick."""
        return 1 if self.look_s is None else max(1, round(self.tick_s / self.look_s))


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
        num_ticks = len(tick_ns) - 1
        around = np.arange(-_TICKS_BEYOND, num_ticks + _TICKS_BEYOND, 1 / window.num_looks)
        end_ns = _extended(tick_ns, around + 1 / window.num_looks)
        look_ns = end_ns - _extended(tick_ns, around)
        end_ns = end_ns - window.lag_s * NS_PER_S
        length_ns = max(window.window_s, _SHORTEST_S) * NS_PER_S
        time_ns = np.concatenate([end_ns - length_ns, end_ns])
        slope = np.concatenate([look_ns, -look_ns]) / length_ns
        order = np.argsort(time_ns, kind="stable")
        time_ns, slope = time_ns[order], np.cumsum(slope[order])
        seen_ns = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(time_ns))])
        return cls(ticks, window, time_ns, seen_ns - np.interp(0.0, time_ns, seen_ns))

    def seen_ns(self, time_ns: _Array) -> _Array:
        """A monotone map of time: differences are nanoseconds as the counter weighs them.

        Inside a look time counts ``look / window`` times, where looks overlap the sum of that, outside not at all; from
        tick to tick it is the time itself. More than two ticks before the first one and after the last it is the time,
        too.

        Args:
            time_ns: int64, any shape.

        Returns:
            float64, nanoseconds after the first tick.
        """
        since_ns = (time_ns - self.ticks.time_ns[0]).astype(float)
        seen: _Array = np.interp(since_ns, self._time_ns, self._seen_ns)
        before: _Array = np.minimum(since_ns - self._time_ns[0], 0.0)
        after: _Array = np.maximum(since_ns - self._time_ns[-1], 0.0)
        return seen + before + after


def _extended(tick_ns: _Array, number: _Array) -> _Array:
    """Times of ticks of any, also broken, numbers; the first and last distance go on beyond."""
    last = len(tick_ns) - 1
    inside: _Array = np.interp(number, np.arange(len(tick_ns)), tick_ns)
    before: _Array = np.minimum(number, 0.0) * (tick_ns[1] - tick_ns[0])
    after: _Array = np.maximum(number - last, 0.0) * (tick_ns[-1] - tick_ns[-2])
    return inside + before + after
