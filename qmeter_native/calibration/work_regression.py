"""Joules of kernels as sums of their work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_prior import features_of
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.robust_posterior import left_out_spread, robust_posterior
from qmeter_native.model.power_model import PowerFeature, PowerModel

__all__ = ["Coefficients", "WorkTable", "regress"]

_Array = NDArray[Any]

_PRIOR_ERROR: Final = 0.5
"""Least standard deviation over mean of what was known of coefficients before: a calibration is to measure them."""
_NEW_SHARE: Final = 0.3
"""Prior of a coefficient of which nothing was known: none, give or take this part of a typical kernel's joules."""
_MIN_SPREAD: Final = 0.02
_FIRST_SPREAD: Final = 0.15
_NUM_PASSES: Final = 4


@dataclass(frozen=True, slots=True)
class WorkTable:
    """Classes (C), what they cost and what they did (K features).

    Attributes:
        prior: What was known before.
        features: The prior's, and those that the kernels add.
        work: float64 (C, K), of one unit.
        prior_coefficient: float64 (K,), joules a unit of work.
        prior_error: float64 (K,), its standard errors.
        dynamic_j: float64 (C,), joules of a unit beyond active power, at the reference clock.
        gross_j: float64 (C,), with active power.
        active_s: float64 (C,), time of a unit in which active power is drawn.
    """

    prior: PowerModel
    features: tuple[PowerFeature, ...]
    work: _Array
    prior_coefficient: _Array
    prior_error: _Array
    dynamic_j: _Array
    gross_j: _Array
    active_s: _Array

    @classmethod
    def of(cls, problem: EnergyProblem, prior: PowerModel) -> WorkTable:
        """With joules by the prior, which `with_joules` replaces; where it knows nothing, by active power and time."""
        new = [
            feature
            for number, feature in enumerate(problem.features)
            if feature not in prior.features and problem.work[:, number].any()
        ]
        features = (*prior.features, *new)
        known = replace(
            prior,
            features=features,
            coefficient=np.append(prior.coefficient, np.zeros(len(new))),
        )
        work = features_of(problem, known)
        time_s = problem.time_s.sum(axis=0) / np.maximum(problem.units.sum(axis=0), 1e-300)
        expected_j = work @ known.coefficient
        expected_j = np.where(expected_j > 0, expected_j, max(prior.active_w, 1.0) * time_s)
        error = np.maximum(np.sqrt(np.diag(prior.covariance)), _PRIOR_ERROR * prior.coefficient)
        guess = [_typical(expected_j, work[:, len(error) + number]) for number in range(len(new))]
        return cls(
            prior=prior,
            features=features,
            work=work,
            prior_coefficient=known.coefficient,
            prior_error=np.append(error, np.array(guess)),
            dynamic_j=expected_j,
            gross_j=expected_j + prior.active_w * time_s,
            active_s=time_s,
        )

    @property
    def unseen(self) -> frozenset[PowerFeature]:
        """Features of which no class did any work."""
        return frozenset(feature for number, feature in enumerate(self.features) if not self.work[:, number].any())

    def dram_share(self, coefficient: _Array) -> _Array:
        """float64 (C,), part of the joules that does not go with the core's voltage."""
        is_core = np.array([feature.is_core for feature in self.features], bool)
        all_j = self.work @ coefficient
        dram_j = self.work @ np.where(is_core, 0.0, coefficient)
        return np.asarray(np.divide(dram_j, all_j, out=np.zeros_like(all_j), where=all_j > 0))

    def with_joules(self, dynamic_j: _Array, active_w: float, active_s: _Array) -> WorkTable:
        """With measured joules of a unit, of which active power had taken ``active_w * active_s``."""
        floor = 1e-3 * np.median(dynamic_j / active_s) * active_s
        dynamic_j = np.maximum(dynamic_j, floor)
        return replace(self, dynamic_j=dynamic_j, gross_j=dynamic_j + active_w * active_s, active_s=active_s)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Joules a unit of work and the power of an active chip, with their covariance.

    Attributes:
        vector: float64 (K + 1,), the coefficients and, last, active watts.
        covariance: float64 (K + 1, K + 1).
    """

    vector: _Array
    covariance: _Array

    @property
    def coefficient(self) -> _Array:
        """float64 (K,)."""
        return self.vector[:-1]

    @property
    def active_w(self) -> float:
        """Watts at the reference clock."""
        return float(self.vector[-1])

    def gross_error(self, table: WorkTable) -> _Array:
        """float64 (C,), relative error of predicted joules of a unit, active power included."""
        predicted_j = table.work @ self.coefficient + self.active_w * table.active_s
        return np.asarray(predicted_j / table.gross_j - 1.0)

    def dynamic_error(self, table: WorkTable) -> _Array:
        """float64 (C,), measured joules beyond active power over predicted ones, less 1."""
        predicted_j = np.maximum(table.work @ self.coefficient, 1e-3 * table.gross_j)
        return np.asarray((table.gross_j - self.active_w * table.active_s) / predicted_j - 1.0)

    def with_jackknife(self, without: Sequence[Coefficients]) -> tuple[_Array, float]:
        """Covariance (K, K) and standard error of active watts, widened to what leaving kinds out tells.

        The jackknife's variance of n estimates is ``(n - 1) / n * Σ (v_i - mean)²`` (Efron and Tibshirani, 1993).
        Where it exceeds the regression's own, that is scaled up to it and keeps its correlations.
        """
        vectors = np.array([found.vector for found in without])
        spread = np.sqrt((len(vectors) - 1) * vectors.var(axis=0))
        own = np.sqrt(np.diag(self.covariance))
        widening = np.maximum(1.0, spread / np.maximum(own, 1e-300))
        covariance = self.covariance * np.outer(widening, widening)
        return covariance[:-1, :-1], float(np.sqrt(covariance[-1, -1]))


def regress(table: WorkTable, rows: _Array | None = None) -> Coefficients:
    """Coefficients that explain the joules of the classes in ``rows`` (bool (C,), by default all).

    Classes err relatively, by the spread of those left out, which is found with the coefficients.
    """
    rows = np.ones(len(table.gross_j), bool) if rows is None else rows
    prior = np.append(table.prior_coefficient, table.prior.active_w)
    error = np.append(table.prior_error, max(table.prior.active_error_w, _PRIOR_ERROR * table.prior.active_w, 1.0))
    scale = np.where(error > 0, error, 1.0)
    precision = np.diag(np.where(error > 0, 1.0, 1e12))
    gross_j = table.gross_j[rows]
    design = np.column_stack([table.work, table.active_s])[rows] * scale / gross_j[:, None]
    ones = np.ones(len(gross_j))
    spread = _FIRST_SPREAD
    for _ in range(_NUM_PASSES):
        found = robust_posterior(design, ones, spread * ones, prior / scale, precision)
        told = left_out_spread(found, spread * ones, 0.0 * ones, ones)
        spread = _FIRST_SPREAD if told is None else max(told, _MIN_SPREAD)
    return Coefficients(found.solution * scale, found.covariance * np.outer(scale, scale))


def _typical(joules: _Array, work: _Array) -> float:
    """What a unit of work would cost if it were `_NEW_SHARE` of a typical kernel's joules."""
    does = work > 0
    return float(_NEW_SHARE * np.median(joules[does] / work[does]))
