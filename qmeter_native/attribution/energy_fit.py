"""Joules of kernels from a run's own windows: a calibrated prior, refined by robust non-negative least squares.

The energy of a window is ``idle + active + Σ units * joules of a unit`` (`PowerModel` has the formula). Unknown are
the joules of a unit of each class, the active power and the coefficients of work; none may be negative. The prior ties
a class to its work (`energy_prior`). A window errs by its sensor and by what the form of the model cannot follow, with
the long tails of Student's t distribution: iteratively reweighted least squares (Lange, Little and Taylor, 1989).

How far windows err is taken from the run itself: each is predicted without it, in closed form by the hat matrix
(Cook and Weisberg, 1982), and the spread of those errors beyond the sensor's and the parameters' own is the windows'
discrepancy. It enters the weights, and so the covariance, to which windows that are alike are no independent witnesses
(`shared_covariance`).

One exponent for all clocks is a simplification, and with many windows a wrong one would pass for differences between
kernels. A run may therefore bend the law of its clocks (`ClockLaw.shift`), by linearisation, at a prior's cost.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.clock_law import ClockLaw
from qmeter_native.attribution.collinear import collinear_groups
from qmeter_native.attribution.energy_prior import EnergyPrior, energy_prior
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.robust_posterior import left_out_spread, robust_posterior
from qmeter_native.attribution.shared_discrepancy import likeness, shared_covariance
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel

__all__ = ["EnergyFit", "EnergyPrediction", "fit_energy", "transfer"]

_Array = NDArray[Any]

_SHIFT_ERROR: Final = 0.3
"""Prior standard deviation of what a run adds to the exponents: a core event costs V², and V goes with the clock to a
power between 0 (at the lowest voltage) and 1."""
_MAX_RATIO: Final = 2.0
"""Of the work of a unit in two runs, up to which their kernels count as the same."""
_NUM_PASSES: Final = 4
"""Of the windows' discrepancy and the exponents' shift, which both settle within 2 % by then."""


@dataclass(frozen=True, slots=True)
class EnergyPrediction:
    """What a fit says of windows (W).

    Attributes:
        mean_j: float64 (W,), all energy.
        error_j: float64 (W,), its standard error: of the parameters and of the form of the model, not the sensor's.
        idle_j: float64 (W,), idle power over the whole window.
        active_j: float64 (W,), what a busy chip draws beyond idle whatever runs.
        dynamic_j: float64 (W, C), of each class at the window's clock.
    """

    mean_j: _Array
    error_j: _Array
    idle_j: _Array
    active_j: _Array
    dynamic_j: _Array


@dataclass(frozen=True, slots=True)
class EnergyFit:
    """Joules of kernel classes (C) with their errors; K features.

    Attributes:
        model: What the prior came from.
        unit_j: float64 (C,), dynamic joules of one unit at the reference clock.
        active_w: Power of a busy chip above idle at the reference clock.
        coefficient: float64 (K,), joules a unit of work.
        covariance: float64 (C + 1 + K, C + 1 + K), of ``[unit_j, active_w, coefficient]``; as though none were at its
            bound of 0, which would only narrow it.
        components_j: float64 (C, K), ``unit_j`` by feature in proportion to its work; all of a class of which only the
            time is known goes to SM seconds, or the last feature.
        group: int64 (C,), the lowest class of those of which only the sum is known; see `collinear_groups`.
        is_resolved: bool (C,).
        window_error: Standard deviation over mean of windows around the model, from leaving each out; at least the
            model's.
        law: How joules go with the clock.
        shift_error: Standard error of the law's shift.
        modes: EnergyMode of each class.
        work: float64 (C, K + 1), of a unit; the last column is seconds of classes of which only the time is known.
        time_w: Mean dynamic power of such classes.
    """

    model: PowerModel
    unit_j: _Array
    active_w: float
    coefficient: _Array
    covariance: _Array
    components_j: _Array
    group: _Array
    is_resolved: _Array
    window_error: float
    law: ClockLaw
    shift_error: float
    modes: tuple[EnergyMode, ...]
    work: _Array
    time_w: float

    def predict(self, problem: EnergyProblem) -> EnergyPrediction:
        """Energy of the windows of ``problem``, whose classes are the fit's; its measured energy is not looked at."""
        num_classes = len(self.unit_j)
        design = _design(problem, *self.law.factors(problem.clock))
        idle_j = problem.idle_w * problem.length_s
        dynamic_j = design[:, :num_classes] * self.unit_j
        active_j = design[:, num_classes] * self.active_w
        mean_j = idle_j + active_j + dynamic_j.sum(axis=1)
        bend_j = _bend(problem, self.law, np.append(self.unit_j, self.active_w))
        form_j = np.hypot(self.window_error * mean_j, self.shift_error * bend_j)
        return EnergyPrediction(mean_j, np.hypot(self.sum_error(design), form_j), idle_j, active_j, dynamic_j)

    def predict_reading(self, problem: EnergyProblem) -> EnergyPrediction:
        """What the sensor should read in the windows of ``problem``; differs from the energy where it sees in part."""
        return self.predict(problem.as_read())

    def class_j(self, total_units: _Array) -> tuple[_Array, _Array]:
        """Dynamic joules of ``total_units`` (C,) of each class at the reference clock, and their standard errors."""
        num_classes = len(self.unit_j)
        error = np.sqrt(np.diag(self.covariance)[:num_classes])
        return self.unit_j * total_units, error * total_units

    def sum_error(self, weights: _Array) -> _Array:
        """Standard errors (M,) of weighted sums of ``[unit_j, active_w]``; ``weights`` is float64 (M, C + 1)."""
        size = len(self.unit_j) + 1
        variance = np.einsum("ij,ij->i", weights @ self.covariance[:size, :size], weights)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))

    def marginal_j(self, time_per_unit_s: _Array, clock: float = 1.0, cap_w: float | None = None) -> _Array:
        """Joules (C,) that one more unit of each class would cost.

        Its dynamic joules and the active power over its time; at a power cap, where all slows down so that the power
        stays, the cap's power over its time.

        Args:
            time_per_unit_s: float64 (C,), time that one unit adds.
            clock: SM clock over the reference.
            cap_w: The power limit if it holds the clock down.
        """
        if cap_w is not None:
            return np.asarray(cap_w * time_per_unit_s)
        unit_factor, active_factor = self.law.factors(np.array([clock]))
        return np.asarray(self.unit_j * unit_factor[0] + self.active_w * active_factor[0] * time_per_unit_s)


