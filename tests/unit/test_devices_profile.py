from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.devices import (
    check_writable,
    default_profile,
    find_profile,
    load_profile,
    profile_folder,
    profile_from_dict,
    profile_path,
    profile_to_dict,
    save_profile,
)
from qmeter_native.errors import ProfileError
from qmeter_native.model.device_profile import PROFILE_SCHEMA_VERSION, Ceiling, DeviceProfile, ModelFit, SensorModel
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel

UUID = "GPU-5ea46e45-0b72-0d77-d746-e95351c3ff3d"

rates = st.floats(0, 1e16)
names = st.text(max_size=12)
estimates = st.one_of(
    st.builds(Estimate, rates, rates, rates, st.just("measured"), st.none(), st.none() | st.floats(0, 1)),
    st.builds(Estimate.missing, st.text(min_size=1, max_size=8)),
)
sensors = st.builds(SensorModel, *[estimates] * 6, st.floats(0, 1), *[estimates] * 4)
ceilings = st.builds(Ceiling, names, st.just("B/s"), estimates, st.none() | rates, st.none() | rates, names)
fits = st.builds(
    ModelFit, rates, rates, rates, rates, st.integers(0, 99), st.integers(0, 99), st.dictionaries(names, rates)
)


@st.composite
def models(draw) -> PowerModel:
    features = tuple(draw(st.lists(st.sampled_from(PowerFeature), unique=True)))
    side = len(features)
    numbers = st.lists(st.floats(0, 1e3), min_size=side * (side + 1), max_size=side * (side + 1))
    values = np.array(draw(numbers))
    scalars = draw(st.lists(rates, min_size=8, max_size=8))
    discrepancy = draw(st.dictionaries(st.sampled_from(EnergyMode), st.floats(0, 1)))
    covariance = values[side:].reshape(side, side)
    unseen = frozenset(draw(st.lists(st.sampled_from(features)))) if features else frozenset()
    return PowerModel(features, values[:side], covariance, *scalars, discrepancy, 0.01, "calibrated", unseen)


profiles = st.builds(
    DeviceProfile,
    uuid=names,
    name=names,
    date=names,
    sensor=st.none() | sensors,
    ceilings=st.lists(ceilings, max_size=3).map(tuple),
    power_model=models(),
    fit=st.none() | fits,
    software=st.dictionaries(names, names),
    notes=st.lists(names, max_size=2).map(tuple),
)


@given(profiles)
def test_a_profile_survives_its_way_through_json(profile: DeviceProfile) -> None:
    back = profile_from_dict(json.loads(json.dumps(profile_to_dict(profile), allow_nan=False)))

    np.testing.assert_array_equal(back.power_model.coefficient, profile.power_model.coefficient)
    np.testing.assert_array_equal(back.power_model.covariance, profile.power_model.covariance)
    arrays = {"coefficient": None, "covariance": None}
    assert replace(back.power_model, **arrays) == replace(profile.power_model, **arrays)
    assert replace(back, power_model=None) == replace(profile, power_model=None)


def test_a_saved_profile_is_found_by_the_gpus_uuid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMETER_PROFILES", str(tmp_path / "profiles"))
    profile = default_profile("NVIDIA H200", UUID)

    assert find_profile(UUID) is None
    save_profile(profile, profile_path(UUID))
    found = find_profile(UUID)

    assert found is not None
    assert found.name == "NVIDIA H200"
    assert found.ceilings == profile.ceilings
    assert [path.name for path in profile_folder().iterdir()] == [f"{UUID}.json"]


def test_profiles_are_kept_in_the_users_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QMETER_PROFILES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert profile_folder() == tmp_path / "qmeter-native" / "profiles"


