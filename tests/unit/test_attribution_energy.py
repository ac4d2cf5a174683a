"""Energy: windows between ticks, idle apart, conserved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.attribution.report import attribute
from qmeter_native.devices.default_profile import default_profile
from qmeter_native.devices.profile_json import profile_to_dict
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.power_model import EnergyMode
from qmeter_native.model.report import AttributionReport, EnergyBalance, KernelRow
from qmeter_native.model.static_policy import StaticPolicy
from qmeter_native.model.tables import ClockTable, CounterWindowTable, ThrottleTable
from tests.factories import ATTENTION, GEMM, T0, CaptureBuilder, device, synthetic_capture
from tests.synthetic_run import LAG_S, SENSOR, WINDOW_S, synthetic_run

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


def test_idle_time_gets_idle_power_and_busy_time_the_rest() -> None:
    balance = balance_of(one_second().build())
    assert balance.measured_j == pytest.approx(300)
    assert balance.idle_j == pytest.approx(50)
    assert (balance.kernels_j or 0) + (balance.static_j or 0) == pytest.approx(250)
    assert balance.unattributed_j == pytest.approx(0)
    assert "NVML energy counter" in balance.method
    assert (balance.mode, balance.profile) == (EnergyMode.TIME, "datasheet defaults")


def test_static_energy_is_idle_and_active_power_by_busy_time() -> None:
    (row,) = attribute(one_second().build(), "test").kernels
    assert row.static_j.value is not None
    assert 50 < row.static_j.value < 75
    assert row.dynamic_j.value == pytest.approx(250 - row.static_j.value)
    assert row.j_per_launch.value == row.energy_j.value == row.dynamic_j.value
    assert row.energy_j.systematic == 0.05


def test_what_one_more_launch_costs_is_more_than_its_dynamic_joules() -> None:
    (row,) = attribute(one_second().build(), "test").kernels
    assert row.dynamic_j.value is not None
    assert row.marginal_j.value is not None
    assert row.dynamic_j.value < row.marginal_j.value < 250


def test_at_the_power_limit_one_more_launch_costs_the_limit_s_power_for_its_time() -> None:
    builder = one_second(properties={"power_limit_mw": 500_000})
    builder.add(ThrottleTable, time_ns=T0, power_ns=0).add(ThrottleTable, time_ns=T0 + SECOND, power_ns=SECOND // 2)
    (row,) = attribute(builder.build(), "test").kernels
    assert row.marginal_j.value == pytest.approx(500 * 0.5)


def test_without_a_measured_idle_power_the_model_s_is_taken_and_said() -> None:
    report = attribute(one_second(idle_power_w=None).build(), "test")
    idle_j = report.balance.energy[0].idle_j
    assert idle_j is not None
    assert 0 < idle_j < 50
    assert "the power model's idle power" in report.totals.energy_idle_j.method
    assert [entry.code for entry in report.validity] == ["idle_power_unknown"]


def test_idle_power_follows_temperature() -> None:
    builder = CaptureBuilder(2 * SECOND, {"measure_start_ns": T0 + SECOND}).kernel(3 * SECOND // 2, 2 * SECOND)
    builder.tick(SECOND, 0).tick(2 * SECOND, joules(300))
    builder.add(ClockTable, time_ns=T0 + SECOND // 2, sm_mhz=-1, temperature_c=40)
    builder.add(ClockTable, time_ns=T0 + SECOND, sm_mhz=-1, temperature_c=60)
    model = replace(default_profile("NVIDIA Test").power_model, idle_w_per_k=0.5)
    profile = replace(default_profile("NVIDIA Test"), power_model=model)
    report = attribute(builder.build(), "test", profiles={0: profile})
    assert report.balance.energy[0].idle_j == pytest.approx((100 + 0.5 * 20) * 0.5)


def two_windows(watts: tuple[int, int]) -> CaptureBuilder:
    """Two windows of one second at these powers."""
    builder = CaptureBuilder(2 * SECOND).tick(0, 0).tick(SECOND, joules(watts[0]))
    return builder.tick(2 * SECOND, joules(sum(watts)))


def test_each_window_pays_for_its_own_kernels() -> None:
    builder = two_windows((600, 200)).kernel(0, SECOND, GEMM).kernel(SECOND, 2 * SECOND, ATTENTION)
    report = attribute(builder.build(), "test", static_policy=StaticPolicy.BY_TIME)
    assert kernel_named(report, GEMM).energy_j.value == pytest.approx(600, rel=0.03)
    assert kernel_named(report, ATTENTION).energy_j.value == pytest.approx(200, rel=0.03)


def test_kernels_that_share_a_window_are_told_apart_by_another() -> None:
    builder = two_windows((600, 200)).kernel(0, SECOND // 2, GEMM).kernel(SECOND // 2, 2 * SECOND, ATTENTION)
    report = attribute(builder.build(), "test", static_policy=StaticPolicy.BY_TIME)
    gemm, attention = kernel_named(report, GEMM).energy_j.value, kernel_named(report, ATTENTION).energy_j.value
    assert gemm is not None
    assert attention is not None
    assert gemm / 0.5 > 2.5 * attention / 1.5  # equal power would be 300 J in 0.5 s and 500 J in 1.5 s
    assert report.balance.failures() == ()


def test_an_idle_window_above_idle_power_leaves_the_rest_to_nobody() -> None:
    balance = balance_of(two_windows((500, 130)).kernel(0, SECOND).build())
    assert (balance.kernels_j or 0) + (balance.static_j or 0) == pytest.approx(500, rel=0.01)
    assert balance.idle_j == pytest.approx(100)
    assert balance.unattributed_j == pytest.approx(30, rel=0.1)


def test_a_speck_of_work_does_not_get_all_that_idle_power_varies_by() -> None:
    builder = CaptureBuilder(3 * SECOND).tick(0, 0).tick(SECOND, joules(500)).tick(2 * SECOND, joules(610))
    builder.tick(3 * SECOND, joules(1110))
    builder.kernel(0, SECOND, GEMM).kernel(SECOND + 5, SECOND + 1_005, ATTENTION).kernel(2 * SECOND, 3 * SECOND, GEMM)
    report = attribute(builder.build(), "test")
    speck = kernel_named(report, ATTENTION).energy_j.value
    assert speck is not None
    assert speck < 1e-6 * 500 * 4
    assert report.balance.energy[0].unattributed_j == pytest.approx(10, rel=0.1)


def test_what_a_counter_phase_draws_beyond_the_model_is_the_meter_s() -> None:
    builder = CaptureBuilder(10 * SECOND).kernel(0, 10 * SECOND)
    energy = 0
    for second in range(11):
        builder.tick(second * SECOND, joules(energy))
        energy += 360 if second in (4, 5) else 300
    window = {"start_ns": T0 + 4 * SECOND + 9, "stop_ns": T0 + 5 * SECOND, "num_samples": 1, "interval_ns": 1_000}
    builder.add(CounterWindowTable, enable_ns=T0 + 4 * SECOND + 9, disable_ns=T0 + 5 * SECOND - 9, **window)
    balance = balance_of(builder.build())
    assert balance.meter_j == pytest.approx(120, rel=0.05)  # the second after it decays
    assert balance.raw_residual_fraction == pytest.approx(0, abs=0.01)
    assert balance.unattributed_j == pytest.approx(0, abs=5)


@pytest.mark.parametrize("policy", list(StaticPolicy))
def test_the_policy_says_who_gets_static_joules(policy: StaticPolicy) -> None:
    builder = two_windows((600, 200)).kernel(0, SECOND // 2, GEMM).kernel(SECOND // 2, 3 * SECOND // 2, ATTENTION)
    builder.step(0, 0, 2 * SECOND).ride(0, 0)
    report = attribute(builder.build(), "test", static_policy=policy)
    (balance,) = report.balance.energy
    static_j, total_j = report.totals.energy_static_j.value, sum(row.energy_j.value or 0 for row in report.kernels)
    assert static_j is not None
    dynamic_j = sum(row.dynamic_j.value or 0 for row in report.kernels)
    assert sum(row.static_j.value or 0 for row in report.kernels) == pytest.approx(static_j)
    is_separate = policy is StaticPolicy.SEPARATE
    assert total_j == pytest.approx(dynamic_j if is_separate else dynamic_j + static_j)
    assert (balance.static_j, balance.static_policy) == (pytest.approx(static_j if is_separate else 0), policy)
    assert report.phases[1].energy_j.value == pytest.approx(total_j)
    if policy is StaticPolicy.BY_ENERGY:
        assert kernel_named(report, GEMM).energy_j.value != pytest.approx(
            (kernel_named(report, GEMM).dynamic_j.value or 0) + (kernel_named(report, GEMM).static_j.value or 0)
        )


def test_components_add_up_to_the_dynamic_joules() -> None:
    report = attribute(synthetic_capture(40_000), "test")
    for row in report.kernels:
        assert sum(row.components_j.values()) == pytest.approx(row.dynamic_j.value, abs=1e-12)
    by_name = {row.component: row.energy_j.value or 0 for row in report.components}
    static_j, idle_j = by_name.pop("static"), by_name.pop("idle")
    assert sum(by_name.values()) == pytest.approx(report.totals.energy_dynamic_j.value)
    assert (static_j, idle_j) == (report.totals.energy_static_j.value, report.totals.energy_idle_j.value)


def test_a_declared_power_is_an_estimate_and_says_so_everywhere() -> None:
    changes = {"energy_source": None, "energy_absent_reason": "no RAPL in this container", "idle_power_w": None}
    builder = CaptureBuilder(2 * SECOND, {"devices": (device(kind="cpu", name="A CPU", **changes),)})
    builder.kernel(0, SECOND).step(0, 0, SECOND).ride(0, 0).request(0, 0, SECOND, SECOND)
    report = attribute(builder.build(), "test", tdp_w=95)
    assert report.kernels[0].energy_j.value == pytest.approx(95)
    assert report.totals.energy_gross_j.value == pytest.approx(95)
    figures = [report.kernels[0].energy_j, report.phases[1].energy_j, report.requests[0].share_energy_j]
    figures += [report.totals.energy_gross_j, report.totals.j_per_output_token, report.totals.energy_idle_j]
    for figure in figures:
        assert figure.method.startswith("estimated: declared power of 95 W")
        assert (figure.low, figure.high) == (None, None)
    assert report.balance.energy[0].method.startswith("estimated")
    assert report.balance.failures() == ()
    assert "energy_declared" in [entry.code for entry in report.validity]


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
    assert (balance.kernels_j or 0) + (balance.static_j or 0) == pytest.approx(1_000, rel=0.01)
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
    report = attribute(builder.build(), "test")
    (row,) = report.kernels
    assert (row.dynamic_j.value or 0) + (row.static_j.value or 0) == pytest.approx(50)
    assert row.dynamic_j.value == pytest.approx(50, rel=0.2)
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
    balance = balance_of(synthetic_capture(200_000))
    assert balance.raw_residual_fraction is not None
    assert balance.raw_residual_p95 is not None
    assert 0 < balance.raw_residual_fraction < balance.raw_residual_p95 < 0.05
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


@settings(max_examples=150, deadline=None)
@given(
    kernels=kernels,
    ticks=ticks,
    idle_w=st.one_of(st.none(), st.floats(0, 1e9)),
    policy=st.sampled_from(StaticPolicy),
    name=st.sampled_from(["NVIDIA Test", "NVIDIA H200"]),
    metered=st.integers(0, 1_000),
    unit_ns=st.sampled_from([1, 10_000_000]),
)
def test_energy_is_conserved_for_any_kernels_and_ticks(
    kernels: list[tuple[int, int, int, str]],
    ticks: list[tuple[int, int]],
    idle_w: float | None,
    policy: StaticPolicy,
    name: str,
    metered: int,
    unit_ns: int,
) -> None:
    builder = CaptureBuilder(1_000 * unit_ns, {"devices": (device(idle_power_w=idle_w, name=name),)})
    for start, length, stream, kernel in kernels:
        builder.kernel(start * unit_ns, (start + length) * unit_ns, kernel, stream=stream)
    energy = 0
    for time, step in sorted(ticks):
        energy += step
        builder.tick(time * unit_ns, energy * unit_ns, half_width=3)
    enable_ns = T0 + metered * unit_ns
    builder.add(CounterWindowTable, enable_ns=enable_ns, disable_ns=enable_ns + unit_ns)
    report = attribute(builder.build(), "test", static_policy=policy)
    assert report.balance.failures() == ()
    balance = report.balance.energy[0]
    if balance.measured_j is not None:
        assert balance.measured_j >= 0
        parts = (balance.kernels_j, balance.static_j, balance.idle_j, balance.meter_j)
        assert all(part is not None and part >= -1e-12 for part in parts)
        rows = sum(row.energy_j.value or 0.0 for row in report.kernels)
        assert rows == pytest.approx(balance.kernels_j or 0.0, rel=1e-9, abs=1e-15)


def test_counters_say_what_kernels_did_where_they_were_sampled() -> None:
    run = synthetic_run(1, num_blocks=20)
    profile = DeviceProfile("GPU-0", "NVIDIA H200", "2026-11-24", None, (), run.model)
    report = attribute(run.capture, "test", profiles={0: profile})
    (balance,) = report.balance.energy
    assert balance.mode is EnergyMode.COUNTERS
    assert {row.mode for row in report.kernels} == {EnergyMode.COUNTERS}
    assert all(row.components_j["unknown"] == 0 for row in report.kernels)
    assert balance.meter_j is not None
    assert balance.meter_j == pytest.approx(38 * 2.5, rel=0.5)  # the session's watts, for as long as windows see it
    assert report.totals.energy_static_j.low is not None
    assert report.totals.energy_static_j.high is not None
    static_j = run.active_j + run.idle_j - (report.totals.energy_idle_j.value or 0)
    assert report.totals.energy_static_j.low < static_j < report.totals.energy_static_j.high


@pytest.mark.parametrize("watts", [1.0, 2.8])
def test_power_samples_are_a_second_signal_where_their_lag_is_known(watts: float) -> None:
    calibrated = replace(SENSOR, window_s=Estimate(WINDOW_S), lag_s=Estimate(LAG_S))
    errors, methods = np.zeros((2, 6)), set()
    for seed in range(6):
        run = synthetic_run(seed, num_blocks=25, watts=watts)
        for number, known in enumerate((SENSOR, calibrated)):
            profile = DeviceProfile("GPU-0", "NVIDIA H200", "2026-11-24", known, (), run.model)
            report = attribute(run.capture, "test", profiles={0: profile})
            assert report.balance.failures() == ()
            found = [kernel_named(report, name).dynamic_j.value or 0 for name in run.names]
            errors[number, seed] = np.median(np.abs(found / run.class_j - 1))
        methods.add("and power samples" in report.balance.energy[0].method)
    assert True in methods
    assert errors[1].mean() < 1.1 * errors[0].mean()


def test_the_profile_that_a_capture_carries_is_taken_unless_another_is_given() -> None:
    known = default_profile("NVIDIA Test")
    calibrated = replace(known, date="2026-11-24", power_model=replace(known.power_model, source="calibrated"))
    builder = one_second()
    builder.changes |= {"profiles": {"0": profile_to_dict(calibrated)}}
    capture = builder.build()
    assert balance_of(capture).profile == "calibrated 2026-11-24"
    (balance,) = attribute(capture, "test", profiles={0: known}).balance.energy
    assert balance.profile == "datasheet defaults"