def fit_energy(problem: EnergyProblem, model: PowerModel, shift_j: _Array | None = None) -> EnergyFit:
    """Fit the joules of kernels to the windows that `EnergyProblem.is_fitted` shows; without any, the prior.

    What a window's energy was read of is `EnergyProblem.as_read`.

    Args:
        problem: Windows and kernel classes (C).
        model: The prior.
        shift_j: float64 (C,), joules of a unit beyond those of its work, known beforehand (`memory_shift`).
    """
    prior = energy_prior(problem, model)
    if shift_j is not None:
        prior = prior.moved(shift_j)
    rows, read = problem.is_fitted, problem.as_read()
    law = ClockLaw.of(model, prior.dram_share, pivot=_pivot(read))
    dynamic_j = (problem.energy_j - problem.idle_w * problem.length_s)[rows]
    energy_j, sensor_j = problem.energy_j[rows], problem.error_j[rows]
    precision = np.zeros((len(prior.mean) + 1,) * 2)
    precision[:-1, :-1], precision[-1, -1] = prior.precision, 1.0
    window_error, values = model.window_error, prior.mean * prior.scale
    for _ in range(_NUM_PASSES):
        noise_j = np.maximum(np.hypot(sensor_j, window_error * energy_j), 1e-9)
        design = _scaled_design(read, law, values, prior)[rows]
        mean = np.append(prior.mean, -law.shift / _SHIFT_ERROR)
        posterior = robust_posterior(design, dynamic_j, noise_j, mean, precision, num_unbounded=1)
        values = posterior.solution[:-1] * prior.scale
        turn = float(posterior.solution[-1]) * _SHIFT_ERROR
        found = max(model.window_error, left_out_spread(posterior, noise_j, sensor_j, energy_j) or 0.0)
        is_settled = abs(found - window_error) <= 0.02 * window_error and abs(turn) < 0.02 * _SHIFT_ERROR
        window_error, law = found, replace(law, shift=law.shift + turn)
        if is_settled:
            break
    alike = likeness(_parts_j(read, law, values)[rows], read.clock[rows])
    covariance = posterior.covariance + shared_covariance(posterior.gain, window_error * energy_j, alike)
    shift_error = _SHIFT_ERROR * math.sqrt(covariance[-1, -1])
    scale = prior.scale[:-1]
    covariance = covariance[:-2, :-2] * np.outer(scale, scale)
    return _fit(problem, model, prior, values, covariance, window_error, law, shift_error)


def _parts_j(problem: EnergyProblem, law: ClockLaw, values: _Array) -> _Array:
    """Idle joules of each window, and those at ``values`` of ``[unit_j, active_w]``, float64 (W, C + 2)."""
    known_j = _design(problem, *law.factors(problem.clock)) * values[: problem.num_classes + 1]
    return np.column_stack([problem.idle_w * problem.length_s, known_j])


def _pivot(problem: EnergyProblem) -> float:
    """Geometric mean of the clocks of fitted windows by busy time; 1 without any."""
    busy_s = problem.busy_s * problem.is_fitted
    return math.exp(float(busy_s @ np.log(problem.clock)) / float(busy_s.sum())) if busy_s.any() else 1.0


def _design(problem: EnergyProblem, unit_factor: _Array, active_factor: _Array) -> _Array:
    """What each window has of ``[unit_j, active_w]``, float64 (W, C + 1)."""
    return np.column_stack([problem.units * unit_factor, problem.busy_s * active_factor])


def _bend(problem: EnergyProblem, law: ClockLaw, values: _Array) -> _Array:
    """By how many joules (W,) windows grow with the law's shift, at ``values`` of ``[unit_j, active_w]``."""
    core_j = _design(problem, *law.core_factors(problem.clock)) @ values
    return np.asarray(core_j * np.log(problem.clock / law.pivot))


