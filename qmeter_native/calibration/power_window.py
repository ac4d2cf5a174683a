"""Over how long a power reading averages, and how late it is stamped, from readings of known square waves.

A sensor publishes ``y(t) = 1/W * integral of P over [t - lag - W, t - lag]`` (Yang, Adámek, Armour, SC'24): the window
and lag sought are those whose blurred image of the load lies nearest to the readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.intervals import Intervals
from qmeter_native.model.estimate import Estimate
from qmeter_native.units import NS_PER_S

__all__ = ["PowerWindow", "fit_power_window"]

_Array = NDArray[Any]

_METHOD: Final = "measured: boxcar fitted to square waves"
_COARSE_WINDOWS_S: Final = np.concatenate([[0.001, 0.005], np.arange(0.01, 0.301, 0.01)])
_COARSE_LAGS_S: Final = np.arange(-0.06, 0.121, 0.005)
_STEP_S: Final = 0.001
_FINE_S: Final = np.arange(-12, 13) * _STEP_S
_SHORTEST_S: Final = 0.001
_CHI2_95: Final = 3.84
"""Quantile of chi-squared with one degree of freedom: how much worse a value in a 95 % interval may fit."""

_MIN_READINGS: Final = 20


@dataclass(frozen=True, slots=True)
class PowerWindow:
    """Averaging window and lag in seconds. A reading stamped ``t`` is the mean over ``[t - lag - window, t - lag]``."""

    window_s: Estimate
    lag_s: Estimate


def fit_power_window(time_ns: _Array, power_w: _Array, busy: Intervals) -> PowerWindow:
    """Fit window and lag; each with the interval over which its best fit is not worse than noise allows.

    Args:
        time_ns: int64 (n,), stamps of the readings.
        power_w: float64 (n,), watts.
        busy: When the GPU was busy with one even load.
    """
    if len(time_ns) < _MIN_READINGS or len(busy) < 2:
        missing = Estimate.missing("too few power readings of a square wave whose kernels were traced", _METHOD)
        return PowerWindow(missing, missing)
    image = _Image(time_ns, power_w, busy)
    window_s, lag_s = _best(image.misfit(_COARSE_WINDOWS_S, _COARSE_LAGS_S), _COARSE_WINDOWS_S, _COARSE_LAGS_S)
    windows = np.unique(np.maximum(window_s + _FINE_S, _SHORTEST_S))
    lags = lag_s + _FINE_S
    misfit = image.misfit(windows, lags)
    window_s, lag_s = _best(misfit, windows, lags)
    worst = misfit.min() * (1 + _CHI2_95 / (len(time_ns) - 4))
    return PowerWindow(
        _estimate(window_s, windows[misfit.min(axis=1) <= worst]), _estimate(lag_s, lags[misfit.min(axis=0) <= worst])
    )


class _Image:
    """How a load looks through a boxcar, against readings of it."""

    def __init__(self, time_ns: _Array, power_w: _Array, busy: Intervals) -> None:
        origin = int(busy.start_ns[0])
        bounds = np.stack([busy.start_ns, busy.end_ns], axis=1).ravel()
        lengths = (busy.end_ns - busy.start_ns) / NS_PER_S
        self._bound_s = (bounds - origin) / NS_PER_S
        self._busy_s = np.stack([np.cumsum(lengths) - lengths, np.cumsum(lengths)], axis=1).ravel()
        self._time_s = (time_ns - origin) / NS_PER_S
        self._power = power_w - power_w.mean()

    def misfit(self, windows_s: _Array, lags_s: _Array) -> _Array:
        """Squares of what a straight line from busy share to power leaves over, (windows, lags)."""
        return np.array([[self._residual(window_s, lag_s) for lag_s in lags_s] for window_s in windows_s])

    def _residual(self, window_s: float, lag_s: float) -> float:
        end = self._time_s - lag_s
        share = (self._seconds_busy(end) - self._seconds_busy(end - window_s)) / window_s
        share = share - share.mean()
        explained = float(share @ self._power) ** 2 / max(float(share @ share), 1e-12)
        return float(self._power @ self._power) - explained

    def _seconds_busy(self, time_s: _Array) -> _Array:
        return np.interp(time_s, self._bound_s, self._busy_s)


def _best(misfit: _Array, windows_s: _Array, lags_s: _Array) -> tuple[float, float]:
    row, column = np.unravel_index(int(np.argmin(misfit)), misfit.shape)
    return float(windows_s[row]), float(lags_s[column])


def _estimate(value: float, plausible: _Array) -> Estimate:
    """Between two steps of the grid nothing was tried: the interval reaches half a step beyond what was."""
    low, high = float(plausible.min()) - _STEP_S / 2, float(plausible.max()) + _STEP_S / 2
    return Estimate(value, low, high, _METHOD)
