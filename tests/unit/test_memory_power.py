"""What the memory's own power says of kernels whose bytes cost more or less than usual."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qmeter_native.attribution.energy_fit import fit_energy
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.memory_power import MemoryPower, memory_shift
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel
from qmeter_native.units import NS_PER_S
from tests.factories import T0, CaptureBuilder

IDLE_W, AWAKE_W = 45.0, 22.0
MOVED = np.array([1e8, 2e8, 3e8])
BYTE_J = 44e-12 * np.array([0.8, 1.0, 1.3])
"""Reads cost less than writes."""
ELSEWHERE_J = 80e-12 * MOVED
"""Joules of a unit outside the memory's scope."""


def problem(num_windows: int = 24, length_s: float = 4.0) -> EnergyProblem:
    random = np.random.default_rng(5)
    units = random.uniform(500, 6000, (num_windows, 3))
    unit_s = MOVED / 4e12
    busy_s = units @ unit_s
    dynamic_j = units @ (MOVED * BYTE_J + ELSEWHERE_J)
    length = np.full(num_windows, length_s)
    return EnergyProblem(
        length_s=length,
        energy_j=100 * length + dynamic_j,
        error_j=np.full(num_windows, 5.0),
        idle_w=np.full(num_windows, 100.0),
        busy_s=busy_s,
        clock=np.ones(num_windows),
        cap_w=np.zeros(num_windows),
        units=units,
        time_s=units * unit_s,
        features=(PowerFeature.DRAM_BYTES,),
        work=MOVED[:, None],
        modes=(EnergyMode.COUNTERS,) * 3,
        is_fitted=np.ones(num_windows, bool),
    )


def memory_of(made: EnergyProblem) -> MemoryPower:
    energy_j = IDLE_W * made.length_s + AWAKE_W * made.busy_s + made.units @ (MOVED * BYTE_J)
    return MemoryPower(energy_j, 0.02 * energy_j, made.length_s, made.busy_s, made.units, IDLE_W)


def model() -> PowerModel:
    return PowerModel(
        features=(PowerFeature.DRAM_BYTES,),
        coefficient=np.array([124e-12]),
        covariance=np.array([[(5e-12) ** 2]]),
        reference_mhz=1980.0,
        core_exponent=2.0,
        active_w=0.0,
        active_error_w=1.0,
        active_exponent=1.0,
        idle_w=100.0,
        idle_w_per_k=0.0,
        idle_temperature_c=40.0,
        discrepancy=dict.fromkeys(EnergyMode, 0.15),
        window_error=0.005,
        source="calibrated",
    )


def test_kernels_whose_bytes_cost_more_than_usual_are_found() -> None:
    made = problem()
    shift_j = memory_shift(memory_of(made), made)
    assert shift_j is not None
    true_j = MOVED * (BYTE_J - BYTE_J.mean())
    assert shift_j == pytest.approx(true_j, abs=0.08 * 44e-12 * 2e8)


def test_nothing_is_said_where_no_bytes_are_known() -> None:
    made = problem()
    assert memory_shift(memory_of(made), replace(made, work=np.zeros((3, 1)))) is None
    seconds = replace(made, features=(PowerFeature.SM_SECONDS,))
    assert memory_shift(memory_of(made), seconds) is None


def test_kernels_that_windows_cannot_tell_apart_come_nearer_to_their_joules_through_the_memory() -> None:
    made = problem()
    blind = replace(made, is_fitted=np.zeros(made.num_windows, bool))
    true_j = MOVED * BYTE_J + ELSEWHERE_J
    shift_j = memory_shift(memory_of(made), made)
    with_memory, without = fit_energy(blind, model(), shift_j), fit_energy(blind, model())
    assert np.abs(with_memory.unit_j / true_j - 1).max() < 0.5 * np.abs(without.unit_j / true_j - 1).max()


def readings(capture: CaptureBuilder, watts: Any) -> CaptureBuilder:
    for time_ns in range(-2 * NS_PER_S, 12 * NS_PER_S, NS_PER_S // 10):
        source = EnergySource.NVML_POWER_MEMORY_AVERAGE
        capture.power(time_ns, round(1000 * watts(time_ns / NS_PER_S)), source=source)
    return capture


def test_readings_make_blocks_of_three_seconds_of_windows() -> None:
    made = problem(num_windows=12, length_s=1.0)
    cuts_ns = T0 + np.arange(13) * NS_PER_S
    capture = readings(CaptureBuilder(12 * NS_PER_S), lambda time_s: 100.0 if time_s >= 0 else IDLE_W).build()
    memory = MemoryPower.of(capture, 0, cuts_ns, made)
    assert memory is not None
    assert memory.length_s == pytest.approx([3.0] * 4)
    assert memory.energy_j == pytest.approx([300.0] * 4, rel=1e-3)
    assert memory.units == pytest.approx(made.units.reshape(4, 3, 3).sum(axis=1))


def test_blocks_with_windows_that_are_not_fitted_are_left_out() -> None:
    made = problem(num_windows=12, length_s=1.0)
    cuts_ns = T0 + np.arange(13) * NS_PER_S
    capture = readings(CaptureBuilder(12 * NS_PER_S), lambda _: 100.0).build()
    hidden = replace(made, is_fitted=np.arange(12) != 4)
    memory = MemoryPower.of(capture, 0, cuts_ns, hidden)
    assert memory is not None
    assert len(memory.energy_j) == 3


def test_a_device_without_memory_power_has_no_such_constraint() -> None:
    made = problem(num_windows=12, length_s=1.0)
    cuts_ns = T0 + np.arange(13) * NS_PER_S
    assert MemoryPower.of(CaptureBuilder(12 * NS_PER_S).build(), 0, cuts_ns, made) is None