def _scaled_design(problem: EnergyProblem, law: ClockLaw, values: _Array, prior: EnergyPrior) -> _Array:
    """Derivatives of windows' joules by the scaled unknowns and, last, the shift, float64 (W, N + 1)."""
    num_known = problem.num_classes + 1
    design = np.zeros((problem.num_windows, len(prior.scale) + 1))
    design[:, :num_known] = _design(problem, *law.factors(problem.clock)) * prior.scale[:num_known]
    design[:, -1] = _bend(problem, law, values[:num_known]) * _SHIFT_ERROR
    return design


def _fit(
    problem: EnergyProblem,
    model: PowerModel,
    prior: EnergyPrior,
    values: _Array,
    covariance: _Array,
    window_error: float,
    law: ClockLaw,
    shift_error: float,
) -> EnergyFit:
    """The fit with ``values`` of ``[unit_j, active_w, coefficient, time_w]``; groups by the units of ``problem``."""
    num_classes = problem.num_classes
    unit_j, coefficient = values[:num_classes], values[num_classes + 1 :]
    units = problem.units.sum(axis=0)
    units = np.where(units > 0, units, 1.0)
    group, is_resolved = collinear_groups(
        unit_j * units, covariance[:num_classes, :num_classes] * np.outer(units, units)
    )
    return EnergyFit(
        model=model,
        unit_j=unit_j,
        active_w=float(values[num_classes]),
        coefficient=coefficient[:-1],
        covariance=covariance,
        components_j=_components(unit_j, prior.work, coefficient, model),
        group=group,
        is_resolved=is_resolved,
        window_error=window_error,
        law=law,
        shift_error=shift_error,
        modes=problem.modes,
        work=prior.work,
        time_w=float(coefficient[-1]),
    )


def _components(unit_j: _Array, work: _Array, coefficient: _Array, model: PowerModel) -> _Array:
    """Joules of a unit by feature; by the model's coefficients where the fitted ones explain nothing."""
    fitted_j = work[:, :-1] * coefficient[:-1]
    expected_j = work[:, :-1] * model.coefficient
    parts = np.where(fitted_j.sum(axis=1, keepdims=True) > 0, fitted_j, expected_j)
    parts[parts.sum(axis=1) <= 0, _time_column(model)] = 1.0
    shares: _Array = parts / parts.sum(axis=1, keepdims=True)
    return shares * unit_j[:, None]


def _time_column(model: PowerModel) -> int:
    features = model.features
    return features.index(PowerFeature.SM_SECONDS) if PowerFeature.SM_SECONDS in features else len(features) - 1


def transfer(
    fit: EnergyFit, keys: Sequence[Hashable], other_keys: Sequence[Hashable], other_problem: EnergyProblem
) -> EnergyFit:
    """A fit for another run's classes, from what this run has taught.

    A class that was there keeps its joules, in proportion to its work if a unit of it has other work now; the further
    the work is from what was seen, the more of the discrepancy of unseen kernels is added; all of it if the work is
    known in another way. A new class, or one with more than twice or less than half the work, gets its work's joules
    with that whole discrepancy.

    Args:
        fit: Of one run.
        keys: What its classes are called, (C,).
        other_keys: What the other run's are called, (D,).
        other_problem: The other run; its measured energy is not looked at.
    """
    other = energy_prior(other_problem, fit.model, fit.time_w)
    modes = other_problem.modes
    coefficient = np.append(fit.coefficient, fit.time_w)
    expected_j, seen_j = other.work @ coefficient, fit.work @ coefficient
    place = {key: number for number, key in enumerate(keys)}
    num_classes, num_seen = len(other_keys), len(keys)
    loading = np.zeros((num_classes + 1 + len(fit.coefficient), len(fit.covariance)))
    loading[num_classes:, num_seen:] = np.eye(1 + len(fit.coefficient))
    unit_j, extra = np.zeros(num_classes), np.zeros(num_classes)
    for number, key in enumerate(other_keys):
        seen = place.get(key)
        ratio = expected_j[number] / seen_j[seen] if seen is not None and seen_j[seen] > 0 else 0.0
        if seen is None or not 1 / _MAX_RATIO <= ratio <= _MAX_RATIO:
            loading[number, num_seen + 1 :] = other.work[number, :-1]
            unit_j[number], extra[number] = expected_j[number], other.discrepancy[number] * expected_j[number]
            continue
        strangeness = min(abs(ratio - 1.0), 1.0) if fit.modes[seen] is modes[number] else 1.0
        loading[number, seen] = ratio
        unit_j[number] = ratio * fit.unit_j[seen]
        extra[number] = other.discrepancy[number] * strangeness * unit_j[number]
    covariance = loading @ fit.covariance @ loading.T
    covariance[np.arange(num_classes), np.arange(num_classes)] += extra**2
    values = np.concatenate([unit_j, [fit.active_w], coefficient])
    law = replace(fit.law, dram_share=other.dram_share)
    return _fit(other_problem, fit.model, other, values, covariance, fit.window_error, law, fit.shift_error)
