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

KINDS: Final = ("counters", "shapes", "time", "collinear", "capped", "bent", "nonlinear")
"""Kinds of cases: by what is known of the work; a replayed graph without counters, whose classes never run apart;
windows at a power cap, at lower clocks; a chip whose energy goes with its clocks otherwise than the model says; and one
whose kernels cost more the more power the chip draws, which the model has no term for."""
_MODES: Final = {"shapes": EnergyMode.SHAPES, "collinear": EnergyMode.SHAPES, "time": EnergyMode.TIME}
_BEND: Final = 0.4
"""What the true exponents of the clock have above the model's."""
_EXCESS: Final = 0.06
_HEAVY: Final = 1.25
"""How much more the kernels do where they are to reach the cap."""
_IDLE_SPREAD_W: Final = 1.5
_SENSOR_J: Final = 0.6
_WILD_SHARE: Final = 0.03
_WILD: Final = 5.0
"""Part of the windows whose sensor errs by this many times what it says."""
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
        window_j: float64 (W,), true energy of each window, without the sensor's error.
    """

    problem: EnergyProblem
    model: PowerModel
    unit_j: _Array
    class_j: _Array
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
    chip = _Chip.of(rng, kind, num_classes, model)
    length_s = rng.uniform(0.5, 2.0, num_windows)
    busy_s = length_s * rng.uniform(0.3, 0.98, num_windows)
    time_s = busy_s[:, None] * _mix(rng, kind, num_windows, num_classes)
    units = time_s / chip.mean_s
    clock, cap_w = np.ones(num_windows), np.zeros(num_windows)
    if kind == "bent":
        clock = rng.uniform(0.8, 1.0, num_windows)
    if kind == "capped":
        units = units * _HEAVY
        clock, cap_w = _capped_clock(chip, units, busy_s, length_s)
    dynamic_j = chip.dynamic_j(units, clock, length_s)
    idle_j = (_IDLE_W + rng.normal(0, _IDLE_SPREAD_W, num_windows)) * length_s
    window_j = idle_j + dynamic_j.sum(axis=1) + chip.active_j(busy_s, clock)
    window_j = window_j * (1 + model.window_error * rng.standard_normal(num_windows))
    tail = np.where(rng.random(num_windows) < _WILD_SHARE, _WILD, 1.0)
    problem = EnergyProblem(
        length_s=length_s,
        energy_j=window_j + _SENSOR_J * tail * rng.standard_normal(num_windows),
        error_j=np.full(num_windows, _SENSOR_J),
        idle_w=np.full(num_windows, _IDLE_W),
        busy_s=busy_s,
        clock=clock,
        cap_w=cap_w,
        units=units,
        time_s=time_s,
        features=_FEATURES,
        work=chip.shown_work,
        modes=(chip.mode,) * num_classes,
        is_fitted=np.ones(num_windows, bool),
    )
    return SyntheticCase(problem, model, chip.unit_j, dynamic_j.sum(axis=0), window_j)


@dataclass(frozen=True, slots=True)
class _Chip:
    """What is true of a chip and its kernels (C).

    Attributes:
        model: The true active power and exponents.
        mode: How the kernels' work is known.
        mean_s: float64 (C,), time of a launch.
        work: float64 (C, K), work of a launch.
        unit_j: float64 (C,), dynamic joules of a launch.
        dram_share: float64 (C,), part of them that does not go with the clock.
        excess: What dynamic joules grow by from 300 to 700 W of dynamic power.
    """

    model: PowerModel
    mode: EnergyMode
    mean_s: _Array
    work: _Array
    unit_j: _Array
    dram_share: _Array
    excess: float

    @classmethod
    def of(cls, rng: np.random.Generator, kind: str, num_classes: int, model: PowerModel) -> _Chip:
        """A chip as unlike the model as the model says of itself."""
        mode = _MODES.get(kind, EnergyMode.COUNTERS)
        mean_s = rng.lognormal(np.log(60e-6), 0.8, num_classes)
        work = _work(rng, mean_s)
        expected_j = work @ np.maximum(rng.multivariate_normal(model.coefficient, model.covariance), 0.0)
        dram_share = work[:, 0] * model.coefficient[0] / (work @ model.coefficient)
        if mode is EnergyMode.TIME:
            expected_j = np.full(num_classes, np.median(expected_j / mean_s)) * mean_s
            dram_share = np.zeros(num_classes)
        unlike = np.maximum(1 + model.discrepancy[mode] * rng.standard_normal(num_classes), 0.0)
        bend = _BEND if kind == "bent" else 0.0
        true = replace(
            model,
            active_w=max(0.0, rng.normal(model.active_w, model.active_error_w)),
            core_exponent=model.core_exponent + bend,
            active_exponent=model.active_exponent + bend,
        )
        excess = _EXCESS if kind == "nonlinear" else 0.0
        return cls(true, mode, mean_s, work, expected_j * unlike, dram_share, excess)

    @property
    def shown_work(self) -> _Array:
        """The work as the estimator sees it, float64 (C, K): SM seconds alone where only the time is known."""
        is_shown = [self.mode is not EnergyMode.TIME or feature is PowerFeature.SM_SECONDS for feature in _FEATURES]
        return np.asarray(self.work * np.array(is_shown))

    def dynamic_j(self, units: _Array, clock: _Array, length_s: _Array) -> _Array:
        """float64 (W, C)."""
        linear_j = units * ClockLaw.of(self.model, self.dram_share).factors(clock)[0] * self.unit_j
        power_w = linear_j.sum(axis=1) / length_s
        return np.asarray(linear_j * (1 + self.excess * (power_w - 300.0) / 400.0)[:, None])

    def active_j(self, busy_s: _Array, clock: _Array) -> _Array:
        """float64 (W,)."""
        return np.asarray(self.model.active_w * ClockLaw.of(self.model, self.dram_share).factors(clock)[1] * busy_s)


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


def _capped_clock(chip: _Chip, units: _Array, busy_s: _Array, length_s: _Array) -> tuple[_Array, _Array]:
    """Clocks that keep each window's power at the cap, by bisection, and where the cap holds them down."""
    low, high = np.full(len(busy_s), 0.4), np.ones(len(busy_s))
    for _ in range(40):
        middle = (low + high) / 2
        above_j = chip.dynamic_j(units, middle, length_s).sum(axis=1) + chip.active_j(busy_s, middle)
        is_above = _IDLE_W + above_j / length_s > _CAP_W
        low, high = np.where(is_above, low, middle), np.where(is_above, middle, high)
    is_capped = high < 1.0
    return np.where(is_capped, low, 1.0), np.where(is_capped, _CAP_W, 0.0)
