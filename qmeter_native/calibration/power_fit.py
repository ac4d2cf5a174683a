"""A power model from windows of known kernels: what a byte, a FLOP, an SM second and a busy chip cost.

In two steps, repeated until they agree. First the joules of a unit of each class, free of any model of its work, from
the windows in which it ran alone or among others. Then these, with the active power over the time of a unit, which
windows alone cannot tell apart from it, as non-negative sums of work. Kernels count by their relative errors, and those
that no sum follows count less (Student's t). The exponents of the clock are those under which the windows are most
probable, by a grid (profile likelihood), if clocks vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.clock_law import ClockLaw
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.robust_posterior import Posterior, left_out_spread, robust_posterior
from qmeter_native.calibration.load_problem import selected
from qmeter_native.calibration.work_regression import Coefficients, WorkTable, regress
from qmeter_native.errors import UsageError
from qmeter_native.model.device_profile import ModelFit
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel

__all__ = ["fit_power_model"]

_Array = NDArray[Any]

_CORE_EXPONENTS: Final = np.arange(0.5, 3.01, 0.25)
_ACTIVE_EXPONENTS: Final = np.arange(0.0, 3.01, 0.5)
_EXPONENT_ERRORS: Final = (0.5, 1.0)
"""Prior standard deviations of the core's and the active power's exponents around the prior model's: two exponents and
a handful of clocks leave much open."""
_MIN_CLOCK_SPREAD: Final = 0.03
"""Clocks that differ by less say nothing of exponents."""
_FREE: Final = 3.0
"""Prior standard deviation over mean of a class's joules in the first step: next to none."""
_MAX_LEVERAGE: Final = 0.9
"""Of a window in its own prediction; the only one of a kernel has nearly 1."""
_NUM_ROUNDS: Final = 8
_SETTLED: Final = 2e-3
_MIN_WINDOW_ERROR: Final = 1e-3
_DEGREES: Final = 4.0
"""Of Student's t distribution of windows' errors, as in the fit."""


def fit_power_model(problem: EnergyProblem, kinds: Sequence[str], prior: PowerModel) -> tuple[PowerModel, ModelFit]:
    """Fit coefficients, exponents and how far they can be trusted.

    Args:
        problem: Windows of load kernels, each class alone at several duty levels, and mixtures.
        kinds: What each class is called, (C,). Classes of one kind are left out together.
        prior: Where to start; its coefficients count as known to 50 % at best. Its idle power and reference clock are
            kept, and its discrepancies where the problem does not tell them.

    Returns:
        The model, with ``source`` ``calibrated``, and how it does on what it did not see. A kernel's error there is
        that of its joules above idle, active power included.

    Raises:
        UsageError: Fewer than three kinds ran in the fitted windows.
    """
    ran = np.flatnonzero(problem.units[problem.is_fitted].sum(axis=0) > 0)
    problem, kinds = selected(problem, np.arange(problem.num_windows), ran), [kinds[number] for number in ran.tolist()]
    if len(set(kinds)) < 3:
        raise UsageError(
            f"{len(set(kinds))} kinds of kernels ran; a power model takes three at least",
            "calibrate with more load kernels",
        )
    step = _Step.start(problem, prior)
    for _ in range(_NUM_ROUNDS):
        before = step
        step = step.next(problem)
        if step.is_near(before):
            break
    return _model_and_fit(problem, kinds, step, prior)


