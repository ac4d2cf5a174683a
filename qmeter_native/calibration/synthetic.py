"""Made-up GPUs with known energies of kernels: what tests of the estimator, and its published coverage, rest on.

The power of the chip follows `PowerModel` with true coefficients that differ from those of the model that the estimator
is given, as the model's covariance says; kernels differ from their work's joules as its discrepancies say; and windows
differ from the formula by the model's window error and the sensor's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.clock_law import ClockLaw
from qmeter_native.attribution.energy_fit import fit_energy
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel

__all__ = ["KINDS", "SyntheticCase", "coverage", "synthetic_case", "synthetic_model"]

_Array = NDArray[Any]

KINDS: Final = ("counters", "shapes", "time", "collinear", "capped", "bent")
"""Kinds of cases: by what is known of the work; a replayed graph without counters, whose classes never run apart;
windows at a power cap, at lower clocks; and a chip whose energy goes with its clocks otherwise than the model says."""
_CAP_W: Final = 700.0
_IDLE_W: Final = 125.0
_FEATURES: Final = (
    PowerFeature.DRAM_BYTES,
    PowerFeature.L2_BYTES,
    PowerFeature.FP16_FLOP,
    PowerFeature.INSTRUCTIONS,
    PowerFeature.SM_SECONDS,
)
_COEFFICIENT: Final = np.array([55e-12, 12e-12, 0.35e-12, 30e-12, 60.0])
"""Joules a unit of work, the order of magnitude of an H200."""
_RATE: Final = np.array([3.0e12, 6.0e12, 600e12, 1.0e12, 1.0])
"""Units of work a second of a kernel that does nothing else."""


@dataclass(frozen=True, slots=True)
class SyntheticCase:
    """A problem and its truth.

    Attributes:
        problem: What the estimator sees.
        model: The prior that it is given.
        unit_j: float64 (C,), true dynamic joules of one unit at the reference clock.
        class_j: float64 (C,), true dynamic joules in all windows, at their clocks.
        active_w: True active power.
        window_j: float64 (W,), true energy of each window, without the sensor's error.
    """

    problem: EnergyProblem
    model: PowerModel
    unit_j: _Array
    class_j: _Array
    active_w: float
    window_j: _Array


def synthetic_model() -> PowerModel:
    """A calibrated model of the made-up chip."""
    return PowerModel(
        features=_FEATURES,
        coefficient=_COEFFICIENT,
        covariance=np.diag((0.08 * _COEFFICIENT) ** 2),
        reference_mhz=1980.0,
        core_exponent=1.6,
        active_w=60.0,
        active_error_w=8.0,
        active_exponent=1.2,
        idle_w=_IDLE_W,
        idle_w_per_k=0.3,
        idle_temperature_c=40.0,
        discrepancy={EnergyMode.COUNTERS: 0.10, EnergyMode.SHAPES: 0.20, EnergyMode.TIME: 0.40},
        window_error=0.004,
        source="calibrated",
    )


def synthetic_case(kind: str, seed: int, num_windows: int = 60, num_classes: int = 12) -> SyntheticCase:
    """A made-up run; the same for the same arguments. ``kind`` is one of `KINDS`."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    model = synthetic_model()
    mean_s = rng.lognormal(np.log(60e-6), 0.8, num_classes)
    work = _work(rng, mean_s)
    mode = {"shapes": EnergyMode.SHAPES, "collinear": EnergyMode.SHAPES, "time": EnergyMode.TIME}.get(
        kind, EnergyMode.COUNTERS
    )
    coefficient = np.maximum(rng.multivariate_normal(model.coefficient, model.covariance), 0.0)
    expected_j = work @ coefficient
    if mode is EnergyMode.TIME:
        expected_j = np.full(num_classes, np.median(expected_j / mean_s)) * mean_s
    unit_j = expected_j * np.maximum(1 + model.discrepancy[mode] * rng.standard_normal(num_classes), 0.0)
    active_w = max(0.0, rng.normal(model.active_w, model.active_error_w))
    length_s = rng.uniform(0.5, 2.0, num_windows)
    busy_s = length_s * rng.uniform(0.3, 0.98, num_windows)
    time_s = busy_s[:, None] * _mix(rng, kind, num_windows, num_classes)
    dram_share = work[:, 0] * model.coefficient[0] / (work @ model.coefficient)
    if mode is EnergyMode.TIME:
        dram_share = np.zeros(num_classes)
    true = replace(model, active_w=active_w)
    if kind == "bent":
        true = replace(true, core_exponent=model.core_exponent + 0.4, active_exponent=model.active_exponent + 0.4)
    clock = rng.uniform(0.8, 1.0, num_windows) if kind == "bent" else np.ones(num_windows)
    cap_w = np.zeros(num_windows)
    units = time_s / mean_s
    if kind == "capped":
        units = units * 1.25
        clock, cap_w = _capped_clock(units, unit_j, dram_share, busy_s, length_s, true)
    idle_w = _IDLE_W + rng.normal(0, 1.5, num_windows)
    window_j = idle_w * length_s + _above_idle(units, unit_j, dram_share, busy_s, clock, true)
    window_j = window_j * (1 + model.window_error * rng.standard_normal(num_windows))
    error_j = 0.002 * 300 * np.ones(num_windows)
    outlier = np.where(rng.random(num_windows) < 0.03, 5.0, 1.0)
    shown = work.copy()
    if mode is EnergyMode.TIME:
        shown[:, :-1] = 0.0
    problem = EnergyProblem(
        length_s=length_s,
        energy_j=window_j + error_j * outlier * rng.standard_normal(num_windows),
        error_j=error_j,
        idle_w=np.full(num_windows, _IDLE_W),
        busy_s=busy_s,
        clock=clock,
        cap_w=cap_w,
        units=units,
        time_s=time_s,
        features=_FEATURES,
        work=shown,
        modes=(mode,) * num_classes,
        is_fitted=np.ones(num_windows, bool),
    )
    class_j = (units * ClockLaw.of(true, dram_share).factors(clock)[0]).sum(axis=0) * unit_j
    return SyntheticCase(problem, model, unit_j, class_j, active_w, window_j)


