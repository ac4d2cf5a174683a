"""Energy of each window split among kernels, static power, idle time and the meter; see ``docs/attribution.md``.

Kernels' dynamic joules are what the power model says after it was fitted to the run's own windows, scaled onto each
window only as far as the sensor may err. A sensor that weighs time unevenly is compared with what it should have read
(`EnergyFit.predict_reading`), and joules are of all time. What then remains is given to nobody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_fit import EnergyFit, EnergyPrediction
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.energy_windows import EnergyWindows
from qmeter_native.model.power_model import EnergyMode
from qmeter_native.model.static_policy import StaticPolicy

__all__ = ["EnergySplit", "split_energy"]

_Array = NDArray[Any]

_SENSOR_ERRORS: Final = 2.0
"""Standard errors of the sensor, up to which kernels' joules are scaled to meet a window."""
_MAX_SCALE: Final = 2.0
"""And no farther than this, so that a microsecond of work does not get what idle power varies by."""


@dataclass(frozen=True, slots=True)
class EnergySplit:
    """One device's energy, split: W windows, C columns of `EnergyClasses`, K features.

    Attributes:
        idle_j: float64 (W,), idle power in idle time.
        static_j: float64 (W,), idle and active power in busy time.
        dynamic_j: float64 (W, C), kernels', scaled.
        meter_j: float64 (W,), what counter phases drew beyond the model.
        unattributed_j: float64 (W,), given to nobody; negative where the model says more than was measured.
        active_j: float64 (W,), of the static joules, active power's.
        measured_j: All of it.
        fit: What the model says after it saw the windows.
        problem: What it saw.
        raw_residual_fraction: Σ|E - model's reading| / ΣE over the windows that were fitted; None of fewer than two.
        raw_residual_p95: 95th percentile of |E - model's reading| / E over these windows.
        timing: Relative standard error of all windows' energy by the sensor.
        sampling_j: float64 (W,), what the sensor should have read less the energy that was spent, by the model:
            positive where it saw too much of what draws much.
        is_finer: The fit saw the windows cut by the driver's power samples, as it predicts better so.
    """

    idle_j: _Array
    static_j: _Array
    dynamic_j: _Array
    meter_j: _Array
    unattributed_j: _Array
    active_j: _Array
    measured_j: float
    fit: EnergyFit
    problem: EnergyProblem
    raw_residual_fraction: float | None
    raw_residual_p95: float | None
    timing: float
    sampling_j: _Array
    is_finer: bool

    def kernel_w(self, policy: StaticPolicy) -> _Array:
        """float64 (W, C): power given to each second that a column's kernels were given."""
        time_s, total_s = self.problem.time_s, self.problem.time_s.sum(axis=1)
        given_j = self.dynamic_j
        by_time = _ratio(time_s, total_s[:, None])
        if policy is StaticPolicy.BY_TIME:
            given_j = given_j + self.static_j[:, None] * by_time
        elif policy is StaticPolicy.BY_ENERGY:
            total_j = self.dynamic_j.sum(axis=1, keepdims=True)
            given_j = given_j + self.static_j[:, None] * np.where(total_j > 0, _ratio(self.dynamic_j, total_j), by_time)
        return _ratio(given_j, time_s)

    @property
    def class_static_j(self) -> _Array:
        """float64 (C,): each column's part of static joules, by time."""
        by_time = _ratio(self.problem.time_s, self.problem.time_s.sum(axis=1, keepdims=True))
        return np.asarray(self.static_j @ by_time)

    @property
    def mode(self) -> EnergyMode:
        """How the work behind most of the dynamic joules is known."""
        total_j = self.dynamic_j.sum(axis=0)
        by_mode = {mode: total_j[[one is mode for one in self.problem.modes]].sum() for mode in EnergyMode}
        return max(by_mode, key=lambda mode: float(by_mode[mode])) if total_j.any() else EnergyMode.TIME

    @property
    def resolved_share(self) -> float | None:
        """Part of the dynamic joules whose column the windows tell apart from all others; None of nothing."""
        total_j = self.dynamic_j.sum(axis=0)
        whole_j = float(total_j.sum())
        return float(total_j[self.fit.is_resolved].sum()) / whole_j if whole_j > 0 else None

    def error_j(self, parts_j: _Array, active_s: _Array) -> _Array:
        """Standard errors (M,) of sums of dynamic joules ``parts_j`` (M, C) and active power over ``active_s`` (M,).

        Seconds are at the reference clock.
        """
        weights = np.column_stack([_ratio(parts_j, self.fit.unit_j), active_s])
        sums_j = parts_j.sum(axis=1) + self.fit.active_w * active_s
        return np.asarray(np.hypot(self.fit.sum_error(weights), self.timing * sums_j))

    def marginal_j(self) -> _Array:
        """float64 (C,): joules that one more launch of each column would have cost, over all windows of the run.

        Where the power limit held clocks down, one more launch takes the limit's power for its time.
        """
        problem = self.problem
        total, time_s = problem.units.sum(axis=0), problem.time_s.sum(axis=0)
        unit_s = _ratio(time_s, total)
        is_capped = problem.cap_w > 0
        capped = _ratio(problem.time_s[is_capped].sum(axis=0), time_s)
        free_s = problem.busy_s * ~is_capped
        clock = float(np.average(problem.clock, weights=free_s)) if free_s.any() else 1.0
        at_cap = self.fit.marginal_j(unit_s, clock, float(problem.cap_w.max(initial=0.0)))
        return np.asarray((1.0 - capped) * self.fit.marginal_j(unit_s, clock) + capped * at_cap)

    @property
    def active_s(self) -> float:
        """Busy seconds, each weighted by the active power at its clock over that at the reference clock."""
        return (
            float(self.active_j.sum()) / self.fit.active_w
            if self.fit.active_w > 0
            else float(self.problem.busy_s.sum())
        )


