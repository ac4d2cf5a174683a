"""Kernels of captures and rows of benchmarks as points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qmeter_native.attribution.attributed import AttributedCapture
from qmeter_native.attribution.report import attribute
from qmeter_native.capture.open import open_capture
from qmeter_native.errors import UsageError
from qmeter_native.model.capture import Capture
from qmeter_native.model.report import AttributionReport
from qmeter_native.roofline.capture_runs import capture_runs
from qmeter_native.roofline.kernel_filter import PHASES, KernelFilter
from qmeter_native.roofline.roofline import Roofline, capture_roofline
from qmeter_native.work.role import LINEAR_ROLES, Role
from tests.factories import CaptureBuilder
from tests.synthetic_run import synthetic_run

RECORDED = Path(__file__).parents[1] / "data" / "h200-vllm-gptq.qmt"


@pytest.fixture(scope="module")
def recorded() -> Capture:
    return open_capture(RECORDED)


@pytest.fixture(scope="module")
def report(recorded: Capture) -> AttributionReport:
    return attribute(recorded, "recorded")


@pytest.fixture(scope="module")
def by_kernel(recorded: Capture) -> Roofline:
    return capture_roofline(recorded, "recorded", KernelFilter())


@pytest.fixture(scope="module")
def by_role(recorded: Capture) -> Roofline:
    return capture_roofline(recorded, "recorded", KernelFilter(), by="role")


def time_s(roofline: Roofline) -> float:
    return sum(point.run.time_s.value or 0.0 for point in roofline.points)


def test_times_and_launches_add_up_to_the_reports(
    by_kernel: Roofline, by_role: Roofline, report: AttributionReport
) -> None:
    kernels = [row for row in report.kernels if row.op_family.value != "meter"]
    expected_s = sum(row.time_s for row in kernels)
    launches = sum(row.calls for row in kernels)

    for roofline in (by_kernel, by_role):
        assert time_s(roofline) == pytest.approx(expected_s, rel=1e-12)
        assert sum(point.run.launches for point in roofline.points) == launches
        assert sum(point.run.time_share for point in roofline.points) == pytest.approx(1.0)


def test_joules_add_up_to_the_reports_and_are_each_kernels(by_kernel: Roofline, report: AttributionReport) -> None:
    joules: dict[str, float] = {}
    for point in by_kernel.points:
        joules[point.run.name] = joules.get(point.run.name, 0.0) + (point.run.energy_j.value or 0.0)

    for row in report.kernels:
        if row.op_family.value != "meter":
            assert joules[row.name] == pytest.approx(row.dynamic_j.value, rel=1e-9)


def test_a_roles_operations_bytes_and_joules_are_the_work_models(by_role: Roofline, report: AttributionReport) -> None:
    assert report.work is not None
    rows = {row.role: row for row in report.work.rows}
    for point in by_role.points:
        if point.run.role is None:
            continue
        row = rows[point.run.name]
        assert point.run.time_s.value == pytest.approx(row.time_s)
        if point.run.demand is not None:
            assert point.run.demand.flops == pytest.approx(row.flops or 0)
            assert point.run.demand.dram_bytes == pytest.approx(row.least_bytes)
            assert point.run.demand.source == "work model"


def test_kernels_of_a_role_share_its_work(by_kernel: Roofline, by_role: Roofline) -> None:
    for role in LINEAR_ROLES:
        name = role.name.lower()
        parts = [point.run.demand for point in by_kernel.points if point.run.role == name]
        (whole,) = [point.run.demand for point in by_role.points if point.run.name == name]
        assert whole is not None
        assert sum(part.flops for part in parts if part is not None) == pytest.approx(whole.flops)
        assert sum(part.dram_bytes for part in parts if part is not None) == pytest.approx(whole.dram_bytes)


def test_the_lm_head_is_near_its_roof_and_norms_of_few_tokens_are_bound_by_latency(by_role: Roofline) -> None:
    points = {point.run.name: point for point in by_role.points}

    assert points["lm_head"].bound.value == "memory"
    assert 0.85 < (points["lm_head"].fraction.value or 0.0) < 1
    assert points["input_norm"].bound.value == "latency"
    assert all((point.fraction.value or 0.0) < 1 for point in by_role.points)


def test_helpers_of_a_role_say_why_they_have_no_roof(by_kernel: Roofline) -> None:
    (combine,) = [point for point in by_kernel.points if "Combine" in point.run.name]
    assert combine.bound.value == "unknown"
    assert combine.fraction.reason is not None
    assert combine.fraction.reason.startswith("it helps its role")


def test_phases_share_out_the_kernels_that_stand_in_steps(recorded: Capture, by_kernel: Roofline) -> None:
    parts = [capture_roofline(recorded, "", KernelFilter(phase=phase)) for phase in PHASES]
    in_steps = sum(point.run.time_s.value or 0.0 for point in by_kernel.points if point.run.role is not None)

    assert sum(map(time_s, parts)) == pytest.approx(in_steps, rel=1e-3)
    decode = parts[PHASES.index("decode")]
    gate_up = next(point for point in decode.points if point.run.role == "gate_up_proj")
    assert gate_up.bound.value == "memory"


def test_roles_and_layers_are_chosen(recorded: Capture, by_role: Roofline) -> None:
    attention = capture_roofline(recorded, "", KernelFilter(role=Role.ATTENTION))
    one_layer = capture_roofline(recorded, "", KernelFilter(role=Role.O_PROJ, layer=7), by="role")
    (o_proj,) = [point.run for point in by_role.points if point.run.name == "o_proj"]

    assert {point.run.role for point in attention.points} == {"attention"}
    assert o_proj.demand is not None
    assert one_layer.points[0].run.demand is not None
    assert 32 * one_layer.points[0].run.demand.flops == pytest.approx(o_proj.demand.flops)
    assert 32 * time_s(one_layer) == pytest.approx(o_proj.time_s.value, rel=0.1)


def test_a_choice_that_leaves_nothing_is_refused(recorded: Capture) -> None:
    with pytest.raises(UsageError, match="no kernel of the capture is left"):
        capture_roofline(recorded, "", KernelFilter(layer=99))


def test_an_empty_capture_has_no_points() -> None:
    with pytest.raises(UsageError, match="no kernels"):
        capture_roofline(CaptureBuilder().build(), "", KernelFilter())


def test_counters_say_what_each_kernel_moved_and_multiplied() -> None:
    made = synthetic_run(seed=3)
    attributed = AttributedCapture.of(made.capture)
    features = made.model.features
    dram = next(index for index, feature in enumerate(features) if feature.value == "dram_bytes")
    runs = {run.name: run for run in capture_runs(attributed, attributed.usages, KernelFilter())}

    counted = 0
    for name, work in zip(made.names, made.work, strict=True):
        one = runs.get(name)
        if one is None or one.demand is None:
            continue
        counted += 1
        assert one.demand.source == "counters"
        if work[dram] > 1e6:
            assert one.demand.dram_bytes / one.launches == pytest.approx(work[dram], rel=0.25)
    assert counted > len(made.names) // 2
    assert np.isfinite([run.time_share for run in runs.values()]).all()


def test_an_engine_that_says_nothing_of_its_model_leaves_points_without_roofs(recorded: Capture) -> None:
    silent = replace(recorded, manifest=replace(recorded.manifest, engine=None))
    roofline = capture_roofline(silent, "", KernelFilter())

    assert roofline.known_share == 0
    assert roofline.floor_s is None
    assert {point.run.role for point in roofline.points} <= {None, *(role.name.lower() for role in Role)}
