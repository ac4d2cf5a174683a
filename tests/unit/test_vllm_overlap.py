"""Asynchronous scheduling: the host is steps ahead of the device, and kernels still find their step."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmeter_native.attribution.steps import kernel_steps, step_spans
from qmeter_native.model.tables import StepRequestTable, StepTable
from qmeter_native.storage.spool import SpoolContents
from tests import vllm_stubs as vllm
from tests.factories import GEMM, T0, CaptureBuilder

STREAM, COPY_STREAM = 7, 13
SPAN_NS = 1_000_000
NUM_STEPS = 4


def served(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[SpoolContents, list[int]]:
    """Steps whose calls all return before any output is consumed; a request joins in each. With the marker numbers."""
    ours = vllm.install(monkeypatch, folder)
    worker = ours.worker.QmeterWorker(vllm.vllm_config())
    worker.init_device()
    worker.compile_or_warm_up_model()
    for step in range(NUM_STEPS):
        running = vllm.cached(**{f"r{number}": (4 + step - number - 1, 1) for number in range(step)})
        worker.execute_model(vllm.batch(vllm.new(f"r{step}", 4, 4), running))
        worker.sample_tokens(None)
    worker.shutdown()
    return vllm.spool(folder), [number for _, number in ours.markers]


def test_kernels_find_their_step_though_the_host_has_left_all_steps_when_the_device_runs_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    contents, markers = served(monkeypatch, tmp_path)
    steps, rides = contents.tables["steps"], contents.tables["step_requests"]
    assert isinstance(steps, StepTable)
    assert isinstance(rides, StepRequestTable)
    builder = CaptureBuilder(length_ns=int(steps.end_ns[-1]) - T0 + 10 * SPAN_NS)
    for row in range(NUM_STEPS):
        times = {"start_ns": int(steps.start_ns[row]), "end_ns": int(steps.end_ns[row])}
        builder.add(StepTable, step=int(steps.step[row]), num_markers=2, **times)
    begin = int(steps.end_ns[-1]) - T0 + SPAN_NS  # the device begins the first step now
    for position, number in enumerate(markers):
        builder.marker(begin + (position // 2) * SPAN_NS + (position % 2) * (SPAN_NS - 10), number, stream=STREAM)
    expected = []
    for row in range(NUM_STEPS):
        for at in (10, 500, 900_000):
            builder.kernel(begin + row * SPAN_NS + at, begin + row * SPAN_NS + at + 100, GEMM, stream=STREAM)
            expected.append(row)
    capture = builder.build()
    spans = step_spans(capture)
    assert spans.is_on_device.all()
    rows = kernel_steps(capture, spans)
    assert rows[capture.kernels.class_id == 2 * NUM_STEPS].tolist() == expected
    assert [rides.request[rides.step == step].tolist() for step in range(3)] == [[0], [1, 0], [2, 0, 1]]


def test_kernels_find_their_step_though_its_host_interval_overlaps_the_next_ones() -> None:
    builder = CaptureBuilder(length_ns=1_000)
    for step in range(NUM_STEPS):
        builder.step(step, 30 * step, 30 * step + 75, num_markers=2)  # three are open on the host at a time
        builder.marker(200 * step + 100, 2 * step, stream=STREAM)
        builder.marker(200 * step + 280, 2 * step + 1, stream=STREAM)
        builder.kernel(200 * step + 110, 200 * step + 150, GEMM, stream=STREAM)
        builder.kernel(200 * step + 160, 200 * step + 270, GEMM, stream=STREAM)
    capture = builder.build()
    spans = step_spans(capture)
    assert spans.is_on_device.all()
    rows = kernel_steps(capture, spans)
    is_work = capture.kernels.end_ns - capture.kernels.start_ns >= 40  # markers are shorter
    assert rows[is_work].tolist() == [step for step in range(NUM_STEPS) for _ in range(2)]


def test_an_output_copy_belongs_to_the_step_in_whose_span_it_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    builder = CaptureBuilder(length_ns=1_000)
    for step, (start, end) in enumerate([(0, 20), (21, 40)]):
        builder.step(step, start, end, num_markers=2)
        builder.marker(100 * step + 50, 2 * step, stream=STREAM).marker(100 * step + 140, 2 * step + 1, stream=STREAM)
    builder.kernel(100, 120, GEMM, stream=COPY_STREAM)  # of step 0, beside its last kernels
    builder.kernel(148, 170, GEMM, stream=COPY_STREAM)  # of step 0 too, delayed between the two steps
    builder.kernel(155, 180, GEMM, stream=COPY_STREAM)  # delayed into step 1
    capture = builder.build()
    rows = kernel_steps(capture, step_spans(capture))
    assert rows[capture.kernels.stream == COPY_STREAM].tolist() == [0, -1, 1]
