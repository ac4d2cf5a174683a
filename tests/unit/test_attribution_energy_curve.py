"""What the sensor saw between any two moments, how surely, and where windows end."""

from __future__ import annotations

import numpy as np
import pytest

from qmeter_native.attribution.counter_ticks import CounterTicks
from qmeter_native.attribution.energy_curve import EnergyCurve, memory_energy
from qmeter_native.attribution.energy_windows import energy_windows
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.tables import CounterWindowTable
from tests.factories import T0, CaptureBuilder, device

SECOND = 1_000_000_000
MS = 1_000_000


def ticking(seconds: int, watts: int = 300, half_width: int = MS) -> CaptureBuilder:
    """A counter that ticks every 100 ms."""
    builder = CaptureBuilder(seconds * SECOND)
    for number in range(10 * seconds + 1):
        builder.tick(number * 100 * MS, number * watts * 100_000, half_width=half_width)
    return builder


def curve_of(builder: CaptureBuilder) -> EnergyCurve:
    curve = EnergyCurve.of(builder.build(), 0)
    assert curve is not None
    return curve


def test_between_edges_energy_is_exact_and_only_their_times_err() -> None:
    curve = curve_of(ticking(5))
    energy_j, error_j = curve.between(np.array([T0 + SECOND, T0 + 2 * SECOND]))
    assert energy_j == pytest.approx([300])
    assert error_j == pytest.approx([300 * 1e-3 / np.sqrt(3) * np.sqrt(2)], rel=1e-2)


def test_a_counter_that_ticks_like_a_clock_says_when_it_ticked() -> None:
    random, builder = np.random.default_rng(5), CaptureBuilder(20 * SECOND)
    for number in range(201):
        early, late = random.integers(0, 5 * MS, 2).tolist()
        builder.tick(number * 100 * MS + (late - early) // 2, number * 30_000_000, half_width=(early + late) // 2)
    capture = builder.build()
    ticks = CounterTicks.of(capture, 0, 0.1)
    curve, plain = EnergyCurve.of(capture, 0, ticks), EnergyCurve.of(capture, 0)
    assert curve is not None
    assert plain is not None
    true_ns = T0 + 100 * MS * np.arange(201)
    assert np.abs(curve.edge_ns - true_ns).max() < MS / 2 < np.abs(plain.edge_ns - true_ns).max()
    assert np.mean(curve.slack_ns(curve.edge_ns)) < 0.3 * np.mean(plain.slack_ns(plain.edge_ns))


def test_a_bound_between_two_edges_is_as_uncertain_as_the_next_edge_is_far() -> None:
    builder = ticking(5)
    wanted = np.array([T0 + SECOND + 40 * MS, T0 + 2 * SECOND])
    assert curve_of(builder).slack_ns(wanted) == pytest.approx([40 * MS, MS])
    for number in range(251):
        builder.power(number * 20 * MS, 300_000)
    assert curve_of(builder).slack_ns(wanted) == pytest.approx([20 * MS, MS])


def test_integrated_power_is_blurred_at_its_bounds() -> None:
    builder = CaptureBuilder(5 * SECOND)
    for number in range(251):
        builder.power(number * 20 * MS, 300_000)
    curve = curve_of(builder)
    energy_j, error_j = curve.between(np.array([T0 + SECOND, T0 + 2 * SECOND]))
    assert energy_j == pytest.approx([300])
    assert error_j == pytest.approx([300 * 0.05 / np.sqrt(3) * np.sqrt(2)])
    assert len(curve.edge_ns) == 0


def test_a_device_without_readings_has_no_curve() -> None:
    assert EnergyCurve.of(ticking(1).build(), 1) is None


def test_a_counter_of_a_cpu_has_a_finer_quantum_and_no_known_gain() -> None:
    builder = CaptureBuilder(SECOND)
    for number in range(11):
        builder.tick(number * 100 * MS, number * 5_000_000, source=EnergySource.RAPL)
    curve = curve_of(builder)
    assert curve.systematic is None
    assert curve.between(np.array([T0, T0 + SECOND]))[1] == pytest.approx([61e-6 / np.sqrt(6)])


@pytest.mark.parametrize(("seconds", "length_s"), [(5, 0.5), (80, 0.8), (150, 1.0)])
def test_windows_end_at_edges_and_grow_with_the_run(seconds: int, length_s: float) -> None:
    windows = energy_windows(ticking(seconds).build(), device())
    assert np.diff(windows.cuts_ns)[:-1] == pytest.approx(length_s * SECOND)
    assert windows.energy_j is not None
    assert windows.energy_j.sum() == pytest.approx(300 * seconds)
    assert windows.total_error_j < windows.error_j.sum()


def test_no_window_is_shorter_than_half_a_second_but_all_of_a_short_run() -> None:
    builder = ticking(3)
    builder.changes |= {"measure_start_ns": T0 + 130 * MS, "measure_end_ns": T0 + 2_770 * MS}
    assert np.diff(energy_windows(builder.build(), device()).cuts_ns).min() >= SECOND // 2
    assert len(energy_windows(ticking(1).build(), device()).cuts_ns) == 3
    builder.changes |= {"measure_end_ns": T0 + 900 * MS}
    assert len(energy_windows(builder.build(), device()).cuts_ns) == 2


def test_counter_phases_and_the_second_after_them_are_known() -> None:
    builder = ticking(5)
    builder.add(CounterWindowTable, enable_ns=T0 + 1_100 * MS, disable_ns=T0 + 1_900 * MS)
    builder.add(CounterWindowTable, device=1, enable_ns=T0, disable_ns=T0 + 5 * SECOND)
    is_metered = energy_windows(builder.build(), device()).is_metered
    assert is_metered.tolist() == [False, False, True, True, True, True, False, False, False, False]


def test_a_memory_s_own_power_is_a_mean_over_the_second_before_each_reading() -> None:
    builder = CaptureBuilder(6 * SECOND, {"measure_start_ns": T0 + SECOND, "measure_end_ns": T0 + 5 * SECOND})
    for number in range(61):  # 30 W for 3 s, then 100 W, seen as a ramp of one second
        watts = 30 + 70 * min(max((number - 30) / 10, 0), 1)
        builder.power(number * 100 * MS, round(watts * 1_000), source=EnergySource.NVML_POWER_MEMORY_AVERAGE)
    assert memory_energy(builder.build(), 0) == pytest.approx(2 * 30 + 2 * 100)
    assert memory_energy(builder.build(), 1) is None