def split_energy(
    windows: EnergyWindows, energy_j: _Array, problem: EnergyProblem, fit: EnergyFit, is_finer: bool
) -> EnergySplit:
    """Split what the sensor saw by what a fit says of it.

    Args:
        windows: What the sensor saw.
        energy_j: float64 (W,), its energy; that of ``problem`` is of traced time alone.
        problem: The windows and what ran in them.
        fit: Joules of units, from these windows or parts of them.
        is_finer: It is from parts.
    """
    said, read = fit.predict(problem), fit.predict_reading(problem)
    rest_s = problem.length_s - problem.busy_s
    idle_j = problem.idle_w * rest_s
    static_j = said.idle_j - idle_j + said.active_j
    modelled_j = np.where(problem.time_s > 0, said.dynamic_j, 0.0)
    dynamic_j = modelled_j * _scale(problem, windows.is_metered, read, modelled_j)[:, None]
    untraced_j = energy_j - problem.energy_j
    over_j = problem.energy_j - idle_j - static_j - dynamic_j.sum(axis=1)
    meter_j = np.where(windows.is_metered, np.maximum(over_j, 0.0), 0.0)
    fraction, p95 = _raw_residuals(problem, read)
    total_j = float(problem.energy_j.sum())
    return EnergySplit(
        idle_j=idle_j,
        static_j=static_j,
        dynamic_j=dynamic_j,
        meter_j=meter_j,
        unattributed_j=over_j - meter_j + untraced_j,
        active_j=said.active_j,
        measured_j=math.fsum(energy_j),
        fit=fit,
        problem=problem,
        raw_residual_fraction=fraction,
        raw_residual_p95=p95,
        timing=windows.total_error_j / total_j if total_j > 0 else 0.0,
        sampling_j=read.mean_j - said.mean_j,
        is_finer=is_finer,
    )


def _scale(problem: EnergyProblem, is_metered: _Array, read: EnergyPrediction, modelled_j: _Array) -> _Array:
    """float64 (W,): by how much dynamic joules are multiplied; 1 where a counter phase raised the power."""
    total_j = modelled_j.sum(axis=1)
    most_j = _SENSOR_ERRORS * problem.error_j
    added_j = np.clip(problem.energy_j - read.mean_j, -most_j, most_j)
    scale = np.clip(1.0 + _ratio(added_j, total_j), 0.0, _MAX_SCALE)
    return np.where(is_metered, 1.0, scale)


def _raw_residuals(problem: EnergyProblem, read: EnergyPrediction) -> tuple[float | None, float | None]:
    """None for one window, which the model always meets."""
    rows = problem.is_fitted & (problem.energy_j > 0)
    if rows.sum() < 2:
        return None, None
    energy_j, missed_j = problem.energy_j[rows], np.abs(problem.energy_j - read.mean_j)[rows]
    return float(missed_j.sum() / energy_j.sum()), float(np.percentile(missed_j / energy_j, 95))


def _ratio(numerator: _Array, denominator: _Array) -> _Array:
    """Quotient, 0 where the denominator is."""
    wide = np.broadcast_to(denominator, numerator.shape)
    return np.asarray(np.divide(numerator, wide, out=np.zeros(numerator.shape), where=wide > 0))
