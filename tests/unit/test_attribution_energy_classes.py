"""Columns of the estimator, how their work is counted, and what a window's conditions were."""

from __future__ import annotations

import numpy as np
import pytest

from qmeter_native.attribution.column_times import ColumnTimes
from qmeter_native.attribution.energy_classes import EnergyClasses
from qmeter_native.attribution.timeline import BusyTime
from qmeter_native.attribution.window_conditions import WindowConditions
from qmeter_native.model.tables import ClockTable, ThrottleTable
from tests.factories import T0, CaptureBuilder, device

SECOND = 1_000_000_000
MS = 1_000_000


def classes_of(durations: list[list[int]], family: list[int], meter: list[bool] | None = None) -> EnergyClasses:
    """Kernel classes with these launches."""
    class_id = np.repeat(np.arange(len(durations)), [len(each) for each in durations])
    lengths = np.array([length for each in durations for length in each], np.int64)
    is_meter = np.array(meter or [False] * len(durations), bool)
    return EnergyClasses.of(class_id, lengths, np.array(family), is_meter)


def test_rare_classes_share_a_column_with_their_family() -> None:
    classes = classes_of([[10_000], [3], [2], [1], [9_000]], [0, 1, 1, 2, 2])
    assert classes.column.tolist() == [0, 2, 2, 3, 1]
    assert classes.is_own.tolist() == [True, True, False, False]
    assert classes.mean_s == pytest.approx(np.array([10_000, 3, 2, 1, 9_000]) * 1e-9)


def test_step_markers_share_one_column_however_long_they_ran() -> None:
    classes = classes_of([[10_000], [9_000], [8_000]], [0, 5, 5], [False, True, True])
    assert classes.column.tolist() == [0, 1, 1]
    assert classes.is_meter.tolist() == [False, True]


def test_there_are_never_many_more_columns_than_can_be_solved_for() -> None:
    classes = classes_of([[100]] * 1_500, [number % 12 for number in range(1_500)])
    assert classes.count == 480 + 12
    assert classes.column.max() == classes.count - 1


def test_a_device_without_kernels_has_no_columns() -> None:
    assert classes_of([], []).count == 0


def test_launches_count_unless_they_are_unlike() -> None:
    classes = classes_of([[100, 100], [50, 150]], [0, 1])
    columns = ColumnTimes(2, classes)
    cell = columns.cell(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    columns.add(cell, np.ones(4), np.array([100, 100, 50, 150]))
    units, unit_s = columns.units()
    assert columns.is_launch.tolist() == [True, False]
    assert units == pytest.approx(np.array([[1, 0.5], [1, 1.5]]))
    assert unit_s == pytest.approx([100e-9, 100e-9])


def conditions_of(builder: CaptureBuilder, busy: tuple[int, int] = (0, 2 * SECOND)) -> WindowConditions:
    """Two windows of one second, busy in one stretch."""
    cuts_ns = np.array([T0, T0 + SECOND, T0 + 2 * SECOND])
    start_ns, end_ns = (np.array([T0 + time]) for time in busy)
    return WindowConditions.of(builder.build(), device(), cuts_ns, BusyTime(start_ns, end_ns))


def clock(builder: CaptureBuilder, time: int, mhz: int, celsius: int = 50, reasons: int = 0) -> CaptureBuilder:
    return builder.add(
        ClockTable, time_ns=T0 + time, sm_mhz=mhz, temperature_c=celsius, throttle_reasons=np.uint64(reasons)
    )


def test_clocks_are_those_of_readings_under_load() -> None:
    builder = CaptureBuilder()
    for time, mhz in ((100, 1_900), (300, 1_800), (700, 345), (1_200, 345)):
        clock(builder, time * MS, mhz)
    found = conditions_of(builder, (0, SECOND // 2))
    assert found.clock_mhz == pytest.approx([1_840, 1_800])  # no reading under load: the nearest one
    assert conditions_of(builder).clock_mhz == pytest.approx([1_337.22, 345], abs=0.01)


def test_a_clock_that_does_not_change_is_not_recorded_again_and_still_counts() -> None:
    builder = clock(clock(clock(CaptureBuilder(), 0, 1_980), 800 * MS, 1_400), SECOND + 900 * MS, 1_300)
    assert conditions_of(builder).clock_mhz == pytest.approx([0.8 * 1_980 + 0.2 * 1_400, 0.9 * 1_400 + 0.1 * 1_300])


def test_what_was_not_read_is_missing() -> None:
    found = conditions_of(clock(CaptureBuilder(), 0, -1, -1))
    assert (found.clock_mhz, found.temperature_c) == (None, None)
    assert not found.is_capped.any()


def test_temperature_is_the_mean_of_each_window() -> None:
    builder = clock(clock(clock(CaptureBuilder(), 0, 1_900, 50), SECOND // 2, 1_900, 60), SECOND, 1_900, 70)
    assert conditions_of(builder).temperature_c == pytest.approx([55, 70])


def test_the_power_limit_held_clocks_down_where_its_time_grew() -> None:
    builder = CaptureBuilder()
    for time, held in ((0, 0), (SECOND, SECOND // 50), (2 * SECOND, SECOND // 10)):
        builder.add(ThrottleTable, time_ns=T0 + time, power_ns=held)
    clock(builder, 0, 1_900, reasons=0x4)
    assert conditions_of(builder).is_capped.tolist() == [False, True]


def test_without_throttle_times_the_sampled_reasons_tell_it() -> None:
    builder = CaptureBuilder()
    for number in range(20):
        clock(builder, number * 100 * MS, 1_900, reasons=0x4 if number in (3, 4) else 0x20)
    assert conditions_of(builder).is_capped.tolist() == [True, False]
