"""The truth test's figures are honest: right for what is right, wrong for what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from qmeter_native.calibration.load_problem import LoadProblem
from qmeter_native.calibration.load_window import WindowRole
from qmeter_native.calibration.load_windows import load_problem
from qmeter_native.calibration.truth import Truth, recompute, truth, truth_row, wilson_interval
from qmeter_native.calibration.truth_checks import additive_j, has_role, hidden_predictions, mean_power_j, singles_model
from qmeter_native.devices import default_profile
from qmeter_native.errors import CaptureError
from tests.loads import load_capture, made_up_loads, made_up_plan

PROFILE = default_profile("NVIDIA H200", "GPU-0")
LOADS = made_up_loads(8)
PLAN = made_up_plan(LOADS, num_mixtures=12, num_capped=3, num_interventions=4)


@cache
def loads() -> LoadProblem:
    return load_problem(load_capture(LOADS, PLAN), 0, None, reference_mhz=1980.0)


@cache
def found() -> Truth:
    return truth([(loads(), PROFILE.power_model)])


def spoiled(change: float) -> LoadProblem:
    """Mixtures draw ``change`` more than their kernels explain."""
    is_mixture = has_role(loads(), WindowRole.MIXTURE)
    problem = loads().problem
    energy_j = np.where(
        is_mixture, problem.energy_j * (1 + change * np.resize([1, -1], len(is_mixture))), problem.energy_j
    )
    return replace(loads(), problem=replace(problem, energy_j=energy_j))


def test_a_gpu_that_follows_the_model_is_predicted_almost_exactly() -> None:
    metrics = found().metrics
    assert metrics["window_error_median_uncapped"].value < 0.003
    assert metrics["window_error_p95_uncapped"].value < 0.01
    assert metrics["intervention_error_median"].value < 0.02
    assert metrics["unseen_error_median"].value < 0.03


def test_windows_that_no_model_can_follow_are_reported_as_errors() -> None:
    metrics = truth([(spoiled(0.10), PROFILE.power_model)]).metrics
    assert metrics["window_error_median_uncapped"].value > 0.05
    assert metrics["coverage_windows"].value > 0.6


def test_a_hidden_window_does_not_move_its_own_prediction() -> None:
    model = singles_model(loads(), PROFILE.power_model)
    row = int(np.flatnonzero(has_role(loads(), WindowRole.MIXTURE))[0])
    problem = loads().problem
    energy_j = problem.energy_j.copy()
    energy_j[row] *= 3
    before = hidden_predictions(loads(), model).mean_j[row]
    after = hidden_predictions(replace(loads(), problem=replace(problem, energy_j=energy_j)), model).mean_j[row]
    assert after == pytest.approx(before, rel=1e-12)


def test_none_of_an_interventions_windows_moves_its_prediction() -> None:
    model = singles_model(loads(), PROFILE.power_model)
    rows = [row for row, window in enumerate(loads().windows) if window.group == "intervention 1"]
    problem = loads().problem
    energy_j = problem.energy_j.copy()
    energy_j[rows] *= 2
    before = hidden_predictions(loads(), model).mean_j[rows]
    after = hidden_predictions(replace(loads(), problem=replace(problem, energy_j=energy_j)), model).mean_j[rows]
    np.testing.assert_allclose(after, before, rtol=1e-12)


def test_every_mixture_and_intervention_is_predicted_and_no_single_is() -> None:
    is_hidden = has_role(loads(), WindowRole.MIXTURE, WindowRole.INTERVENTION)
    np.testing.assert_array_equal(np.isfinite(found().boards[0].hidden.mean_j), is_hidden)


def test_interventions_have_the_joules_of_the_launches_that_they_change() -> None:
    assert len(found().interventions) == 4
    for change in found().interventions:
        rows = [row for row, window in enumerate(loads().windows) if window.group == change.group]
        column = loads().kinds.index(change.changed)
        rates = {row: loads().problem.units[row, column] / loads().problem.length_s[row] for row in rows}
        signs = {row: 0.5 if loads().windows[row].side == "B" else -0.5 for row in rows}
        launches = sum(signs[row] * rates[row] for row in rows)
        load = LOADS[change.changed]
        assert change.measured_j == pytest.approx(launches * (load.unit_j + 60.0 * load.time_s), rel=0.1)


def test_the_sum_of_isolated_energies_is_right_where_clocks_do_not_move() -> None:
    is_mixture = has_role(loads(), WindowRole.MIXTURE)
    np.testing.assert_allclose(additive_j(loads())[is_mixture], loads().problem.energy_j[is_mixture], rtol=1e-3)


def test_mean_power_times_time_is_wrong_for_mixtures_that_differ() -> None:
    rows = found().boards[0].is_uncapped
    errors = np.abs(mean_power_j(loads(), rows) / loads().problem.energy_j - 1)[rows]
    assert 0.01 < np.median(errors) < 0.3
    assert found().metrics["mean_power_error_median_uncapped"].value == pytest.approx(np.median(errors))


def test_a_window_does_not_enter_its_own_mean_power() -> None:
    rows = found().boards[0].is_uncapped
    row = int(np.flatnonzero(rows)[0])
    problem = loads().problem
    energy_j = problem.energy_j.copy()
    energy_j[row] *= 5
    changed = mean_power_j(replace(loads(), problem=replace(problem, energy_j=energy_j)), rows)
    assert changed[row] == pytest.approx(mean_power_j(loads(), rows)[row])


def test_the_figures_can_be_recomputed_from_the_rows_of_a_file() -> None:
    row = json.loads(json.dumps(truth_row(loads(), PROFILE)))
    again = recompute([row])
    for name, metric in found().metrics.items():
        assert again.metrics[name].value == pytest.approx(metric.value, rel=1e-6, abs=1e-9), name


def test_rows_of_two_runs_make_one_test() -> None:
    row = truth_row(loads(), PROFILE)
    both = recompute([row, row]).metrics
    assert both["num_runs"].value == 2
    assert both["num_uncapped_mixtures"].value == 2 * found().metrics["num_uncapped_mixtures"].value
    assert both["num_interventions"].value == 8


def test_boards_are_fitted_by_themselves_and_their_errors_pooled() -> None:
    problem = loads().problem
    brighter = replace(problem, energy_j=1.05 * problem.energy_j, idle_w=1.05 * problem.idle_w)  # another gain
    other = truth_row(replace(loads(), problem=brighter), replace(PROFILE, uuid="GPU-1"))
    row = truth_row(loads(), PROFILE)
    apart, alone = recompute([row, other]), recompute([row])
    assert apart.metrics["num_boards"].value == 2
    assert apart.metrics["num_kernel_kinds"].value == 8
    assert apart.metrics["window_error_median_uncapped"].n == 30
    assert apart.metrics["window_error_p95_uncapped"].value < 0.01
    assert len(apart.unseen) == 2 * len(alone.unseen)
    as_one = recompute([row, {**other, "profile": row["profile"]}])
    assert as_one.metrics["window_error_median_uncapped"].value > 0.015


def test_a_board_without_mixtures_leaves_the_others_figures_alone() -> None:
    few = made_up_plan(LOADS, num_mixtures=0, num_capped=0, num_interventions=0)
    empty = truth_row(load_problem(load_capture(LOADS, few), 0, None), replace(PROFILE, uuid="GPU-1"))
    assert recompute([truth_row(loads(), PROFILE), empty]).metrics["num_boards"].value == 1


def test_capped_mixtures_are_reported_apart() -> None:
    problem = loads().problem
    gapless = np.array([w.role is WindowRole.MIXTURE and w.slot_s == 0 for w in loads().windows])
    capped = replace(loads(), problem=replace(problem, cap_w=np.where(gapless, 700.0, 0.0)))
    metrics = truth([(capped, PROFILE.power_model)]).metrics
    assert metrics["num_capped_mixtures"].value == 3
    assert metrics["num_uncapped_mixtures"].value == 12
    assert {"window_error_median_capped", "cap_error_median_capped"} <= set(metrics)


def test_counts_say_what_was_tested() -> None:
    metrics = found().metrics
    assert metrics["num_kernel_kinds"].value == 8
    assert metrics["num_quantized_kinds"].value == 1
    assert metrics["window_error_median_uncapped"].n == 15


def test_too_few_mixtures_are_no_test() -> None:
    few = made_up_plan(LOADS, num_mixtures=1, num_capped=0, num_interventions=0)
    with pytest.raises(CaptureError, match="1 mixtures"):
        truth([(load_problem(load_capture(LOADS, few), 0, None), PROFILE.power_model)])
    with pytest.raises(CaptureError, match="no rows"):
        recompute([])


def test_the_wilson_interval_of_all_covered_reaches_one() -> None:
    low, high = wilson_interval(36, 36)
    assert low == pytest.approx(0.9036, abs=1e-3)
    assert high == pytest.approx(1.0)
    assert wilson_interval(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
