from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.attribution.counter_ticks import CounterTicks
from qmeter_native.attribution.sensor_view import SensorView, SensorWindow
from qmeter_native.model.device_profile import SensorModel
from qmeter_native.model.estimate import Estimate
from tests.factories import T0

MS = 1_000_000
TICKS = CounterTicks(T0 + np.arange(11) * 100 * MS, np.zeros(11), np.arange(11), 0.1)


def seen_ms(window: SensorWindow, start_ms: float, end_ms: float) -> float:
    view = SensorView.through(TICKS, window)
    bounds = T0 + np.array([start_ms * MS, end_ms * MS], np.int64)
    return float(np.diff(view.seen_ns(bounds))[0]) / MS


def test_a_counter_that_looks_once_a_tick_sees_nothing_of_the_rest() -> None:
    window = SensorWindow(0.1, 0.025)

    assert seen_ms(window, 400, 475) == pytest.approx(0, abs=1e-6)
    assert seen_ms(window, 475, 500) == pytest.approx(100)


def test_time_in_two_overlapping_looks_counts_twice() -> None:
    window = SensorWindow(0.1, 0.031, 0.0, 0.02)

    assert seen_ms(window, 480, 489) == pytest.approx(9 * 20 / 31)
    assert seen_ms(window, 489, 500) == pytest.approx(11 * 2 * 20 / 31)


@given(
    st.floats(0.001, 0.099),
    st.floats(-0.005, 0.03),
    st.sampled_from([None, 0.02, 0.05]),
    st.integers(0, 6),
    st.integers(1, 4),
)
def test_from_tick_to_tick_all_time_is_seen(
    window_s: float, lag_s: float, look_s: float | None, first: int, count: int
) -> None:
    window = SensorWindow(0.1, window_s, lag_s, look_s)

    assert seen_ms(window, 100.0 * first, 100.0 * (first + count)) == pytest.approx(100 * count, rel=1e-6)


def test_far_from_the_ticks_time_is_the_time_itself() -> None:
    assert seen_ms(SensorWindow(0.1, 0.031, 0.0, 0.02), -5000, -4990) == pytest.approx(10)
    assert seen_ms(SensorWindow(0.1, 0.031, 0.0, 0.02), 5000, 5010) == pytest.approx(10)


def test_a_calibrated_sensor_is_believed_before_what_is_known_of_the_part() -> None:
    unknown, tick = Estimate.missing("not measured"), Estimate(0.1)
    uncalibrated = SensorModel(tick, unknown, unknown, unknown, unknown, unknown, 0.01)
    calibrated = replace(
        uncalibrated,
        counter_look_s=Estimate(0.02),
        counter_window_s=Estimate(0.03),
        counter_lag_s=Estimate(0.001),
    )

    assert SensorWindow.of("NVIDIA H200", calibrated) == SensorWindow(0.1, 0.03, 0.001, 0.02)
    assert SensorWindow.of("NVIDIA H200", uncalibrated) == SensorWindow.of("NVIDIA H200")
    assert SensorWindow.of("Graphics 1", uncalibrated) is None
