"""Energy of each window split between idle time and kernels, and how far to trust it; see ``docs/attribution.md``.

In one window, every busy nanosecond gets the same power. That is what a sensor of 100 ms can say about kernels of
microseconds without a model; how much the power of windows differs is published beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_windows import EnergyWindows
from qmeter_native.model.estimate import Estimate
from qmeter_native.units import NS_PER_S

__all__ = ["KERNEL_SPREAD", "EnergyError", "EnergySplit", "split_energy"]

_Array = NDArray[Any]

KERNEL_SPREAD: Final = 0.25
"""Standard deviation over mean of the power of different kernels: an 8B model drew 283 to 668 W on an H200, by
quantization method and batch (nine runs, mean 464 W)."""
_Z95: Final = 1.96
"""Two-sided 95 % of a normal distribution."""
_MAX_OVER_MEAN: Final = 4.0
"""Highest busy power of a window, over the mean of all windows, that is still given to kernels. They differ by less
(idle 125 W, cap 700 W on an H200), and a microsecond of work in a window of a second would otherwise get all that idle
power varies by."""


@dataclass(frozen=True, slots=True)
class EnergyError:
    """Relative errors of what is attributed on one device.

    Attributes:
        timing: Of the whole energy, by the uncertain times of all windows' bounds, each independent of the others.
        variation: Standard deviation over mean of the windows' busy power, weighted by busy time; 0 if there is one.
        systematic: Of the sensor; None if not known.
    """

    timing: float
    variation: float
    systematic: float | None

    def interval(self, value_j: float, share: float, method: str, is_mixed: bool = True) -> Estimate:
        """A 95 % interval around ``value_j``, the energy of something that took ``share`` of the busy time.

        Equal power is an assumption. It errs by the variation of the windows, and for single kernels and phases
        (``is_mixed`` False) by at least `KERNEL_SPREAD`; times ``1 - share``, as all kernels together have what was
        measured, whatever each of them draws.
        """
        spread = self.variation if is_mixed else max(self.variation, KERNEL_SPREAD)
        half = _Z95 * value_j * math.hypot(self.timing, spread * (1.0 - min(share, 1.0)))
        return Estimate(value_j, max(0.0, value_j - half), value_j + half, method, None, self.systematic)


@dataclass(frozen=True, slots=True)
class EnergySplit:
    """One device's energy, split. All arrays are float64, one entry a window.

    Attributes:
        idle_j: Given to time in which nothing ran.
        unattributed_j: Given to nobody: what the model has no place for, and all of untraced time.
        busy_w: Power given to each busy nanosecond, in watts.
        static_w: The part of ``busy_w`` that is idle power; None if that is not known.
        measured_j, measured_slack_j: The sensor's total, and its uncertainty by the ends of the measured window.
        raw_residual_fraction: Σ|E - model| / ΣE of the two-parameter model; None for fewer than two windows.
        error: How far to trust what is given to kernels.
        method, gross_method, idle_method: How the figures came about.
    """

    idle_j: _Array
    unattributed_j: _Array
    busy_w: _Array
    static_w: _Array | None
    measured_j: float
    measured_slack_j: float
    raw_residual_fraction: float | None
    error: EnergyError
    method: str
    gross_method: str
    idle_method: str

    @property
    def gross(self) -> Estimate:
        """The sensor's total; its interval is what the ends of the measured window leave open."""
        low, high = self.measured_j - self.measured_slack_j, self.measured_j + self.measured_slack_j
        return Estimate(self.measured_j, max(0.0, low), high, self.gross_method, None, self.error.systematic)


