from __future__ import annotations

import numpy as np
import pytest

from qmeter_native.attribution.counter_ticks import CounterTicks
from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.sensor_view import SensorView, SensorWindow
from qmeter_native.calibration.load_exposure import LoadExposure, on_ticks, seen_busy_s
from tests.factories import T0, CaptureBuilder

MS = 1_000_000
TICKS = CounterTicks(T0 + np.arange(21) * 100 * MS, np.zeros(21), np.arange(21), 0.1)
MOMENTS = SensorView.through(TICKS, SensorWindow(0.1, 0.1, 0.001))
BOUNDS = T0 + np.array([[500 * MS, 1500 * MS]])


def exposure(starts_ms: list[float], view: SensorView | None) -> LoadExposure:
    """Of kernels of 10 ms."""
    builder = CaptureBuilder()
    for start_ms in starts_ms:
        builder.kernel(int(start_ms * MS), int((start_ms + 10) * MS), "k")
    return LoadExposure.of(builder.build().kernels, BOUNDS, np.zeros(1, np.int64), 1, view)


def test_kernels_between_the_counters_looks_ran_but_were_not_seen() -> None:
    found = exposure([500 + 100 * number + 30 for number in range(10)], MOMENTS)

    assert found.units[0, 0] == pytest.approx(10)
    assert found.time_s[0, 0] == pytest.approx(0.1)
    assert found.seen_units is not None
    assert found.seen_units[0, 0] == pytest.approx(0, abs=1e-6)


def test_kernels_before_looks_count_as_often_as_the_look_stands_for() -> None:
    found = exposure([500 + 100 * number + 90 for number in range(10)], MOMENTS)

    assert found.seen_units is not None
    assert found.seen_busy_s is not None
    assert found.seen_units[0, 0] == pytest.approx(100, rel=0.01)
    assert found.seen_busy_s[0] == pytest.approx(1, rel=0.01)


def test_a_kernel_that_a_bound_cuts_counts_in_part() -> None:
    assert exposure([495], None).units[0, 0] == pytest.approx(0.5)


def test_a_counter_that_integrates_sees_what_ran() -> None:
    found = exposure([700], None)

    assert found.seen_units is None
    assert found.seen_busy_s is None


def test_overlapping_kernels_are_busy_once() -> None:
    busy = Intervals.of(T0 + np.array([600, 605]) * MS, T0 + np.array([610, 615]) * MS)
    whole = SensorView.through(TICKS, SensorWindow(0.1, 0.1, 100.0))

    assert seen_busy_s(busy, BOUNDS, whole)[0] == pytest.approx(0.015, rel=0.01)
    assert seen_busy_s(Intervals.of(*np.empty((2, 0), np.int64)), BOUNDS, whole)[0] == 0


def test_bounds_near_a_tick_are_moved_onto_it() -> None:
    moved = on_ticks(T0 + np.array([[103 * MS, 150 * MS]]), MOMENTS)

    assert moved.tolist() == [[T0 + 100 * MS, T0 + 150 * MS]]
