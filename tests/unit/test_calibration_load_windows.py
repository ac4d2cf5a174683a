"""The energy problem of a capture of loads has what ran and what it cost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from qmeter_native.calibration.load_problem import LoadProblem, merged, selected
from qmeter_native.calibration.load_window import WindowRole
from qmeter_native.calibration.load_windows import load_problem
from qmeter_native.errors import CaptureError
from qmeter_native.model.capture import Capture
from qmeter_native.model.power_model import EnergyMode, PowerFeature
from qmeter_native.model.tables import RangeTable
from tests.factories import T0, manifest
from tests.loads import ACTIVE_W, CLOCK_MHZ, IDLE_W, load_capture, made_up_loads, made_up_plan

LOADS = made_up_loads()
PLAN = made_up_plan(LOADS)


@pytest.fixture(scope="module")
def loads() -> LoadProblem:
    return load_problem(load_capture(LOADS, PLAN, throttled="capped 1"), 0, None, reference_mhz=1980.0)


def test_every_window_of_load_is_a_row_and_idle_and_soak_are_not(loads: LoadProblem) -> None:
    wanted = [w for w in PLAN.windows if w.role not in (WindowRole.IDLE, WindowRole.SOAK)]
    assert list(loads.windows) == wanted


def test_the_energy_of_windows_is_that_of_the_kernels_in_them(loads: LoadProblem) -> None:
    problem = loads.problem
    unit_j = np.array([LOADS[name].unit_j for name in loads.kinds])
    expected = IDLE_W * problem.length_s + ACTIVE_W * problem.busy_s + problem.units @ unit_j
    np.testing.assert_allclose(problem.energy_j, expected, rtol=1e-5)
    assert (problem.error_j < 0.01 * problem.energy_j).all()


def test_units_follow_the_plan_and_parts_of_kernels_count(loads: LoadProblem) -> None:
    problem = loads.problem
    for number, window in enumerate(loads.windows):
        if window.slot_s > 0:
            slots = problem.length_s[number] / window.slot_s
            for name, count in window.counts.items():
                assert problem.units[number, loads.kinds.index(name)] == pytest.approx(count * slots, rel=0.05)
    np.testing.assert_allclose(problem.time_s, problem.units * [LOADS[name].time_s for name in loads.kinds], rtol=1e-4)
    np.testing.assert_allclose(problem.time_s.sum(axis=1), problem.busy_s, rtol=1e-6)


def test_idle_power_comes_from_the_brackets_and_clocks_are_over_the_reference(loads: LoadProblem) -> None:
    np.testing.assert_allclose(loads.problem.idle_w, IDLE_W, rtol=1e-6)
    np.testing.assert_allclose(loads.problem.clock, CLOCK_MHZ / 1980.0)
    np.testing.assert_allclose(loads.temperature_c, 50.0)


def test_windows_that_the_power_limit_holds_down_are_capped(loads: LoadProblem) -> None:
    is_capped = np.array([window.group == "capped 1" for window in loads.windows])
    assert is_capped.any()
    np.testing.assert_array_equal(loads.problem.cap_w > 0, is_capped)
    assert (loads.throttled[is_capped] > 0.9).all()
    assert (loads.throttled[~is_capped] < 0.05).all()


def test_without_counters_work_is_what_the_manifest_says(loads: LoadProblem) -> None:
    dram = loads.problem.features.index(PowerFeature.DRAM_BYTES)
    np.testing.assert_allclose(loads.problem.work[:, dram], [LOADS[name].gigabytes * 1e9 for name in loads.kinds])
    assert set(loads.problem.modes) == {EnergyMode.SHAPES}


def test_rows_survive_json(loads: LoadProblem) -> None:
    again = LoadProblem.from_dict(json.loads(json.dumps(loads.to_dict())))
    assert again.kinds == loads.kinds
    assert again.windows == loads.windows
    assert again.quantized == loads.quantized
    np.testing.assert_allclose(again.problem.energy_j, loads.problem.energy_j)
    np.testing.assert_allclose(again.problem.units, loads.problem.units)
    np.testing.assert_allclose(again.problem.work, loads.problem.work)


def test_runs_merge_with_numbers_of_their_own(loads: LoadProblem) -> None:
    document = loads.to_dict()
    both = LoadProblem.from_dict(merged([document, document]))
    assert both.problem.num_windows == 2 * loads.problem.num_windows
    assert sorted(set(both.run)) == [0, 1]
    np.testing.assert_allclose(both.problem.work, loads.problem.work)


def test_a_selection_keeps_rows_and_columns_together(loads: LoadProblem) -> None:
    part = selected(loads.problem, np.array([0, 3]), np.array([1, 2]))
    assert part.units.shape == (2, 2)
    assert part.modes == loads.problem.modes[1:3]
    np.testing.assert_allclose(part.units, loads.problem.units[[0, 3], 1:3])


def test_a_kind_that_runs_another_kernel_in_a_graph_is_known_by_its_pilot(loads: LoadProblem) -> None:
    capture = load_capture(LOADS, PLAN)
    kinds = capture.manifest.workload["kinds"]
    workload = {"kinds": {**kinds, "kind0": {**kinds["kind0"], "class": "another <1x1x1, 128x1x1, 0>"}}}
    alone = next(n for n, w in enumerate(PLAN.windows) if w.group == "single kind0 1")
    pilot = replace(capture.ranges.slice(alone, alone + 1), name=np.array(["pilot:kind0"], object))
    ranges = RangeTable.concat([capture.ranges, pilot])
    changed = replace(capture, manifest=replace(capture.manifest, workload=workload), ranges=ranges)
    again = load_problem(changed, 0, None, reference_mhz=1980.0)
    np.testing.assert_allclose(again.problem.units, loads.problem.units)


def test_a_capture_without_load_windows_is_refused() -> None:
    bare = load_capture(LOADS, PLAN)
    empty = Capture(manifest(T0, T0 + 10**9, workload={"kinds": {}}), energy=bare.energy)
    with pytest.raises(CaptureError, match="no windows of load"):
        load_problem(empty, 0, None)