def split_energy(
    windows: EnergyWindows, busy_ns: _Array, traced_ns: _Array, idle_power_w: float | None
) -> EnergySplit | None:
    """Split the energy of ``windows``; None without a source.

    Args:
        windows: What the sensor saw.
        busy_ns: int64, how long the device was busy in each window, as far as it was traced.
        traced_ns: int64, how much of each window was traced. The rest takes its part of the energy with it, by time.
        idle_power_w: Power with nothing on the device; None if not known.
    """
    if windows.energy_j is None:
        return None
    length_ns = np.diff(windows.cuts_ns)
    length_s, busy_s = length_ns / NS_PER_S, busy_ns / NS_PER_S
    idle_s = traced_ns / NS_PER_S - busy_s
    is_complete = bool(np.all(traced_ns == length_ns))
    energy_j = windows.energy_j if is_complete else _ratio(windows.energy_j * traced_ns, length_ns)
    busy_power_w, idle_level_w = _two_levels(energy_j, busy_s, idle_s, idle_power_w)
    if idle_power_w is None:
        busy_j = _ratio(energy_j * busy_s, busy_s + idle_s)
        idle_j = energy_j - busy_j
    else:
        idle_j = np.minimum(energy_j, idle_power_w * idle_s)
        busy_j = np.minimum(energy_j - idle_j, _MAX_OVER_MEAN * busy_power_w * busy_s)
    busy_w = _ratio(busy_j, busy_s)
    slack_j = _ratio(windows.energy_j, length_s)[[0, -1]] * windows.slack_ns[[0, -1]] / NS_PER_S
    how, idle_how = _methods(idle_power_w is not None, is_complete)
    return EnergySplit(
        idle_j=idle_j,
        unattributed_j=windows.energy_j - idle_j - busy_j,
        busy_w=busy_w,
        static_w=None if idle_power_w is None else np.minimum(idle_power_w, busy_w),
        measured_j=math.fsum(windows.energy_j),
        measured_slack_j=float(slack_j.sum()),
        raw_residual_fraction=_raw_residual(energy_j, busy_power_w * busy_s + idle_level_w * idle_s),
        error=EnergyError(
            timing=_timing_error(energy_j, length_s, windows.slack_ns / NS_PER_S),
            variation=_variation(busy_w, busy_s),
            systematic=windows.systematic,
        ),
        method=f"attributed: {windows.source}, {how}",
        gross_method=f"measured: {windows.source}",
        idle_method=f"attributed: {windows.source}, {idle_how}",
    )


def _methods(has_idle_power: bool, is_complete: bool) -> tuple[str, str]:
    """How kernels' and idle time's energy came about."""
    if has_idle_power:
        how, idle_how = "less idle power in idle time, by busy time in each window", "measured idle power in idle time"
    else:
        how = idle_how = "by time in each window; idle power was not measured"
    untraced = "" if is_complete else "; untraced time keeps its part of each window"
    return how + untraced, idle_how + untraced


def _ratio(numerator: _Array, denominator: _Array) -> _Array:
    """Quotient, 0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def _two_levels(energy_j: _Array, busy_s: _Array, idle_s: _Array, idle_power_w: float | None) -> tuple[float, float]:
    """Mean power of busy and of idle time that fits all windows best by least squares, neither negative."""
    if idle_power_w is not None:
        return _level(energy_j - idle_power_w * idle_s, busy_s), idle_power_w
    levels = np.linalg.lstsq(np.stack([busy_s, idle_s], axis=1), energy_j, rcond=None)[0]
    if levels.min() >= 0:
        return float(levels[0]), float(levels[1])
    return (_level(energy_j, busy_s), 0.0) if levels[0] > levels[1] else (0.0, _level(energy_j, idle_s))


def _level(energy_j: _Array, time_s: _Array) -> float:
    square = float(time_s @ time_s)
    return max(0.0, float(time_s @ energy_j) / square) if square else 0.0


def _raw_residual(energy_j: _Array, model_j: _Array) -> float | None:
    """None for one window, which a model of two levels always meets."""
    total = float(energy_j.sum())
    return float(np.abs(energy_j - model_j).sum()) / total if len(energy_j) > 1 and total > 0 else None


def _timing_error(energy_j: _Array, length_s: _Array, slack_s: _Array) -> float:
    relative = np.minimum(_ratio(slack_s[:-1] + slack_s[1:], length_s), 1.0)
    total = float(energy_j.sum())
    return math.sqrt(float(((energy_j * relative) ** 2).sum())) / total if total > 0 else 0.0


def _variation(busy_w: _Array, busy_s: _Array) -> float:
    total = float(busy_s.sum())
    if total == 0:
        return 0.0
    mean = float(busy_w @ busy_s) / total
    return math.sqrt(float((busy_w - mean) ** 2 @ busy_s) / total) / mean if mean > 0 else 0.0
