"""What an energy counter sees of the time: it adds up samples of a filtered power, so it weighs moments unevenly.

NVML's counter is no integral on data-centre parts. On an H200 it adds, each 100 ms, five samples 20 ms apart of a power
that went through a low-pass of 16 ms: what ran just before a sample counts 3.5 times as much as what ran just after
one (docs/decisions/0012). Work that keeps step with the samples is seen too often or too seldom: equal windows of a
20-ms pattern read 281 and 387 W. What ran when is known from the kernels' records, so the estimator can fit what the
counter saw instead of what there was.
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

__all__ = ["LOOKS_BEYOND", "SensorView", "SensorWindow"]

_Array = NDArray[Any]

LOOKS_BEYOND: Final = 2
"""The looks go on so far on both sides, for lags."""
_SHORTEST_S: Final = 1e-6


@dataclass(frozen=True, slots=True)
class SensorWindow:
    """How a counter samples power: a look reads a first-order low-pass of it, a tick adds its looks up.

    Attributes:
        tick_s: Between two ticks, at which the counter changes.
        look_s: Between two looks, a whole part of a tick.
        time_constant_s: Of the low-pass: work counts less by e where it is earlier by so much. Far longer than
            ``look_s``, and the counter is an integral.
        lag_s: From a look to its tick. A little below 0 where ticks are found a little early.
    """

    tick_s: float
    look_s: float
    time_constant_s: float
    lag_s: float = 0.0

    @classmethod
    def of(cls, device: str, sensor: SensorModel | None = None) -> SensorWindow | None:
        """What is known of a device's counter; None if nothing is, and then it counts as an integral.

        Args:
            device: The vendor's name of it.
            sensor: Its calibrated sensor, if there is one; what it does not tell is taken from parts of that name.
        """
        if sensor is not None:
            known = (sensor.tick_s, sensor.counter_look_s, sensor.counter_time_constant_s, sensor.counter_lag_s)
            tick_s, look_s, time_constant_s, lag_s = (estimate.value for estimate in known)
            if tick_s is not None and look_s is not None and time_constant_s is not None:
                return cls(tick_s, look_s, time_constant_s, lag_s or 0.0)
        window = counter_window(device)
        return None if window is None else cls(*window)

    @property
    def num_looks(self) -> int:
        """Looks a tick."""
        return max(1, round(self.tick_s / self.look_s))


@dataclass(frozen=True, slots=True)
class SensorView:
    """Time as a counter weighs it.

    Attributes:
        ticks: When it ticked.
        window: How it samples power.
        look_ns: float64, its looks, nanoseconds after the first tick; the last one of tick k is number
            ``LOOKS_BEYOND + k * window.num_looks``.
    """

    ticks: CounterTicks
    window: SensorWindow
    look_ns: _Array

    @classmethod
    def of(cls, capture: Capture, device: int, window: SensorWindow) -> SensorView | None:
        """The view of a device's counter; None if its ticks are not those of a clock."""
        ticks = CounterTicks.of(capture, device, window.tick_s)
        return None if ticks is None or len(ticks.time_ns) < 2 else cls.through(ticks, window)

    @classmethod
    def through(cls, ticks: CounterTicks, window: SensorWindow) -> SensorView:
        """The view through ``window`` at known ticks."""
        tick_ns = (ticks.time_ns - ticks.time_ns[0]).astype(float)
        last = len(tick_ns) - 1
        number = np.arange(-LOOKS_BEYOND, last * window.num_looks + LOOKS_BEYOND + 1) / window.num_looks
        look_ns = np.interp(number, np.arange(last + 1), tick_ns)
        look_ns += np.minimum(number, 0.0) * (tick_ns[1] - tick_ns[0])
        look_ns += np.maximum(number - last, 0.0) * (tick_ns[-1] - tick_ns[-2])
        return cls(ticks, window, look_ns - window.lag_s * NS_PER_S)

    def seen_ns(self, time_ns: _Array) -> _Array:
        """A monotone map of time: differences are nanoseconds as the counter weighs them.

        From look to look it is the time itself, and in between ``exp((t - look) / time constant)``, scaled to that: by
        so much a look and all later ones see of the moment ``t``, if the power before was like that after. Before the
        first look and after the last it is the time, too.

        Args:
            time_ns: int64, any shape.

        Returns:
            float64, nanoseconds after the first tick.
        """
        since_ns = (time_ns - self.ticks.time_ns[0]).astype(float)
        after = np.clip(np.searchsorted(self.look_ns, since_ns), 1, len(self.look_ns) - 1)
        begin_ns, end_ns = self.look_ns[after - 1], self.look_ns[after]
        constant_ns = max(self.window.time_constant_s, _SHORTEST_S) * NS_PER_S
        left = np.exp((begin_ns - end_ns) / constant_ns)
        share = (np.exp((np.clip(since_ns, begin_ns, end_ns) - end_ns) / constant_ns) - left) / (1.0 - left)
        beyond_ns = np.minimum(since_ns - self.look_ns[0], 0.0) + np.maximum(since_ns - self.look_ns[-1], 0.0)
        seen: _Array = begin_ns + share * (end_ns - begin_ns) + beyond_ns
        return seen
