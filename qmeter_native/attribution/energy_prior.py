"""What is known of kernels' joules before a run's own windows are seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.clock_law import ClockLaw
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel

__all__ = ["EnergyPrior", "energy_prior", "features_of"]

_Array = NDArray[Any]

_MIN_DISCREPANCY: Final = 0.01
"""No model knows kernels better than this; it also keeps the equations well conditioned."""
_MIN_COEFFICIENT_ERROR: Final = 1e-3
"""Likewise for coefficients, relative to their size."""
_TIME_ERROR: Final = 0.5
"""Prior standard deviation over mean of the dynamic power of kernels of which only the time is known."""
_MIN_DYNAMIC: Final = 0.1
"""Part of the power above idle that kernels' work has at least, however high the model puts the active power."""


@dataclass(frozen=True, slots=True)
class EnergyPrior:
    """A normal prior of the unknowns ``[joules of a unit (C), active watts, coefficients (K), time watts]``.

    The last is the dynamic power of kernels of which only the time is known; the coefficients of work that was counted
    do not say it, as SM seconds cost little beside what runs in them.

    Attributes:
        scale: float64 (N,), N = C + K + 2: unknowns are scaled by it, so that all are about 1.
        mean: float64 (N,), scaled.
        precision: float64 (N, N), inverse covariance, scaled.
        work: float64 (C, K + 1), work of a unit by feature and, last, seconds of those known by time only.
        discrepancy: float64 (C,), standard deviation over mean of each class around its work's joules.
        dram_share: float64 (C,), part of the joules that does not go with the core's voltage.
    """

    scale: _Array
    mean: _Array
    precision: _Array
    work: _Array
    discrepancy: _Array
    dram_share: _Array

    def moved(self, shift_j: _Array) -> EnergyPrior:
        """The same with ``shift_j`` (C,) more for a unit of each class; none is expected to cost less than nothing."""
        mean, num_classes = self.mean.copy(), len(shift_j)
        mean[:num_classes] = np.maximum(mean[:num_classes] + shift_j / self.scale[:num_classes], 0.0)
        return replace(self, mean=mean)


def features_of(problem: EnergyProblem, model: PowerModel) -> _Array:
    """The work of one unit, float64 (C, K), in the order of the model's features; 0 where the problem lacks one."""
    column = {feature: number for number, feature in enumerate(problem.features)}
    work = np.zeros((problem.num_classes, len(model.features)))
    for number, feature in enumerate(model.features):
        if feature in column:
            work[:, number] = problem.work[:, column[feature]]
    return work


def energy_prior(problem: EnergyProblem, model: PowerModel, time_w: float | None = None) -> EnergyPrior:
    """The prior that a power model gives for the classes of a problem.

    ``e_c | θ ~ N(x_c·θ, (d x_c·θ0)²)`` with the discrepancy d of the class's mode, ``θ ~ N(θ0, covariance)``.

    Args:
        problem: Its work; and its fitted windows, if ``time_w`` is not given.
        model: The coefficients.
        time_w: Mean dynamic power of kernels of which only the time is known; by default the mean of all
            kernels in the fitted windows.
    """
    counted = features_of(problem, model)
    is_timed = np.array([mode is EnergyMode.TIME for mode in problem.modes], bool) | (counted @ model.coefficient <= 0)
    work = np.column_stack([np.where(is_timed[:, None], 0.0, counted), np.where(is_timed, _seconds(problem, model), 0)])
    is_core = np.array([feature.is_core for feature in model.features], bool)
    dram_j = work[:, :-1] @ np.where(is_core, 0.0, model.coefficient)
    known_j = work[:, :-1] @ model.coefficient
    dram_share = np.divide(dram_j, known_j, out=np.zeros_like(known_j), where=known_j > 0)
    if time_w is None:
        time_w = _time_watts(problem, model)
    coefficient = np.append(model.coefficient, time_w)
    modes = [EnergyMode.TIME if timed else mode for timed, mode in zip(is_timed, problem.modes, strict=True)]
    discrepancy = np.array([max(model.discrepancy[mode], _MIN_DISCREPANCY) for mode in modes])
    return _scaled(model, work, coefficient, discrepancy, dram_share)


def _scaled(
    model: PowerModel, work: _Array, coefficient: _Array, discrepancy: _Array, dram_share: _Array
) -> EnergyPrior:
    num_classes, num_coefficients = work.shape
    covariance = np.zeros((num_coefficients, num_coefficients))
    covariance[:-1, :-1] = model.covariance
    covariance[-1, -1] = (_TIME_ERROR * coefficient[-1]) ** 2
    size = np.maximum(coefficient, np.sqrt(np.diag(covariance)))
    size = np.where(size > 0, size, 1.0)
    covariance = covariance / np.outer(size, size) + _MIN_COEFFICIENT_ERROR**2 * np.eye(num_coefficients)
    unit_j = work @ coefficient
    unit_size = np.where(unit_j > 0, unit_j, 1.0)
    active = model.active_w if model.active_w > 0 else 1.0
    slope = work * size / unit_size[:, None]
    certainty = 1.0 / discrepancy**2
    precision = np.zeros((num_classes + 1 + num_coefficients,) * 2)
    precision[:num_classes, :num_classes] = np.diag(certainty)
    precision[:num_classes, num_classes + 1 :] = -slope * certainty[:, None]
    precision[num_classes + 1 :, :num_classes] = precision[:num_classes, num_classes + 1 :].T
    precision[num_classes, num_classes] = (active / max(model.active_error_w, _MIN_COEFFICIENT_ERROR * active)) ** 2
    precision[num_classes + 1 :, num_classes + 1 :] = slope.T @ (slope * certainty[:, None]) + np.linalg.inv(covariance)
    return EnergyPrior(
        scale=np.concatenate([unit_size, [active], size]),
        mean=np.concatenate([unit_j / unit_size, [model.active_w / active], coefficient / size]),
        precision=precision,
        work=work,
        discrepancy=discrepancy,
        dram_share=dram_share,
    )


def _seconds(problem: EnergyProblem, model: PowerModel) -> _Array:
    """Seconds of one unit: SM seconds if they are given, else the time that a unit took on average."""
    units = problem.units.sum(axis=0)
    mean_s: _Array = np.divide(problem.time_s.sum(axis=0), units, out=np.zeros(problem.num_classes), where=units > 0)
    if PowerFeature.SM_SECONDS not in problem.features:
        return mean_s
    given = problem.work[:, problem.features.index(PowerFeature.SM_SECONDS)]
    return np.asarray(np.where(given > 0, given, mean_s))


def _time_watts(problem: EnergyProblem, model: PowerModel) -> float:
    """Mean dynamic power of all kernels in the fitted windows; at least a tenth of what is above idle; else 0."""
    rows = problem.is_fitted
    core, active = ClockLaw.of(model, np.zeros(1)).factors(problem.clock[rows])
    busy_s = problem.busy_s[rows]
    above_j = float((problem.energy_j - problem.idle_w * problem.length_s)[rows].sum())
    dynamic_j = max(above_j - model.active_w * float(active @ busy_s), _MIN_DYNAMIC * above_j, 0.0)
    core_s = float(core[:, 0] @ busy_s)
    return dynamic_j / core_s if core_s > 0 else 0.0
