"""Energy: windows between ticks, idle apart, conserved."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.attribution.report import attribute
from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.report import AttributionReport, EnergyBalance, KernelRow
from tests.factories import ATTENTION, GEMM, CaptureBuilder, device, synthetic_capture

SECOND = 1_000_000_000


def balance_of(capture: Capture) -> EnergyBalance:
    (balance,) = attribute(capture, "test").balance.energy
    return balance


def kernel_named(report: AttributionReport, name: str) -> KernelRow:
    return next(row for row in report.kernels if row.name == name)


def joules(value: float) -> int:
    return round(value * 1e6)


def one_second(**changes: object) -> CaptureBuilder:
    """One second at 300 W, seen by two edges, with a kernel in its second half; idle power 100 W."""
    builder = CaptureBuilder(SECOND, {"devices": (device(**changes),)})
    return builder.tick(0, 0).tick(SECOND, joules(300)).kernel(SECOND // 2, SECOND)


def test_idle_time_gets_idle_power_and_kernels_the_rest() -> None:
    balance = balance_of(one_second().build())
    assert balance.measured_j == pytest.approx(300)
    assert balance.idle_j == pytest.approx(50)
    assert balance.kernels_j == pytest.approx(250)
    assert balance.unattributed_j == 0
    assert "NVML energy counter" in balance.method


def test_static_energy_is_idle_power_by_busy_time() -> None:
    (row,) = attribute(one_second().build(), "test").kernels
    assert row.static_j.value == pytest.approx(50)
    assert row.dynamic_j.value == pytest.approx(200)
    assert row.j_per_launch.value == pytest.approx(250)
    assert row.energy_j.systematic == 0.05


def test_without_idle_power_energy_goes_by_time() -> None:
    report = attribute(one_second(idle_power_w=None).build(), "test")
    assert report.balance.energy[0].idle_j == pytest.approx(150)
    assert report.kernels[0].energy_j.value == pytest.approx(150)
    assert "idle power was not measured" in report.kernels[0].energy_j.method
    assert report.kernels[0].static_j.value is None
    assert [entry.code for entry in report.validity] == ["idle_power_unknown"]


def test_each_window_pays_for_its_own_kernels() -> None:
    builder = CaptureBuilder(2 * SECOND).tick(0, 0).tick(SECOND, joules(600)).tick(2 * SECOND, joules(800))
    builder.kernel(0, SECOND, GEMM).kernel(SECOND, 2 * SECOND, ATTENTION)
    report = attribute(builder.build(), "test")
    assert kernel_named(report, GEMM).energy_j.value == pytest.approx(600)
    assert kernel_named(report, ATTENTION).energy_j.value == pytest.approx(200)


def test_a_kernel_across_an_edge_pays_in_both_windows() -> None:
    builder = CaptureBuilder(2 * SECOND).tick(0, 0).tick(SECOND, joules(600)).tick(2 * SECOND, joules(800))
    builder.kernel(0, SECOND // 2, GEMM).kernel(SECOND // 2, 2 * SECOND, ATTENTION)
    report = attribute(builder.build(), "test")
    assert kernel_named(report, GEMM).energy_j.value == pytest.approx(300)
    assert kernel_named(report, ATTENTION).energy_j.value == pytest.approx(500)
    assert report.balance.failures() == ()


def test_an_idle_window_above_idle_power_leaves_the_rest_to_nobody() -> None:
    builder = CaptureBuilder(2 * SECOND).tick(0, 0).tick(SECOND, joules(500)).tick(2 * SECOND, joules(630))
    balance = balance_of(builder.kernel(0, SECOND).build())
    assert balance.kernels_j == pytest.approx(500)
    assert balance.idle_j == pytest.approx(100)
    assert balance.unattributed_j == pytest.approx(30)


def test_a_speck_of_work_does_not_get_all_that_idle_power_varies_by() -> None:
    builder = CaptureBuilder(3 * SECOND).tick(0, 0).tick(SECOND, joules(500)).tick(2 * SECOND, joules(610))
    builder.tick(3 * SECOND, joules(1110))
    builder.kernel(0, SECOND, GEMM).kernel(SECOND + 5, SECOND + 1_005, ATTENTION).kernel(2 * SECOND, 3 * SECOND, GEMM)
    report = attribute(builder.build(), "test")
    assert kernel_named(report, ATTENTION).energy_j.value == pytest.approx(1e-6 * 500 * 4, rel=1e-3)
    assert report.balance.energy[0].unattributed_j == pytest.approx(10, rel=1e-2)


def test_step_markers_are_the_meter_s() -> None:
    builder = one_second().marker(0, 0)
    balance = balance_of(builder.build())
    assert balance.meter_j is not None
    assert 0 < balance.meter_j < 1e-5


def test_the_ends_of_the_window_are_interpolated_along_power_readings() -> None:
    builder = CaptureBuilder(2 * SECOND).tick(-SECOND, 0).tick(SECOND, joules(400)).tick(3 * SECOND, joules(800))
    flat = balance_of(builder.kernel(0, 2 * SECOND).build()).measured_j
    assert flat == pytest.approx(400)
    for time, watts in (
        (-SECOND, 0),
        (0, 0),
        (1, 400),
        (SECOND, 400),
        (2 * SECOND, 400),
        (2 * SECOND + 1, 0),
        (3 * SECOND, 0),
    ):
        builder.power(time, watts * 1_000)
    shaped = balance_of(builder.build()).measured_j
    assert shaped == pytest.approx(800)


def test_power_samples_stand_in_for_a_counter() -> None:
    builder = CaptureBuilder(4 * SECOND).kernel(0, 2 * SECOND)
    for time in range(0, 4_001, 20):
        builder.power(time * 1_000_000, 500_000 if time < 2_000 else 100_000)
        builder.power(time * 1_000_000, 1, source=EnergySource.NVML_POWER_INSTANT)
    balance = balance_of(builder.build())
    assert balance.measured_j == pytest.approx(1_200, rel=0.01)
    assert balance.kernels_j == pytest.approx(1_000, rel=0.01)
    assert "power samples" in balance.method


def test_a_counter_that_covers_little_gives_way_to_power_readings() -> None:
    builder = CaptureBuilder(SECOND).tick(0, 0).tick(SECOND // 10, joules(7)).kernel(0, SECOND)
    for time in range(0, 1_001, 20):
        builder.power(time * 1_000_000, 300_000)
    balance = balance_of(builder.build())
    assert balance.measured_j == pytest.approx(300)


def test_rapl_is_a_counter_without_a_known_gain() -> None:
    builder = CaptureBuilder(SECOND, {"devices": (device(kind="cpu", energy_source="rapl", idle_power_w=None),)})
    rapl = {"source": EnergySource.RAPL}
    builder.tick(0, 0, **rapl).tick(SECOND, joules(50), **rapl).kernel(0, SECOND)
    (row,) = attribute(builder.build(), "test").kernels
    assert row.energy_j.value == pytest.approx(50)
    assert row.energy_j.systematic is None


def test_no_source_is_said_with_its_reason_everywhere() -> None:
    changes = {"energy_source": None, "energy_absent_reason": "no RAPL in this container", "idle_power_w": None}
    builder = CaptureBuilder(100, {"devices": (device(**changes),)}).kernel(0, 50).step(0, 0, 60).ride(0, 0)
    report = attribute(builder.request(0, 0, 60, 60).build(), "test")
    balance = report.balance.energy[0]
    assert (balance.measured_j, balance.residual_j, balance.reason) == (None, None, "no RAPL in this container")
    figures = [report.totals.energy_gross_j, report.totals.energy_idle_j, report.totals.j_per_output_token]
    figures += [report.kernels[0].energy_j, report.phases[0].energy_j, report.requests[0].share_energy_j]
    for figure in figures:
        assert figure.value is None
        assert figure.reason is not None
        assert "no RAPL in this container" in figure.reason


def test_uncertain_edges_widen_the_gross_figure() -> None:
    builder = CaptureBuilder(SECOND).tick(0, 0, half_width=5_000_000).tick(SECOND, joules(300), half_width=5_000_000)
    gross = attribute(builder.build(), "test").totals.energy_gross_j
    assert gross.value == pytest.approx(300)
    assert gross.low is not None
    assert gross.high is not None
    assert gross.low <= 300 <= gross.high


def test_the_residual_before_scaling_is_published() -> None:
    balance = balance_of(synthetic_capture(40_000))
    assert balance.raw_residual_fraction is not None
    assert 0 < balance.raw_residual_fraction < 0.05
    assert balance_of(one_second().build()).raw_residual_fraction is None


def test_a_counter_that_runs_backwards_is_not_followed() -> None:
    builder = (
        CaptureBuilder(3 * SECOND)
        .tick(0, 0)
        .tick(SECOND, joules(300))
        .tick(2 * SECOND, 5)
        .tick(3 * SECOND, joules(900))
    )
    balance = balance_of(builder.kernel(0, 3 * SECOND).build())
    assert balance.measured_j == pytest.approx(900)
    assert balance.num_windows == 2


kernels = st.lists(
    st.tuples(st.integers(-50, 1_050), st.integers(0, 400), st.integers(1, 3), st.sampled_from([GEMM, ATTENTION])),
    max_size=12,
)
ticks = st.lists(st.tuples(st.integers(-200, 1_200), st.integers(0, 500)), max_size=8)


@settings(max_examples=100, deadline=None)
@given(kernels=kernels, ticks=ticks, idle_w=st.one_of(st.none(), st.floats(0, 1e9)))
def test_energy_is_conserved_for_any_kernels_and_ticks(
    kernels: list[tuple[int, int, int, str]], ticks: list[tuple[int, int]], idle_w: float | None
) -> None:
    builder = CaptureBuilder(1_000, {"devices": (device(idle_power_w=idle_w),)})
    for start, length, stream, name in kernels:
        builder.kernel(start, start + length, name, stream=stream)
    energy = 0
    for time, step in sorted(ticks):
        energy += step
        builder.tick(time, energy, half_width=3)
    report = attribute(builder.build(), "test")
    assert report.balance.failures() == ()
    balance = report.balance.energy[0]
    if balance.measured_j is not None:
        assert balance.measured_j >= 0
        parts = (balance.kernels_j, balance.idle_j, balance.meter_j, balance.unattributed_j)
        assert all(part is not None and part >= -1e-12 for part in parts)
        rows = sum(row.energy_j.value or 0.0 for row in report.kernels)
        assert rows == pytest.approx((balance.kernels_j or 0.0) + (balance.meter_j or 0.0), rel=1e-9, abs=1e-15)