@dataclass(frozen=True, slots=True)
class _Step:
    """One round: exponents, joules of a unit, coefficients.

    Attributes:
        law: How joules go with the clock.
        table: Joules and work of classes.
        found: The regression of the one on the other.
        windows: The first step's posterior, residuals by fitted window.
        window_error: Spread of windows left out, over their energy.
    """

    law: ClockLaw
    table: WorkTable
    found: Coefficients
    windows: Posterior
    window_error: float

    @classmethod
    def start(cls, problem: EnergyProblem, prior: PowerModel) -> _Step:
        """By the prior's exponents and coefficients."""
        table = WorkTable.of(problem, prior)
        law = ClockLaw.of(prior, table.dram_share(table.prior_coefficient))
        windows, window_error = _kernel_joules(problem, law, table.dynamic_j, prior.active_w, prior.window_error)
        table = table.with_joules(windows.solution * table.dynamic_j, prior.active_w, _active_s(problem, law))
        return cls(law, table, regress(table), windows, window_error)

    def next(self, problem: EnergyProblem) -> _Step:
        """One round more."""
        law = replace(self.law, dram_share=self.table.dram_share(self.found.coefficient))
        expected_j, active_w = self.table.dynamic_j, self.found.active_w
        law = _best_exponents(problem, law, self.table, active_w, self.window_error)
        windows, window_error = _kernel_joules(problem, law, expected_j, active_w, self.window_error)
        table = self.table.with_joules(windows.solution * expected_j, active_w, _active_s(problem, law))
        return _Step(law, table, regress(table), windows, window_error)

    def is_near(self, other: _Step) -> bool:
        """Whether a further round would change little."""
        scale = np.maximum(self.found.vector, 1e-300)
        is_same_law = self.law.core_exponent == other.law.core_exponent
        is_same_law &= self.law.active_exponent == other.law.active_exponent
        return is_same_law and bool(np.all(np.abs(self.found.vector - other.found.vector) <= _SETTLED * scale))


def _active_s(problem: EnergyProblem, law: ClockLaw) -> _Array:
    """Time of a unit, weighted by what active power does at its clock, float64 (C,)."""
    rows = problem.is_fitted
    active = law.factors(problem.clock[rows])[1]
    return np.asarray(active @ problem.time_s[rows] / problem.units[rows].sum(axis=0))


def _kernel_joules(
    problem: EnergyProblem, law: ClockLaw, expected_j: _Array, active_w: float, window_error: float
) -> tuple[Posterior, float]:
    """Joules of a unit of each class over ``expected_j``, free of work, and the spread of windows left out."""
    rows = problem.is_fitted
    energy_j, sensor_j = problem.energy_j[rows], problem.error_j[rows]
    design, target_j = _windows(problem, law, expected_j, active_w)
    for _ in range(3):
        noise_j = np.maximum(np.hypot(sensor_j, window_error * energy_j), 1e-9)
        windows = robust_posterior(
            design, target_j, noise_j, np.ones(len(expected_j)), np.eye(len(expected_j)) / _FREE**2
        )
        told = left_out_spread(windows, noise_j, sensor_j, energy_j)
        window_error = window_error if told is None else max(told, _MIN_WINDOW_ERROR)
    return windows, window_error


def _windows(problem: EnergyProblem, law: ClockLaw, expected_j: _Array, active_w: float) -> tuple[_Array, _Array]:
    """Fitted windows: derivatives by joules over ``expected_j``, and joules above idle and active power."""
    rows, read = problem.is_fitted, problem.as_read()
    unit_factor, active_factor = law.factors(problem.clock[rows])
    idle_j = (problem.idle_w * problem.length_s)[rows]
    target_j = problem.energy_j[rows] - idle_j - active_w * active_factor * read.busy_s[rows]
    return read.units[rows] * unit_factor * expected_j, target_j


def _best_exponents(
    problem: EnergyProblem, law: ClockLaw, table: WorkTable, active_w: float, window_error: float
) -> ClockLaw:
    """The law whose windows are most probable, each class's joules free; the given one if clocks hardly vary."""
    clock = problem.clock[problem.is_fitted]
    if clock.max() - clock.min() < _MIN_CLOCK_SPREAD * clock.max():
        return law
    laws = [
        replace(law, core_exponent=float(core), active_exponent=float(active))
        for core, active in product(_CORE_EXPONENTS, _ACTIVE_EXPONENTS)
    ]
    return min(laws, key=lambda candidate: _loss(problem, candidate, table, active_w, window_error))


