"""Kernels find their engine step by markers, or by the host's call where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from qmeter_native.attribution.steps import kernel_steps, step_spans
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import ProcessInfo
from tests.factories import MARKER, T0, CaptureBuilder


def steps_of(capture: Capture) -> dict[int, int | None]:
    """Number of the step of each kernel but markers, by the kernel's start."""
    rows = kernel_steps(capture, step_spans(capture))
    names = capture.kernel_classes.name[capture.kernels.class_id]
    return {
        int(start - T0): int(capture.steps.step[row]) if row >= 0 else None
        for start, row, name in zip(capture.kernels.start_ns, rows, names, strict=True)
        if name != MARKER
    }


def marked(builder: CaptureBuilder, step: int, begin: int, end: int, lost: str = "", **values: int) -> CaptureBuilder:
    """A step on the device from ``begin`` to ``end``, of which the host's call came 50 ns before."""
    builder.step(step, begin - 50, begin - 45, num_markers=2, **values)
    if lost != "begin":
        builder.marker(begin, 2 * step, **values)
    if lost != "end":
        builder.marker(end - 1, 2 * step + 1, **values)
    return builder


def test_kernels_between_the_markers_belong_to_the_step() -> None:
    builder = marked(marked(CaptureBuilder(), 0, 100, 200), 1, 250, 300)
    for start in (90, 150, 220, 260, 310):
        builder.kernel(start, start + 5)
    assert steps_of(builder.build()) == {90: None, 150: 0, 220: None, 260: 1, 310: None}


def test_the_device_may_run_behind_the_host() -> None:
    builder = CaptureBuilder()
    for step in range(3):
        builder.step(step, step * 10, step * 10 + 8, num_markers=2)
        builder.marker(100 + step * 50, 2 * step).kernel(110 + step * 50, 120 + step * 50).marker(
            140 + step * 50, 2 * step + 1
        )
    assert steps_of(builder.build()) == {110: 0, 160: 1, 210: 2}


def test_other_streams_of_the_process_go_by_their_start() -> None:
    builder = marked(CaptureBuilder(), 0, 100, 200)
    builder.kernel(120, 230, stream=13).kernel(210, 220, stream=13)
    assert steps_of(builder.build()) == {120: 0, 210: None}


@pytest.mark.parametrize("lost", ["begin", "end"])
def test_a_lost_marker_costs_only_its_own_step(lost: str) -> None:
    builder = marked(CaptureBuilder(), 0, 100, 200)
    marked(builder, 1, 300, 400, lost)
    marked(builder, 2, 500, 600)
    for start in (150, 350, 550):
        builder.kernel(start, start + 5)
    capture = builder.build()
    assert steps_of(capture) == {150: 0, 350: None, 550: 2}
    assert step_spans(capture).has_lost_marker.tolist() == [False, True, False]


def test_sequence_numbers_wrap_without_harm() -> None:
    builder = CaptureBuilder(1_000_000)
    for step in range(500, 1_600):
        marked(builder, step, step * 100, step * 100 + 60)
        builder.kernel(step * 100 + 10, step * 100 + 20)
    assert steps_of(builder.build()) == {step * 100 + 10: step for step in range(500, 1_600)}


def test_markers_a_little_before_the_host_call_are_still_their_step_s() -> None:
    builder = CaptureBuilder()
    for step in range(4):
        builder.step(step, 100 * step + 30, 100 * step + 90, num_markers=2)
        builder.marker(100 * step + 20, 2 * step).kernel(100 * step + 40, 100 * step + 50)
        builder.marker(100 * step + 60, 2 * step + 1)
    assert steps_of(builder.build()) == {40: 0, 140: 1, 240: 2, 340: 3}


def test_two_processes_on_one_device_keep_to_their_own_steps() -> None:
    processes = tuple(ProcessInfo(index, "host", "boot", 100 + index) for index in (0, 1))
    builder = CaptureBuilder(1_000, {"processes": processes})
    marked(builder, 5, 100, 200)
    marked(builder, 9, 110, 210, process=1)
    builder.kernel(150, 155, process=0).kernel(160, 165, process=1).kernel(205, 208, process=1)
    assert steps_of(builder.build()) == {150: 5, 160: 9, 205: 9}


def test_two_engine_streams_of_one_process_keep_to_their_own_steps() -> None:
    builder = marked(CaptureBuilder(), 0, 100, 300, stream=7)
    marked(builder, 1, 150, 250, stream=8)
    builder.kernel(160, 170, stream=7).kernel(180, 190, stream=8)
    assert steps_of(builder.build()) == {160: 0, 180: 1}


def test_without_markers_the_host_call_bounds_the_step() -> None:
    builder = CaptureBuilder().step(0, 100, 200).step(1, 300, 400)
    for start in (50, 100, 199, 200, 350):
        builder.kernel(start, start + 1, "aten::mm", kind=ActivityKind.OPERATOR)
    assert steps_of(builder.build()) == {50: None, 100: 0, 199: 0, 200: None, 350: 1}


def test_spans_are_the_markers_where_there_are_any() -> None:
    capture = marked(CaptureBuilder(), 0, 100, 200).step(1, 400, 450).build()
    spans = step_spans(capture)
    assert (spans.start_ns - T0).tolist() == [100, 400]
    assert (spans.end_ns - T0).tolist() == [200, 450]
    assert spans.is_on_device.tolist() == [True, False]


def test_a_capture_without_steps_has_none() -> None:
    capture = CaptureBuilder().kernel(0, 5).build()
    assert kernel_steps(capture, step_spans(capture)).tolist() == [-1]
    empty = CaptureBuilder().build()
    assert kernel_steps(empty, step_spans(empty)).dtype == np.int32
