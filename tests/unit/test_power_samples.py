"""The driver's power samples: parts of the counter's windows, and whether they help."""

from __future__ import annotations

import numpy as np
import pytest

from qmeter_native.attribution.energy_curve import EnergyCurve
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.power_samples import FinerWindows, PowerSamples, WindowChoice, choose_windows
from qmeter_native.attribution.timeline import share_time
from qmeter_native.model.power_model import EnergyMode
from qmeter_native.units import NS_PER_S
from tests.synthetic_gpu import Array
from tests.synthetic_run import LAG_S, WINDOW_S, SyntheticRun, synthetic_run

SECOND = NS_PER_S


def problem_of(run: SyntheticRun, cuts_ns: Array, energy_j: Array, error_j: Array) -> EnergyProblem:
    kernels, shape = run.capture.kernels, (len(cuts_ns) - 1, len(run.names))
    units, time_ns = np.zeros((2, shape[0] * shape[1]))
    for part in share_time(kernels.start_ns, kernels.end_ns, cuts_ns):
        cell = part.window * shape[1] + kernels.class_id[part.row]
        launches = part.length_ns / (kernels.end_ns - kernels.start_ns)[part.row]
        units += np.bincount(cell, launches, len(units))
        time_ns += np.bincount(cell, part.shared_ns, len(units))
    time_s = time_ns.reshape(shape) / SECOND
    clocks, middle = run.capture.clocks, (cuts_ns[:-1] + cuts_ns[1:]) // 2
    read_s, middle_s = (clocks.time_ns - cuts_ns[0]) / SECOND, (middle - cuts_ns[0]) / SECOND
    return EnergyProblem(
        length_s=np.diff(cuts_ns) / SECOND,
        energy_j=energy_j,
        error_j=error_j,
        idle_w=run.model.idle_at(np.interp(middle_s, read_s, clocks.temperature_c)),
        busy_s=time_s.sum(axis=1),
        clock=np.ones(shape[0]),
        cap_w=np.zeros(shape[0]),
        units=units.reshape(shape),
        time_s=time_s,
        features=run.model.features,
        work=run.work,
        modes=(EnergyMode.COUNTERS,) * shape[1],
        is_fitted=np.ones(shape[0], bool),
    )


def finer(run: SyntheticRun, lag_s: float, every: int = 7) -> tuple[Array, Array, Array, FinerWindows]:
    curve, plan = EnergyCurve.of(run.capture, 0), run.capture.manifest
    samples = PowerSamples.of(run.capture, 0, WINDOW_S, lag_s)
    assert curve is not None
    assert samples is not None
    edges = curve.edge_ns[(curve.edge_ns > plan.measure_start_ns) & (curve.edge_ns < plan.measure_end_ns)][::every]
    energy_j, error_j = curve.between(edges)
    return edges, energy_j, error_j, samples.finer(edges, energy_j, error_j, 0.2)


def choice(seed: int, lag_s: float) -> WindowChoice:
    run = synthetic_run(seed, has_counters=False)
    edges, energy_j, error_j, parts = finer(run, lag_s)
    coarse = problem_of(run, edges, energy_j, error_j)
    fine = problem_of(run, parts.cuts_ns, parts.energy_j, parts.error_j)
    return choose_windows(coarse, fine, parts.parent, run.model)


def test_parts_add_up_to_what_the_counter_saw() -> None:
    edges, energy_j, _, parts = finer(synthetic_run(0), LAG_S)
    assert np.bincount(parts.parent, parts.energy_j) == pytest.approx(energy_j, rel=1e-12)
    assert np.isin(edges, parts.cuts_ns).all()
    assert np.all(parts.energy_j >= 0)
    assert np.all(np.diff(parts.cuts_ns) >= 0.19 * SECOND)


def test_parts_have_the_energy_of_their_time() -> None:
    step = np.arange(10_000_000, 4 * SECOND, 20_000_000)
    power = np.where(step < 2 * SECOND, 100.0, 500.0)
    samples = PowerSamples(step, power, 0.02)
    parts = samples.finer(np.array([SECOND, 3 * SECOND]), np.array([660.0]), np.array([1.0]), 0.5)
    assert parts.energy_j == pytest.approx([55, 55, 275, 275], rel=0.05)  # 600 J by the samples, scaled by a tenth
    assert parts.error_j[1] == pytest.approx(parts.error_j[2], rel=0.1)  # the step lies on the bound between them
    assert parts.error_j[1] > 2 * parts.error_j[0]


def test_samples_are_kept_where_they_predict_held_out_windows_better() -> None:
    choices = [choice(seed, LAG_S) for seed in range(8)]
    assert any(one.is_finer for one in choices)
    for one in choices:
        assert one.coarse_error is not None
        assert one.fine_error is not None
        assert one.is_finer == (one.fine_error < one.coarse_error)


def test_samples_with_a_wrong_lag_are_dropped() -> None:
    assert not any(choice(seed, LAG_S + 0.08).is_finer for seed in range(4))


def test_few_windows_are_not_held_out() -> None:
    run = synthetic_run(0, num_blocks=8, has_counters=False)
    edges, energy_j, error_j, parts = finer(run, LAG_S)
    coarse = problem_of(run, edges, energy_j, error_j)
    fine = problem_of(run, parts.cuts_ns, parts.energy_j, parts.error_j)
    assert choose_windows(coarse, fine, parts.parent, run.model) == WindowChoice(False, None, None)