def _loss(problem: EnergyProblem, law: ClockLaw, table: WorkTable, active_w: float, window_error: float) -> float:
    """Minus the logarithm of how probable the windows are under a law, and the law itself."""
    rows = problem.is_fitted
    noise_j = np.maximum(np.hypot(problem.error_j[rows], window_error * problem.energy_j[rows]), 1e-9)
    design, target_j = _windows(problem, law, table.dynamic_j, active_w)
    size = len(table.dynamic_j)
    residual = robust_posterior(design, target_j, noise_j, np.ones(size), np.eye(size) / _FREE**2).residual / noise_j
    far = (law.core_exponent - table.prior.core_exponent) / _EXPONENT_ERRORS[0]
    far_active = (law.active_exponent - table.prior.active_exponent) / _EXPONENT_ERRORS[1]
    fit = (_DEGREES + 1) / 2 * np.log1p(residual**2 / _DEGREES).sum()
    return float(fit) + (far**2 + far_active**2) / 2


def _model_and_fit(
    problem: EnergyProblem, kinds: Sequence[str], step: _Step, prior: PowerModel
) -> tuple[PowerModel, ModelFit]:
    """What to publish: with each kind left out in turn."""
    names = sorted(set(kinds))
    label = np.array(kinds, object)
    without = [regress(step.table, label != name) for name in names]
    kernels = {
        name: float(np.median(np.abs(found.gross_error(step.table)[label == name])))
        for name, found in zip(names, without, strict=True)
    }
    dynamic = np.concatenate(
        [found.dynamic_error(step.table)[label == name] for name, found in zip(names, without, strict=True)]
    )
    covariance, active_error_w = step.found.with_jackknife(without)
    model = replace(
        prior,
        features=step.table.features,
        coefficient=step.found.coefficient,
        covariance=covariance,
        core_exponent=step.law.core_exponent,
        active_exponent=step.law.active_exponent,
        active_w=step.found.active_w,
        active_error_w=active_error_w,
        discrepancy=_discrepancies(problem, step.table, _robust_sd(dynamic), prior),
        window_error=step.window_error,
        source="calibrated",
        unseen=step.table.unseen,
    )
    windows = _window_errors(problem, step)
    errors = np.array(list(kernels.values()))
    return model, ModelFit(
        kernel_error_median=float(np.median(errors)),
        kernel_error_p95=float(np.quantile(errors, 0.95)),
        window_error_median=float(np.median(windows)),
        window_error_p95=float(np.quantile(windows, 0.95)),
        num_kernels=len(names),
        num_windows=len(windows),
        kernels=kernels,
    )


def _window_errors(problem: EnergyProblem, step: _Step) -> _Array:
    """Relative errors of windows left out; a window that alone tells of a kernel has none."""
    errors = np.abs(step.windows.left_out) / np.maximum(problem.energy_j[problem.is_fitted], 1e-9)
    told = errors[step.windows.leverage < _MAX_LEVERAGE]
    return told if len(told) else np.array([step.window_error])


def _discrepancies(
    problem: EnergyProblem, table: WorkTable, spread: float, prior: PowerModel
) -> dict[EnergyMode, float]:
    """By mode: measured for that of most classes and for time; no mode knows more than a better one."""
    usual = max(EnergyMode, key=problem.modes.count)
    found = {**prior.discrepancy, EnergyMode.TIME: _time_discrepancy(problem, table), usual: spread}
    for better, worse in ((EnergyMode.COUNTERS, EnergyMode.SHAPES), (EnergyMode.SHAPES, EnergyMode.TIME)):
        found[worse] = max(found[better], found[worse])
    return found


def _time_discrepancy(problem: EnergyProblem, table: WorkTable) -> float:
    """Spread of the dynamic power of kernels, each around the median of the others."""
    if PowerFeature.SM_SECONDS in table.features:
        seconds = table.work[:, table.features.index(PowerFeature.SM_SECONDS)]
    else:
        seconds = problem.time_s.sum(axis=0) / problem.units.sum(axis=0)
    power_w = table.dynamic_j[seconds > 0] / seconds[seconds > 0]
    others_w = np.array([np.median(np.delete(power_w, number)) for number in range(len(power_w))])
    return _robust_sd(power_w / others_w - 1.0)


def _robust_sd(errors: _Array) -> float:
    """Spread around zero: the larger of the scaled median and two thirds of the root mean square.

    A dozen kernels make a median alone too bold: the second keeps one kernel in ten that no model follows in sight.
    """
    return float(max(1.4826 * np.median(np.abs(errors)), 2 / 3 * np.sqrt(np.mean(errors**2))))
