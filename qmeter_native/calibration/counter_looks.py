"""How an energy counter samples power: how often it looks, through which low-pass; from known waves of load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_ticks import CounterTicks
from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.sensor_view import LOOKS_BEYOND, SensorView, SensorWindow
from qmeter_native.attribution.timeline import BusyTime
from qmeter_native.calibration.load_exposure import seen_busy_s
from qmeter_native.model.estimate import Estimate

__all__ = ["CounterIncrements", "CounterLooks", "fit_counter_looks"]

_Array = NDArray[Any]

_METHOD: Final = "measured: low-pass and looks fitted to waves of load"
_LOOKS: Final = (1, 2, 4, 5, 10)
"""A tick: every 100, 50, 25, 20, 10 ms on a counter that ticks every 100 ms."""
_CONSTANTS_S: Final = (0.002, 0.005, 0.008, 0.012, 0.016, 0.022, 0.03, 0.05, 0.1, 0.3)
_LAG_STEP_S: Final = 0.002
_EARLIEST_S: Final = -0.004
_REFINEMENTS: Final = 4
"""Each halves the steps."""
_CHI2_95: Final = 3.84
_MIN_INCREMENTS: Final = 20


@dataclass(frozen=True, slots=True)
class CounterIncrements:
    """What a counter added from edge to edge while waves of load ran.

    Attributes:
        tick: int64 (N, 2), ticks of both edges.
        power_w: float64 (N,), mean.
        kind: int64 (N,), waves of one kind draw the same power while busy.
    """

    tick: _Array
    power_w: _Array
    kind: _Array


@dataclass(frozen=True, slots=True)
class CounterLooks:
    """How the counter samples power (`SensorWindow`), and what that leaves of each wave.

    Attributes:
        look_s, time_constant_s, lag_s: With 95 % intervals.
        rest_w: float64 (N,), what each increment is off.
    """

    look_s: Estimate
    time_constant_s: Estimate
    lag_s: Estimate
    rest_w: _Array

    @classmethod
    def missing(cls, reason: str) -> CounterLooks:
        """Nothing was found."""
        nothing = Estimate.missing(reason, _METHOD)
        return cls(nothing, nothing, nothing, np.empty(0))


def fit_counter_looks(ticks: CounterTicks | None, found: CounterIncrements, busy: Intervals) -> CounterLooks:
    """The looks, low-pass and lag whose image of the load lies nearest to the increments.

    Args:
        ticks: When the counter ticked; None if that is not known.
        found: Its increments.
        busy: When the GPU was busy with one even load.
    """
    if ticks is None or len(found.power_w) < _MIN_INCREMENTS or len(busy) < 2:
        return CounterLooks.missing("too few changes of the counter were seen while waves of load ran")
    image = _Image(ticks, found, busy)
    num_looks, constant_s, lag_s = min(
        (
            (num_looks, constant_s, lag_s)
            for num_looks, constant_s in product(_LOOKS, _CONSTANTS_S)
            for lag_s in np.arange(_EARLIEST_S, ticks.period_s / num_looks + _EARLIEST_S, _LAG_STEP_S).tolist()
        ),
        key=lambda point: image.misfit(*point),
    )
    if image.integral_misfit() <= image.misfit(num_looks, constant_s, lag_s):
        return CounterLooks.missing("the counter integrates: no looks through a low-pass explain it better")
    step, lag_step_s = 1.3, _LAG_STEP_S / 2
    for _ in range(_REFINEMENTS):
        turns = (-1, 0, 1)
        around = product([constant_s * step**n for n in turns], [lag_s + lag_step_s * n for n in turns])
        constant_s, lag_s = min(around, key=lambda point: image.misfit(num_looks, *point))
        step, lag_step_s = step**0.5, lag_step_s / 2
    constants_s = constant_s * np.geomspace(1 / 3, 3, 67)
    lags_s = lag_s + np.linspace(-6, 6, 61) * 1e-3
    worst = image.misfit(num_looks, constant_s, lag_s) * (1 + _CHI2_95 / len(found.power_w))
    return CounterLooks(
        look_s=Estimate(ticks.period_s / num_looks, method=_METHOD),
        time_constant_s=_estimate(
            constant_s, constants_s, [image.misfit(num_looks, value, lag_s) for value in constants_s], worst
        ),
        lag_s=_estimate(lag_s, lags_s, [image.misfit(num_looks, constant_s, value) for value in lags_s], worst),
        rest_w=image.rest_w(num_looks, constant_s, lag_s),
    )


class _Image:
    """A load as a counter sees it, against what the counter said."""

    def __init__(self, ticks: CounterTicks, found: CounterIncrements, busy: Intervals) -> None:
        self._ticks = ticks
        self._found = found
        self._busy = busy
        self._is_kind = found.kind[:, None] == np.arange(found.kind.max() + 1)

    def misfit(self, num_looks: int, time_constant_s: float, lag_s: float) -> float:
        """Sum of the squares of what is left."""
        rest_w = self.rest_w(num_looks, time_constant_s, lag_s)
        return float(rest_w @ rest_w)

    def rest_w(self, num_looks: int, time_constant_s: float, lag_s: float) -> _Array:
        """What the best idle power and busy powers of each kind of wave leave."""
        window = SensorWindow(self._ticks.period_s, self._ticks.period_s / num_looks, time_constant_s, lag_s)
        return self._rest_w(self._share(window))

    def integral_misfit(self) -> float:
        """As `misfit`, of a counter that sees all time alike."""
        begin_ns, end_ns = self._ticks.time_ns[self._found.tick].T
        busy = BusyTime(self._busy.start_ns, self._busy.end_ns)
        rest_w = self._rest_w(busy.between(begin_ns, end_ns) / (end_ns - begin_ns))
        return float(rest_w @ rest_w)

    def _rest_w(self, share: _Array) -> _Array:
        """What increments are off if they are of these parts of the power of a busy GPU."""
        design = np.column_stack([np.ones(len(share)), self._is_kind * share[:, None]])
        power_w = self._found.power_w
        return np.asarray(power_w - design @ np.linalg.lstsq(design, power_w, rcond=None)[0])

    def _share(self, window: SensorWindow) -> _Array:
        """Part of the power of a busy GPU that each increment is of: exactly, a low-pass remembers earlier looks."""
        view = SensorView.through(self._ticks, window)
        look_ns = self._ticks.time_ns[0] + np.round(view.look_ns).astype(np.int64)
        fresh = seen_busy_s(self._busy, np.column_stack([look_ns[:-1], look_ns[1:]]), view) / window.look_s
        kept = float(np.exp(-window.look_s / window.time_constant_s))
        seen, value = np.zeros(len(look_ns)), 0.0
        for number, share in enumerate(fresh.tolist(), 1):
            value = kept * value + (1 - kept) * share
            seen[number] = value
        total = np.cumsum(seen)[LOOKS_BEYOND + window.num_looks * self._found.tick]
        return np.asarray((total[:, 1] - total[:, 0]) / window.num_looks / np.diff(self._found.tick, axis=1)[:, 0])


def _estimate(value: float, tried: _Array, misfit: Sequence[float], worst: float) -> Estimate:
    """Over what the fit is not worse than noise allows, the other figures fixed."""
    plausible = tried[np.array(misfit) <= worst]
    low, high = (float(plausible.min()), float(plausible.max())) if len(plausible) else (value, value)
    return Estimate(float(value), min(low, float(value)), max(high, float(value)), _METHOD)
