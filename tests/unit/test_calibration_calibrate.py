from __future__ import annotations

import numpy as np
import pytest

from qmeter_native.calibration.calibrate import LOAD_NAMES, QUICK_LOAD_NAMES, with_power_model
from qmeter_native.calibration.idle import with_idle_power
from qmeter_native.calibration.load_kernels import all_loads
from qmeter_native.calibration.load_window import LoadWindow, WindowRole
from qmeter_native.devices import default_profile, profile_from_dict, profile_to_dict
from qmeter_native.errors import CaptureError
from qmeter_native.model.power_model import PowerFeature
from qmeter_native.model.tables import ClockTable, RangeTable
from tests.factories import T0, CaptureBuilder
from tests.loads import ACTIVE_W, IDLE_W, load_capture, made_up_loads, made_up_plan

S = 1_000_000_000


def idle_capture(windows: list[tuple[float, int]]) -> CaptureBuilder:
    """Idle windows of 2 s at some power and temperature, a second apart."""
    builder = CaptureBuilder(length_ns=3 * len(windows) * S)
    energy_uj = 0
    for number, (power_w, celsius) in enumerate(windows):
        name = LoadWindow(number, WindowRole.IDLE, 2.0).range_name
        start = 3 * number * S
        builder.add(RangeTable, start_ns=T0 + start, end_ns=T0 + start + 2 * S, name=name)
        builder.add(ClockTable, time_ns=T0 + start + S, temperature_c=celsius, sm_mhz=345)
        for tick in range(30):
            builder.tick(start + tick * S // 10, energy_uj)
            energy_uj += round(power_w * 1e5)
    return builder


def test_idle_power_and_its_slope_come_from_windows_of_different_temperature() -> None:
    model = with_idle_power(
        default_profile("NVIDIA H200").power_model, [idle_capture([(120.0, 35), (126.0, 55)]).build()], 0
    )

    assert model.idle_w == pytest.approx(123.0, rel=1e-3)
    assert model.idle_temperature_c == pytest.approx(45.0)
    assert model.idle_w_per_k == pytest.approx(0.3, rel=0.02)


def test_windows_of_one_temperature_tell_no_slope() -> None:
    model = with_idle_power(
        default_profile("NVIDIA H200").power_model, [idle_capture([(120.0, 35), (126.0, 36)]).build()], 0
    )

    assert model.idle_w_per_k == 0.0


def test_without_idle_windows_the_idle_power_stays_as_it_was() -> None:
    model = default_profile("NVIDIA H200").power_model

    assert with_idle_power(model, [CaptureBuilder().build()], 0) is model


def test_a_capture_of_loads_gives_a_profile_with_what_bytes_and_flops_cost() -> None:
    loads = made_up_loads(8)
    capture = load_capture(loads, made_up_plan(loads))
    profile = default_profile("NVIDIA H200", "GPU-0")

    found = with_power_model(profile, [capture], 0, None)

    model = found.power_model
    joules = dict(zip(model.features, model.coefficient, strict=True))
    assert model.source == "calibrated"
    assert joules[PowerFeature.DRAM_BYTES] == pytest.approx(60e-12, rel=0.2)
    assert joules[PowerFeature.FP16_FLOP] == pytest.approx(0.5e-12, rel=0.2)
    assert model.idle_w == pytest.approx(IDLE_W, rel=0.01)
    assert found.fit is not None
    assert found.fit.window_error_median < 0.02
    steady_w = model.active_w + joules.get(PowerFeature.SM_SECONDS, 0.0)
    assert steady_w == pytest.approx(ACTIVE_W, rel=0.5)
    back = profile_from_dict(profile_to_dict(found))
    np.testing.assert_array_equal(back.power_model.coefficient, model.coefficient)


def test_a_capture_without_loads_gives_no_power_model() -> None:
    profile = default_profile("NVIDIA H200", "GPU-0")

    with pytest.raises(CaptureError):
        with_power_model(profile, [idle_capture([(120.0, 35)]).build()], 0, None)


def test_every_load_that_calibration_runs_is_in_the_registry() -> None:
    names = {load.name for load in all_loads()}

    assert set(LOAD_NAMES) <= names
    assert set(QUICK_LOAD_NAMES) <= set(LOAD_NAMES)
