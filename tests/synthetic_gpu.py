"""A made-up GPU that runs kernels: its calibration's windows, and whole captures of its sensor, with known truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.clock_law import ClockLaw
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.calibration.synthetic import synthetic_model
from qmeter_native.model.power_model import EnergyMode, PowerModel

Array = NDArray[Any]
CAP_W = 700.0


@dataclass(frozen=True)
class Calibration:
    """Windows of load kernels and the chip's true model."""

    problem: EnergyProblem
    kinds: tuple[str, ...]
    truth: PowerModel
    unit_j: Array


def calibration(seed: int, num_kinds: int = 16, discrepancy: float = 0.08, rounds: int = 2) -> Calibration:
    """Each kind alone at three duty levels and flat out, at the cap's clock if it needs one; and mixtures."""
    rng = np.random.default_rng(seed)
    truth = replace(synthetic_model(), core_exponent=2.0, active_exponent=1.0)
    truth = replace(truth, coefficient=truth.coefficient * rng.uniform(1.2, 2.2, len(truth.coefficient)))
    mean_s = rng.lognormal(np.log(200e-6), 0.5, num_kinds)
    rate = np.array([3.0e12, 6.0e12, 600e12, 1.0e12, 1.0])
    use = rng.beta(0.7, 1.0, (num_kinds, 5))
    use[:, -1] = rng.uniform(0.3, 1.0, num_kinds)
    work = use * rate * mean_s[:, None]
    unit_j = work @ truth.coefficient * np.maximum(0.3, 1 + discrepancy * rng.standard_normal(num_kinds))
    alone = np.concatenate([np.eye(num_kinds) * duty for duty in (0.4, 0.7, 1.0)])
    mixtures = rng.dirichlet(np.full(num_kinds, 0.4), 16) * rng.uniform(0.5, 1.0, (16, 1))
    parts = np.tile(np.concatenate([alone, mixtures]), (rounds, 1))
    length_s = np.full(len(parts), 2.0)
    share = work[:, 0] * truth.coefficient[0] / (work @ truth.coefficient)
    law = ClockLaw.of(truth, share)
    clock = cap_clock(parts / mean_s, unit_j, parts.sum(axis=1), law, truth)
    time_s = parts * length_s[:, None]
    units = time_s / mean_s * clock[:, None]
    unit_factor, active_factor = law.factors(clock)
    energy_j = truth.idle_w * length_s + (units * unit_factor) @ unit_j
    energy_j = energy_j + truth.active_w * active_factor * time_s.sum(axis=1)
    measured_j = energy_j * (1 + 0.003 * rng.standard_normal(len(parts))) + 0.5 * rng.standard_normal(len(parts))
    problem = EnergyProblem(
        length_s=length_s,
        energy_j=measured_j,
        error_j=np.full(len(parts), 0.5),
        idle_w=np.full(len(parts), truth.idle_w),
        busy_s=time_s.sum(axis=1),
        clock=clock,
        cap_w=np.where(clock < 1, CAP_W, 0.0),
        units=units,
        time_s=time_s,
        features=truth.features,
        work=work,
        modes=(EnergyMode.COUNTERS,) * num_kinds,
        is_fitted=np.ones(len(parts), bool),
    )
    return Calibration(problem, tuple(f"kernel{number}" for number in range(num_kinds)), truth, unit_j)


def cap_clock(rate: Array, unit_j: Array, busy: Array, law: ClockLaw, model: PowerModel) -> Array:
    """Clocks at which the chip stays below its cap: work slows down with them.

    ``rate``: units a second (W, C) at the reference clock; ``busy``: part of the time (W,).
    """
    low, high = np.full(len(rate), 0.3), np.ones(len(rate))
    for _ in range(40):
        middle = (low + high) / 2
        unit_factor, active_factor = law.factors(middle)
        power_w = model.idle_w + (rate * middle[:, None] * unit_factor) @ unit_j
        power_w = power_w + model.active_w * active_factor * busy
        low, high = np.where(power_w > CAP_W, low, middle), np.where(power_w > CAP_W, middle, high)
    return np.where(high < 1, low, 1.0)
