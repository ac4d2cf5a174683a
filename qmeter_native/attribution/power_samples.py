"""The driver's power samples as a second signal: finer windows of energy, kept only if they predict better.

The counter says how much energy a window has, the samples how it lay in time, five times finer. A sample stamped ``t``
is the mean power over ``[t - lag - window, t - lag]`` (Yang, Adámek, Armour, SC'24), so it stands for the middle of
that. Their integral is scaled onto the energy of each window of the counter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_fit import fit_energy
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.power_model import PowerModel
from qmeter_native.units import NS_PER_S, mw_to_w, s_to_ns

__all__ = ["FinerWindows", "PowerSamples", "WindowChoice", "choose_windows"]

_Array = NDArray[Any]

_NUM_FOLDS: Final = 5
_MIN_WINDOWS: Final = 10
"""Fewer windows of the counter leave too few to hold out."""


@dataclass(frozen=True, slots=True)
class FinerWindows:
    """Windows of the counter cut into shorter ones (V).

    Attributes:
        cuts_ns: int64 (V + 1,), with all bounds of the counter's windows among them.
        parent: int64 (V,), the counter's window in which each lies.
        energy_j: float64 (V,); those of one parent add up to its energy.
        error_j: float64 (V,), standard error.
    """

    cuts_ns: _Array
    parent: _Array
    energy_j: _Array
    error_j: _Array


@dataclass(frozen=True, slots=True)
class PowerSamples:
    """Power readings of one device.

    Attributes:
        middle_ns: int64 (n,), increasing: the middle of what each averages.
        power_w: float64 (n,).
        window_s: Over how long each averages.
    """

    middle_ns: _Array
    power_w: _Array
    window_s: float

    @classmethod
    def of(cls, capture: Capture, device: int, window_s: float, lag_s: float) -> PowerSamples | None:
        """The driver's samples of a device; None for fewer than two."""
        table = capture.power
        rows = np.flatnonzero((table.device == device) & (table.source == EnergySource.NVML_POWER_SAMPLES))
        time_ns, first = np.unique(table.time_ns[rows], return_index=True)
        if len(time_ns) < 2:
            return None
        power_w = table.power_mw[rows[first]] * mw_to_w(1)
        return cls(time_ns - s_to_ns(lag_s + window_s / 2), power_w, window_s)

    def finer(self, cuts_ns: _Array, energy_j: _Array, error_j: _Array, length_s: float) -> FinerWindows:
        """Cut windows of the counter into equal parts of about ``length_s``.

        Args:
            cuts_ns: int64 (W + 1,), bounds of the counter's windows.
            energy_j: float64 (W,), their energy.
            error_j: float64 (W,), its standard error.
            length_s: How long parts are to be; a few times the samples' distance.
        """
        count = np.maximum(np.diff(cuts_ns) // s_to_ns(length_s), 1)
        parent = np.repeat(np.arange(len(count)), count)
        position = np.arange(len(parent)) - np.repeat(np.cumsum(count) - count, count)
        start_ns = cuts_ns[parent] + np.diff(cuts_ns)[parent] * position // count[parent]
        fine_ns = np.append(start_ns, cuts_ns[-1])
        shape_j = np.maximum(np.diff(self._integral_j(fine_ns)), 0.0)
        total_j = np.bincount(parent, shape_j, len(count))[parent]
        share = np.where(total_j > 0, shape_j / np.where(total_j > 0, total_j, 1.0), 1.0 / count[parent])
        blur_j = self._blur_j(fine_ns) * ~np.isin(fine_ns, cuts_ns)
        blur = blur_j[:-1] ** 2 + blur_j[1:] ** 2
        return FinerWindows(fine_ns, parent, energy_j[parent] * share, np.sqrt((error_j[parent] * share) ** 2 + blur))

    @property
    def _distance_ns(self) -> float:
        return float(np.median(np.diff(self.middle_ns)))

    def _seconds(self, time_ns: _Array) -> _Array:
        return np.asarray((time_ns - self.middle_ns[0]) / NS_PER_S)

    def _integral_j(self, time_ns: _Array) -> _Array:
        """By the trapezoid rule; beyond the ends the first and last reading go on."""
        at_s, wanted_s = self._seconds(self.middle_ns), self._seconds(time_ns)
        pieces_j = (self.power_w[1:] + self.power_w[:-1]) / 2 * np.diff(at_s)
        inside = np.interp(wanted_s, at_s, np.concatenate([[0.0], np.cumsum(pieces_j)]))
        before = np.minimum(wanted_s, 0.0) * self.power_w[0]
        after = np.maximum(wanted_s - at_s[-1], 0.0) * self.power_w[-1]
        return np.asarray(inside + before + after)

    def _blur_j(self, time_ns: _Array) -> _Array:
        """Energy that may lie on the wrong side of a bound, one standard error.

        A step of the power there is seen blurred over the window and the samples' distance: as if it were uniformly
        distributed over both, so with a standard deviation of their root mean square over the square root of 12.
        """
        width_ns = float(np.hypot(self.window_s * NS_PER_S, self._distance_ns))
        at_s = self._seconds(self.middle_ns)
        before = np.interp(self._seconds(time_ns - round(width_ns)), at_s, self.power_w)
        after = np.interp(self._seconds(time_ns + round(width_ns)), at_s, self.power_w)
        return np.asarray(np.abs(after - before) * width_ns / NS_PER_S / np.sqrt(12.0))


@dataclass(frozen=True, slots=True)
class WindowChoice:
    """Which windows are fitted, and why.

    Attributes:
        is_finer: The finer ones, as they predict windows left out better.
        coarse_error, fine_error: Mean relative error of the energy of the counter's windows that a fit did not see:
            of the fit to the others, and of the fit to the others' parts. None where too few windows are there.
    """

    is_finer: bool
    coarse_error: float | None
    fine_error: float | None


def choose_windows(coarse: EnergyProblem, fine: EnergyProblem, parent: _Array, model: PowerModel) -> WindowChoice:
    """Whether finer windows lower the error of windows held out: every fifth at a time, parts with their parent.

    Args:
        coarse: The counter's windows (W).
        fine: Their parts (V), of the same classes and units.
        parent: int64 (V,), the window in which each part lies.
        model: The prior.
    """
    rows = np.flatnonzero(coarse.is_fitted & (coarse.energy_j > 0))
    if len(rows) < _MIN_WINDOWS:
        return WindowChoice(False, None, None)
    missed = np.zeros((2, len(rows)))
    for fold in range(_NUM_FOLDS):
        is_held = np.zeros(coarse.num_windows, bool)
        is_held[rows[fold::_NUM_FOLDS]] = True
        for number, (problem, is_out) in enumerate(((coarse, is_held), (fine, is_held[parent]))):
            said = fit_energy(replace(problem, is_fitted=problem.is_fitted & ~is_out), model).predict_reading(coarse)
            missed[number, fold::_NUM_FOLDS] = said.mean_j[is_held] / coarse.energy_j[is_held] - 1.0
    coarse_error, fine_error = (float(error) for error in np.abs(missed).mean(axis=1))
    return WindowChoice(fine_error < coarse_error, coarse_error, fine_error)
