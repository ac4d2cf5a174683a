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


def test_a_counter_without_a_filter_sees_only_the_moments_of_its_looks() -> None:
    window = SensorWindow(0.1, 0.1, 0.001)

    assert seen_ms(window, 400, 490) == pytest.approx(0, abs=0.01)
    assert seen_ms(window, 490, 500) == pytest.approx(100, abs=0.01)


def test_a_filter_that_is_slow_against_the_looks_makes_an_integral() -> None:
    assert seen_ms(SensorWindow(0.1, 0.02, 1.0), 483, 490) == pytest.approx(7, rel=0.01)


def test_what_ran_just_before_a_look_counts_more_than_what_ran_just_after_one() -> None:
    window = SensorWindow(0.1, 0.02, 0.017)

    assert seen_ms(window, 479, 480) / seen_ms(window, 480, 481) == pytest.approx(np.exp(19 / 17), rel=1e-3)


def test_looks_that_are_early_see_what_ran_before_them() -> None:
    assert seen_ms(SensorWindow(0.1, 0.1, 0.001, lag_s=0.03), 465, 470) == pytest.approx(100, abs=1)


@given(st.floats(0.001, 0.5), st.sampled_from([0.1, 0.02, 0.05]), st.integers(0, 6), st.integers(1, 4))
def test_from_tick_to_tick_all_time_is_seen(constant_s: float, look_s: float, first: int, count: int) -> None:
    window = SensorWindow(0.1, look_s, constant_s)

    assert seen_ms(window, 100.0 * first, 100.0 * (first + count)) == pytest.approx(100 * count, rel=1e-6)


def test_far_from_the_ticks_time_is_the_time_itself() -> None:
    assert seen_ms(SensorWindow(0.1, 0.02, 0.017), -5000, -4990) == pytest.approx(10)
    assert seen_ms(SensorWindow(0.1, 0.02, 0.017), 5000, 5010) == pytest.approx(10)


def test_a_calibrated_sensor_is_believed_before_what_is_known_of_the_part() -> None:
    unknown, tick = Estimate.missing("not measured"), Estimate(0.1)
    uncalibrated = SensorModel(tick, unknown, unknown, unknown, unknown, unknown, 0.01)
    calibrated = replace(
        uncalibrated,
        counter_look_s=Estimate(0.02),
        counter_time_constant_s=Estimate(0.03),
        counter_lag_s=Estimate(0.001),
    )

    assert SensorWindow.of("NVIDIA H200", calibrated) == SensorWindow(0.1, 0.02, 0.03, 0.001)
    assert SensorWindow.of("NVIDIA H200", uncalibrated) == SensorWindow.of("NVIDIA H200")
    assert SensorWindow.of("Graphics 1", uncalibrated) is None
