"""The estimator where the sensor sees only part of the time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qmeter_native.attribution.energy_fit import fit_energy
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel

UNIT_J = np.array([0.02, 0.05, 0.08])
ACTIVE_W = 30.0
IDLE_W = 100.0


def power_model() -> PowerModel:
    return PowerModel(
        features=(PowerFeature.SM_SECONDS,),
        coefficient=np.array([300.0]),
        covariance=np.array([[100.0**2]]),
        reference_mhz=1980.0,
        core_exponent=1.5,
        active_w=ACTIVE_W,
        active_error_w=5.0,
        active_exponent=2.0,
        idle_w=IDLE_W,
        idle_w_per_k=0.0,
        idle_temperature_c=40.0,
        discrepancy={EnergyMode.COUNTERS: 0.5, EnergyMode.SHAPES: 0.5, EnergyMode.TIME: 0.5},
        window_error=0.003,
        source="calibrated",
    )


def seen_in_part(num_windows: int = 60) -> EnergyProblem:
    """Windows of which the sensor saw between half and one and a half of each class's work, and of the busy time."""
    random = np.random.default_rng(3)
    units = random.uniform(500, 2500, (num_windows, 3))
    seen_units = units * random.uniform(0.5, 1.5, units.shape)
    unit_s = np.array([1e-4, 2e-4, 3e-4])
    seen_busy_s = seen_units @ unit_s
    length_s = np.full(num_windows, 5.0)
    energy_j = IDLE_W * length_s + ACTIVE_W * seen_busy_s + seen_units @ UNIT_J
    return EnergyProblem(
        length_s=length_s,
        energy_j=energy_j * random.normal(1.0, 0.001, num_windows),
        error_j=0.001 * energy_j,
        idle_w=np.full(num_windows, IDLE_W),
        busy_s=units @ unit_s,
        clock=np.ones(num_windows),
        cap_w=np.zeros(num_windows),
        units=units,
        time_s=units * unit_s,
        features=(PowerFeature.SM_SECONDS,),
        work=unit_s[:, None],
        modes=(EnergyMode.COUNTERS,) * 3,
        is_fitted=np.ones(num_windows, bool),
        seen_units=seen_units,
        seen_busy_s=seen_busy_s,
    )


def test_joules_are_recovered_from_what_the_sensor_saw() -> None:
    problem = seen_in_part()
    fit = fit_energy(problem, power_model())
    assert fit.unit_j == pytest.approx(UNIT_J, rel=0.03)
    value_j, error_j = fit.class_j(problem.units.sum(axis=0))
    assert np.all(np.abs(value_j - UNIT_J * problem.units.sum(axis=0)) <= 3 * error_j)


def test_without_knowing_what_it_saw_they_are_not() -> None:
    problem = replace(seen_in_part(), seen_units=None, seen_busy_s=None)
    assert fit_energy(problem, power_model()).unit_j != pytest.approx(UNIT_J, rel=0.03)


def test_the_reading_is_of_the_work_seen_and_the_energy_of_the_work_done() -> None:
    problem = seen_in_part()
    fit = fit_energy(problem, power_model())
    assert fit.predict_reading(problem).mean_j == pytest.approx(problem.energy_j, rel=0.01)
    true_j = IDLE_W * problem.length_s + ACTIVE_W * problem.busy_s + problem.units @ UNIT_J
    assert fit.predict(problem).mean_j == pytest.approx(true_j, rel=0.02)


def test_a_sensor_that_sees_all_reads_the_energy() -> None:
    problem = replace(seen_in_part(), seen_units=None, seen_busy_s=None)
    fit = fit_energy(problem, power_model())
    assert fit.predict_reading(problem).mean_j.tolist() == fit.predict(problem).mean_j.tolist()