def coverage(cases_per_kind: int, first_seed: int = 0) -> dict[str, tuple[int, int]]:
    """By kind of case: how many true joules of classes lie in their 95 % intervals, and of how many."""
    found = {}
    for kind in KINDS:
        hits = [_hits(synthetic_case(kind, first_seed + number)) for number in range(cases_per_kind)]
        inside = np.concatenate(hits)
        found[kind] = (int(inside.sum()), len(inside))
    return found


def _hits(case: SyntheticCase) -> _Array:
    fit = fit_energy(case.problem, case.model)
    units = (case.problem.units * fit.law.factors(case.problem.clock)[0]).sum(axis=0)
    value, error = fit.class_j(units)
    return np.asarray(np.abs(value - case.class_j) <= 1.96 * error)


def _work(rng: np.random.Generator, mean_s: _Array) -> _Array:
    """Work of one launch: utilisations of the chip's parts times what the part does in that time."""
    use = rng.beta(1.0, 1.6, (len(mean_s), len(_FEATURES)))
    use[:, -1] = rng.uniform(0.6, 1.0, len(mean_s))
    return np.asarray(use * _RATE * mean_s[:, None])


def _mix(rng: np.random.Generator, kind: str, num_windows: int, num_classes: int) -> _Array:
    """Parts of the busy time; in a replayed graph always the same but for some per mille."""
    if kind == "collinear":
        parts = rng.dirichlet(np.full(num_classes, 4.0)) * rng.lognormal(0, 0.003, (num_windows, num_classes))
    else:
        parts = rng.dirichlet(np.full(num_classes, 0.7), num_windows)
    return np.asarray(parts / parts.sum(axis=1, keepdims=True))


def _above_idle(
    units: _Array, unit_j: _Array, dram_share: _Array, busy_s: _Array, clock: _Array, model: PowerModel
) -> _Array:
    """Joules above idle of windows at a clock."""
    unit_factor, active_factor = ClockLaw.of(model, dram_share).factors(clock)
    return np.asarray((units * unit_factor) @ unit_j + model.active_w * active_factor * busy_s)


def _capped_clock(
    units: _Array, unit_j: _Array, dram_share: _Array, busy_s: _Array, length_s: _Array, model: PowerModel
) -> tuple[_Array, _Array]:
    """Clocks that keep each window's power at the cap, by bisection, and where the cap holds them down."""
    low, high = np.full(len(busy_s), 0.4), np.ones(len(busy_s))
    for _ in range(40):
        middle = (low + high) / 2
        power_w = _IDLE_W + _above_idle(units, unit_j, dram_share, busy_s, middle, model) / length_s
        low, high = np.where(power_w > _CAP_W, low, middle), np.where(power_w > _CAP_W, middle, high)
    is_capped = high < 1.0
    return np.where(is_capped, low, 1.0), np.where(is_capped, _CAP_W, 0.0)
