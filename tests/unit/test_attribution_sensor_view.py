"""Joules where the counter samples a low-passed power, and the work keeps step with its samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qmeter_native.attribution.report import attribute
from qmeter_native.devices.sensor_windows import counter_window
from qmeter_native.model.capture import Capture
from qmeter_native.model.report import AttributionReport
from tests.factories import CaptureBuilder, device

MS = 1_000_000
H200 = "NVIDIA H200"
IDLE_W, BUSY_W = 100.0, 600.0
NUM_TICKS = 400
BUSY_MS = 10


def low_passed(time_ms: float, phase_ms: float, time_constant_ms: float) -> float:
    """`BUSY_W` for 10 of every 20 ms from ``phase_ms`` on, else `IDLE_W`, after a first-order low-pass."""
    into_ms = (time_ms - phase_ms) % 20
    rise = 1 - math.exp(-BUSY_MS / time_constant_ms)
    decay = math.exp(-(20 - BUSY_MS) / time_constant_ms)
    start = rise * decay / (1 - decay * math.exp(-BUSY_MS / time_constant_ms))  # at each beginning, in the long run
    if into_ms < BUSY_MS:
        level = 1 - (1 - start) * math.exp(-into_ms / time_constant_ms)
    else:
        level = (1 - (1 - start) * math.exp(-BUSY_MS / time_constant_ms)) * math.exp(
            -(into_ms - BUSY_MS) / time_constant_ms
        )
    return IDLE_W + (BUSY_W - IDLE_W) * level


def in_step(phase_ms: float, name: str) -> Capture:
    """40 s of a kernel of 10 ms every 20 ms; the counter ticks every 100 ms and is seen to at every second tick."""
    window = counter_window(H200)
    assert window is not None
    _, look_s, time_constant_s, lag_s = window
    gpu = device(name=name, idle_power_w=IDLE_W)
    builder = CaptureBuilder(length_ns=NUM_TICKS * 100 * MS, changes={"devices": (gpu,)})
    for start_ms in range(math.ceil(phase_ms), NUM_TICKS * 100 - 20, 20):
        builder.kernel(start_ms * MS, (start_ms + BUSY_MS) * MS)
    energy_uj = 0.0
    for tick in range(NUM_TICKS + 1):
        looks_ms = [tick * 100 - 1e3 * (lag_s + look * look_s) for look in range(5)]
        energy_uj += 1e6 * 0.1 * float(np.mean([low_passed(t, phase_ms, 1e3 * time_constant_s) for t in looks_ms]))
        if tick % 2 == 0:
            builder.tick(tick * 100 * MS, round(energy_uj), half_width=2 * MS)
    return builder.build()


def dynamic_w(report: AttributionReport) -> float:
    """Power of busy time above idle, which is what kernels and the active chip drew."""
    balance = report.balance.energy[0]
    assert balance.kernels_j is not None
    assert balance.static_j is not None
    busy_s = report.balance.time[0].busy_ns / 1e9
    return (balance.kernels_j + balance.static_j) / busy_s


@pytest.mark.parametrize("phase_ms", [0, 5, 10, 15])
def test_work_in_step_with_the_counter_gets_what_it_drew(phase_ms: float) -> None:
    report = attribute(in_step(phase_ms, H200), "in step")
    assert report.balance.failures() == ()
    assert dynamic_w(report) == pytest.approx(BUSY_W, rel=0.03)


def test_a_counter_taken_for_an_integral_misleads() -> None:
    told = [dynamic_w(attribute(in_step(phase_ms, "NVIDIA Test"), "in step")) for phase_ms in (0, 5, 10, 15)]
    assert max(told) > 1.15 * min(told)


def test_what_the_counter_misread_is_told() -> None:
    balances = [attribute(in_step(phase_ms, H200), "in step").balance.energy[0] for phase_ms in (0, 10)]
    assert balances[0].sampling_share * balances[1].sampling_share < 0
    for balance in balances:
        assert balance.unattributed_j == pytest.approx(balance.sampling_j, abs=0.02 * (balance.measured_j or 0.0))
