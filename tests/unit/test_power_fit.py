"""Calibration of the power model on a made-up GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qmeter_native.calibration.power_fit import fit_power_model
from qmeter_native.devices.default_profile import default_profile
from qmeter_native.errors import UsageError
from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel
from tests.synthetic_gpu import calibration


@pytest.fixture(scope="module")
def prior() -> PowerModel:
    return replace(default_profile("NVIDIA H200").power_model, idle_w=125.0)


def test_coefficients_come_back_within_their_errors(prior: PowerModel) -> None:
    missed = []
    for seed in range(8):
        made = calibration(seed)
        model, _ = fit_power_model(made.problem, made.kinds, prior)
        place = [model.features.index(feature) for feature in made.truth.features]
        error = np.sqrt(np.diag(model.covariance))[place]
        missed.extend((model.coefficient[place] - made.truth.coefficient) / error)
        missed.append((model.active_w - made.truth.active_w) / model.active_error_w)
        assert np.linalg.eigvalsh(model.covariance).min() >= -1e-9 * model.covariance.max()
    assert np.mean(np.abs(missed) < 1.96) > 0.9


def test_kernels_left_out_are_predicted_and_say_how_far_kernels_differ(prior: PowerModel) -> None:
    spreads = []
    for seed in range(6):
        made = calibration(seed, discrepancy=0.08)
        model, fit = fit_power_model(made.problem, made.kinds, prior)
        spreads.append(model.discrepancy[EnergyMode.COUNTERS])
        assert set(fit.kernels) == set(made.kinds)
        assert fit.num_kernels == 16
        assert fit.num_windows == made.problem.num_windows
        assert fit.kernel_error_median < 0.08
        assert fit.window_error_median < 0.004
        assert model.window_error == pytest.approx(0.003, rel=0.4)
        assert model.discrepancy[EnergyMode.TIME] >= model.discrepancy[EnergyMode.SHAPES] >= spreads[-1]
    assert 0.06 < np.median(spreads) < 0.14


def test_exponents_are_found_where_clocks_vary_and_kept_where_not(prior: PowerModel) -> None:
    hot = calibration(4)
    assert hot.problem.clock.min() < 0.9
    model, _ = fit_power_model(hot.problem, hot.kinds, prior)
    assert model.core_exponent == pytest.approx(2.0, abs=0.5)
    uncapped = hot.problem.clock == 1.0
    cool = replace(hot.problem, is_fitted=uncapped)
    model, _ = fit_power_model(cool, hot.kinds, prior)
    assert (model.core_exponent, model.active_exponent) == (prior.core_exponent, prior.active_exponent)


def test_features_that_no_kernel_uses_keep_their_prior_and_new_ones_are_added(prior: PowerModel) -> None:
    made = calibration(0)
    model, _ = fit_power_model(made.problem, made.kinds, prior)
    fp8 = model.features.index(PowerFeature.FP8_FLOP)
    assert model.coefficient[fp8] == pytest.approx(prior.coefficient[prior.features.index(PowerFeature.FP8_FLOP)])
    assert PowerFeature.INSTRUCTIONS in model.features
    assert model.unseen == {PowerFeature.FP8_FLOP, PowerFeature.INT8_OP}
    assert model.source == "calibrated"
    assert model.idle_w == prior.idle_w


def test_one_strange_kernel_does_not_spoil_the_others(prior: PowerModel) -> None:
    made = calibration(3)
    work = made.problem.work.copy()
    work[5] /= 3  # its counters missed two thirds of what it did
    _, fit = fit_power_model(replace(made.problem, work=work), made.kinds, prior)
    assert fit.kernels["kernel5"] > 0.2
    assert fit.kernel_error_median < 0.1


def test_two_kinds_are_too_few(prior: PowerModel) -> None:
    made = calibration(0, num_kinds=2)
    with pytest.raises(UsageError, match="2 kinds"):
        fit_power_model(made.problem, made.kinds, prior)


def test_one_window_a_kernel_is_enough_and_says_nothing_of_windows(prior: PowerModel) -> None:
    made = calibration(1, rounds=1)
    alone = np.isclose(made.problem.busy_s, 2.0) & ((made.problem.units > 0).sum(axis=1) == 1)
    model, fit = fit_power_model(replace(made.problem, is_fitted=alone), made.kinds, prior)
    assert fit.num_kernels == 16
    assert model.window_error == prior.window_error
    assert fit.kernel_error_median < 0.1