def test_a_profile_of_no_uuid_is_never_found(tmp_path: Path) -> None:
    save_profile(default_profile("NVIDIA H200"), profile_path("", tmp_path))

    assert find_profile("", tmp_path) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "is no device profile"),
        ('{"format": "something else"}', "is no device profile"),
        ('{"format": "qmeter-native device profile"}', "no schema_version"),
        ('{"format": "qmeter-native device profile", "schema_version": 1}', "is damaged"),
        ('{"format": "qmeter-native device profile", "schema_version": 99}', "reads up to"),
    ],
)
def test_a_file_that_is_no_profile_is_named_with_the_reason(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)

    with pytest.raises(ProfileError, match=says) as caught:
        load_profile(path)

    assert str(path) in caught.value.what


def test_a_missing_profile_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="calibrate"):
        load_profile(tmp_path / "none.json")


def test_a_profile_whose_coefficients_do_not_fit_its_features_is_damaged() -> None:
    document = profile_to_dict(default_profile("NVIDIA H200"))
    document["power_model"]["coefficient"].pop()

    with pytest.raises(ProfileError, match="damaged"):
        profile_from_dict(document)


def test_a_profile_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ProfileError, match="cannot be written"):
        save_profile(default_profile("NVIDIA H200"), tmp_path / "file" / "profile.json")


def test_the_default_of_an_h200_has_gh200s_coefficients_and_says_that_it_is_not_calibrated() -> None:
    profile = default_profile("NVIDIA H200", UUID, "9.0")
    model = profile.power_model
    joules = dict(zip(model.features, model.coefficient, strict=True))

    assert model.source == "datasheet"
    assert "Not calibrated" in profile.notes[0]
    assert joules[PowerFeature.DRAM_BYTES] == pytest.approx(8 * 11.68e-12)
    assert joules[PowerFeature.FP16_FLOP] == pytest.approx(0.52e-12)
    assert 115 < model.idle_w < 130
    np.testing.assert_allclose(np.sqrt(np.diag(model.covariance)), 0.5 * model.coefficient)
    assert profile_to_dict(profile)["schema_version"] == PROFILE_SCHEMA_VERSION


def test_the_default_of_an_h200_puts_a_dram_stream_and_a_gemm_near_the_power_limit() -> None:
    model = default_profile("NVIDIA H200").power_model
    joules = dict(zip(model.features, model.coefficient, strict=True))
    base = model.idle_w + model.active_w + joules[PowerFeature.SM_SECONDS]

    stream = base + 4.1e12 * (joules[PowerFeature.DRAM_BYTES] + joules[PowerFeature.L2_BYTES])
    gemm = base + 650e12 * joules[PowerFeature.FP16_FLOP]

    assert 550 < stream < 850
    assert 550 < gemm < 850


def test_a_cpu_or_an_unknown_gpu_is_known_by_time_alone() -> None:
    profile = default_profile("AMD EPYC 9654", "host", power_limit_w=360)

    assert profile.power_model.features == (PowerFeature.SM_SECONDS,)
    assert profile.ceilings == ()
    assert "time alone" in profile.notes[0]
    full = profile.power_model.idle_w + profile.power_model.active_w + profile.power_model.coefficient[0]
    assert 100 < full < 360


def test_a_sensor_of_before_the_counters_window_was_fitted_says_so() -> None:
    tick = Estimate(0.1)
    sensor = SensorModel(tick, tick, tick, tick, tick, tick, 0.004)
    document = profile_to_dict(replace(default_profile("NVIDIA H200", "GPU-1"), sensor=sensor))
    for name in ("counter_look_s", "counter_time_constant_s", "counter_lag_s", "phase_error_seen"):
        del document["sensor"][name]

    found = profile_from_dict(document).sensor

    assert found == sensor
    assert found.counter_time_constant_s.reason


def test_a_path_that_no_profile_can_be_written_to_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    check_writable(tmp_path / "new" / "gpu.json")
    for path in (tmp_path, tmp_path / "file" / "gpu.json"):
        with pytest.raises(ProfileError, match="cannot be written"):
            check_writable(path)
