"""The estimator: what it must keep whatever the windows, and that it finds what it can find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.attribution.collinear import MAX_HALF_WIDTH, collinear_groups
from qmeter_native.attribution.energy_fit import EnergyFit, fit_energy, transfer
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.nonnegative import nonnegative_minimum
from qmeter_native.calibration.synthetic import KINDS, SyntheticCase, synthetic_case
from qmeter_native.model.power_model import EnergyMode, PowerFeature
from tests.synthetic_gpu import Array

cases = st.builds(
    synthetic_case,
    kind=st.sampled_from(KINDS),
    seed=st.integers(10_000, 20_000),
    num_windows=st.integers(1, 30),
    num_classes=st.integers(1, 8),
)


def reordered(problem: EnergyProblem, windows: Array, classes: Array) -> EnergyProblem:
    per_window = ("length_s", "energy_j", "error_j", "idle_w", "busy_s", "clock", "cap_w", "is_fitted")
    return replace(
        problem,
        **{name: getattr(problem, name)[windows] for name in per_window},
        units=problem.units[windows][:, classes],
        time_s=problem.time_s[windows][:, classes],
        work=problem.work[classes],
        modes=tuple(problem.modes[number] for number in classes),
    )


def error_of(fit: EnergyFit) -> Array:
    return fit.class_j(np.ones(len(fit.unit_j)))[1]


def fitted(case: SyntheticCase) -> EnergyFit:
    return fit_energy(case.problem, case.model)


@settings(max_examples=60, deadline=None)
@given(case=cases)
def test_a_prediction_is_the_sum_of_its_parts_and_no_part_is_negative(case: SyntheticCase) -> None:
    fit = fitted(case)
    said = fit.predict(case.problem)
    assert said.mean_j == pytest.approx(said.idle_j + said.active_j + said.dynamic_j.sum(axis=1), rel=1e-12)
    assert said.idle_j == pytest.approx(case.problem.idle_w * case.problem.length_s)
    assert min(fit.unit_j.min(), fit.active_w, fit.coefficient.min()) >= 0
    assert fit.components_j.sum(axis=1) == pytest.approx(fit.unit_j, rel=1e-12)
    assert fit.components_j.min() >= 0
    assert np.all(said.error_j > 0)
    assert np.linalg.eigvalsh(fit.covariance / np.max(np.diag(fit.covariance))).min() > -1e-9


@settings(max_examples=40, deadline=None)
@given(case=cases, seed=st.integers(0, 1000))
def test_the_order_of_windows_and_classes_does_not_matter(case: SyntheticCase, seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = rng.permutation(case.problem.num_windows)
    classes = rng.permutation(case.problem.num_classes)
    fit, other = fitted(case), fit_energy(reordered(case.problem, windows, classes), case.model)
    scale = case.unit_j.mean()
    assert other.unit_j / scale == pytest.approx(fit.unit_j[classes] / scale, rel=1e-5, abs=1e-6)
    assert error_of(other) == pytest.approx(error_of(fit)[classes], rel=1e-4)
    assert other.window_error == pytest.approx(fit.window_error, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(case=cases, factor=st.floats(1e-3, 1e3))
def test_what_a_unit_is_does_not_matter(case: SyntheticCase, factor: float) -> None:
    problem = case.problem
    units, work = problem.units.copy(), problem.work.copy()
    units[:, 0] *= factor
    work[0] /= factor
    fit, other = fitted(case), fit_energy(replace(problem, units=units, work=work), case.model)
    back = np.ones(problem.num_classes)
    back[0] = factor
    assert other.unit_j * back / case.unit_j.mean() == pytest.approx(
        fit.unit_j / case.unit_j.mean(), rel=1e-5, abs=1e-6
    )
    assert error_of(other) * back == pytest.approx(error_of(fit), rel=1e-4)
    assert list(other.group) == list(fit.group)


def test_classes_with_counters_are_resolved_and_found() -> None:
    case = synthetic_case("counters", 1, num_windows=200)
    fit = fitted(case)
    assert fit.is_resolved.all()
    assert list(fit.group) == list(range(12))
    shares = case.class_j / case.class_j.sum()
    assert np.average(np.abs(fit.unit_j / case.unit_j - 1), weights=shares) < 0.03


def test_classes_of_one_replayed_graph_are_merged_and_flagged_without_counters() -> None:
    case = synthetic_case("collinear", 1)
    fit = fitted(case)
    assert not fit.is_resolved[np.bincount(fit.group, minlength=12)[fit.group] > 1].any()
    assert np.unique(fit.group).size < 12
    total = case.problem.units.sum(axis=0)
    value, error = (fit.unit_j * total).sum(), fit.sum_error(np.append(total, 0.0)[None])[0]
    assert abs(value - case.class_j.sum()) < 1.96 * error
    assert error / value < 0.1


def test_held_out_windows_are_predicted_within_their_errors() -> None:
    missed = []
    for seed in range(20):
        case = synthetic_case("bent", seed, num_windows=100)
        is_fitted = np.arange(100) < 80
        fit = fit_energy(replace(case.problem, is_fitted=is_fitted), case.model)
        said = fit.predict(case.problem)
        missed.append(((said.mean_j - case.window_j) / said.error_j)[~is_fitted])
    assert 0.92 < np.mean(np.abs(np.concatenate(missed)) < 1.96) < 0.99


def test_the_energy_of_windows_that_are_not_fitted_is_not_looked_at() -> None:
    case = synthetic_case("counters", 3)
    is_fitted = np.arange(60) % 3 > 0
    hidden = replace(case.problem, is_fitted=is_fitted)
    changed = replace(hidden, energy_j=np.where(is_fitted, hidden.energy_j, 1e6))
    fit, other = fit_energy(hidden, case.model), fit_energy(changed, case.model)
    assert np.array_equal(fit.unit_j, other.unit_j)
    assert np.array_equal(fit.covariance, other.covariance)


def test_without_fitted_windows_the_prior_is_the_answer() -> None:
    case = synthetic_case("counters", 4)
    fit = fit_energy(replace(case.problem, is_fitted=np.zeros(60, bool)), case.model)
    expected = case.problem.work @ case.model.coefficient
    assert fit.unit_j == pytest.approx(expected)
    assert np.all(error_of(fit) / expected > case.model.discrepancy[EnergyMode.COUNTERS] * 0.99)


def test_a_wild_window_moves_little() -> None:
    case = synthetic_case("counters", 5)
    energy = case.problem.energy_j.copy()
    energy[7] *= 3
    fit, other = fitted(case), fit_energy(replace(case.problem, energy_j=energy), case.model)
    assert np.all(np.abs(other.unit_j - fit.unit_j) < 0.5 * np.maximum(error_of(fit), error_of(other)))


def test_windows_that_no_model_follows_widen_all_intervals() -> None:
    case = synthetic_case("counters", 6)
    noise = np.random.default_rng(0).normal(1, 0.05, 60)
    other = fit_energy(replace(case.problem, energy_j=case.problem.energy_j * noise), case.model)
    assert other.window_error == pytest.approx(0.05, rel=0.3)
    assert np.median(error_of(other) / error_of(fitted(case))) > 1.3


def test_less_known_work_means_wider_intervals() -> None:
    case = synthetic_case("counters", 7, num_windows=6)
    problem, widths = case.problem, []
    for mode in EnergyMode:
        fit = fit_energy(replace(problem, modes=(mode,) * problem.num_classes), case.model)
        widths.append(float((error_of(fit) * problem.units.sum(axis=0)).sum()))
    assert widths == sorted(widths)


def test_work_by_time_alone_takes_its_power_from_the_run() -> None:
    case = synthetic_case("time", 8)
    problem = case.problem
    assert not problem.work[:, : problem.features.index(PowerFeature.SM_SECONDS)].any()
    fit = fitted(case)
    assert fit.time_w == pytest.approx(np.median(case.unit_j / problem.work[:, -1]), rel=0.35)
    assert np.all(fit.components_j[:, :-1] == 0)


def test_one_more_launch_costs_its_time_at_the_power_cap() -> None:
    fit = fitted(synthetic_case("capped", 9))
    time_s = np.full(12, 1e-3)
    assert fit.marginal_j(time_s, cap_w=700.0) == pytest.approx(np.full(12, 0.7))
    assert fit.marginal_j(time_s) == pytest.approx(fit.unit_j + fit.active_w * 1e-3)
    assert np.all(fit.marginal_j(time_s, clock=0.8) < fit.marginal_j(time_s))


def test_a_transferred_fit_keeps_what_it_knows_and_is_less_sure_of_the_new() -> None:
    case = synthetic_case("counters", 10)
    fit, keys = fitted(case), [f"class{number}" for number in range(12)]
    assert transfer(fit, keys, keys, case.problem).unit_j == pytest.approx(fit.unit_j)
    twice = replace(case.problem, work=case.problem.work * 2)
    other_keys = [*keys[:6], *(f"new{number}" for number in range(6))]
    other = transfer(fit, keys, other_keys, twice)
    assert other.unit_j[:6] == pytest.approx(2 * fit.unit_j[:6])
    assert other.unit_j[6:] == pytest.approx(2 * case.problem.work[6:] @ fit.coefficient)
    relative = error_of(other) / other.unit_j
    assert np.all(relative[6:] >= 0.0999)
    same = transfer(fit, keys, other_keys, case.problem)
    assert error_of(same)[:6] == pytest.approx(error_of(fit)[:6])


def test_groups_merge_what_is_known_in_sum_only() -> None:
    value = np.array([10.0, 5.0, 5.0])
    covariance = np.array([[0.1, 0, 0], [0, 4.0, -3.95], [0, -3.95, 4.0]])
    group, is_resolved = collinear_groups(value, covariance)
    assert list(group) == [0, 1, 1]
    assert list(is_resolved) == [True, False, False]
    assert 1.96 * np.sqrt(covariance[1:, 1:].sum()) / 10 < MAX_HALF_WIDTH


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 12), num_unbounded=st.integers(0, 2))
def test_the_minimum_meets_its_optimality_conditions(seed: int, size: int, num_unbounded: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size + 2, size))
    gram, linear = matrix.T @ matrix + 1e-3 * np.eye(size), rng.normal(size=size)
    solution = nonnegative_minimum(gram, linear, num_unbounded)
    pull = linear - gram @ solution
    bounded = np.arange(size) < size - num_unbounded
    assert np.all(solution[bounded] >= 0)
    assert np.abs(pull[(solution != 0) | ~bounded]).max(initial=0) < 1e-7
    assert np.all(pull[(solution == 0) & bounded] < 1e-7)
