"""Work of a launch by the model's arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qmeter_native.attribution.placed_work import PlacedWork
from qmeter_native.attribution.report import attribute
from qmeter_native.attribution.shape_work import shape_work
from qmeter_native.attribution.steps import kernel_steps, step_spans, traced_steps
from qmeter_native.attribution.traced_time import traced_time
from qmeter_native.capture.open import open_capture
from qmeter_native.model.capture import Capture
from qmeter_native.model.power_model import EnergyMode, PowerFeature
from tests.factories import CaptureBuilder

DATA = Path(__file__).parents[1] / "data"
FEATURES = (PowerFeature.DRAM_BYTES, PowerFeature.L2_BYTES, PowerFeature.FP16_FLOP, PowerFeature.INSTRUCTIONS)


def shapes_of(capture: Capture) -> tuple[np.ndarray, np.ndarray]:
    spans = step_spans(capture)
    step_of_kernel = kernel_steps(capture, spans)
    counted = traced_steps(capture, spans, {0: traced_time(capture, 0)})
    return shape_work(capture, PlacedWork.of(capture, step_of_kernel, counted), step_of_kernel, 0, FEATURES)


@pytest.fixture(scope="module")
def capture() -> Capture:
    return open_capture(DATA / "h200-vllm-gptq.qmt")


def test_products_read_their_weights_and_multiply_them(capture: Capture) -> None:
    work, is_known = shapes_of(capture)
    names = capture.kernel_classes.name
    head = np.flatnonzero(["nvjet" in name for name in names.tolist()] & is_known)
    launches = np.bincount(capture.kernels.class_id, minlength=len(names))
    most = head[np.argmax(launches[head])]
    weights = 128_256 * 4_096 * 2  # the LM head of Llama 3.1 8B, unquantized
    assert weights < work[most, 0] < 1.02 * weights
    assert work[most, 1] >= work[most, 0]
    assert work[most, 2] >= weights  # two operations a weight and sampled sequence, of 2 bytes each


def test_what_arithmetic_does_not_tell_is_left_0(capture: Capture) -> None:
    work, is_known = shapes_of(capture)
    assert not work[:, FEATURES.index(PowerFeature.INSTRUCTIONS)].any()
    assert not work[~is_known].any()
    assert work[is_known, 0].all()


def test_most_joules_of_a_placed_run_are_known_by_shapes(capture: Capture) -> None:
    report = attribute(capture, "gptq")
    assert report.balance.energy[0].mode is EnergyMode.SHAPES
    known = sum(row.dynamic_j.value or 0 for row in report.kernels if row.mode is EnergyMode.SHAPES)
    assert known / sum(row.dynamic_j.value or 0 for row in report.kernels) > 0.8
    assert report.work is not None
    assert len(report.work.layers) == 32
    of_roles = sum(row.energy_j.value or 0 for row in report.work.rows)
    assert of_roles == pytest.approx(report.totals.energy_dynamic_j.value, rel=0.05)
    of_layers = [row.energy_j.value or 0 for row in report.work.layers]
    assert max(of_layers) < 1.2 * min(of_layers)


def test_without_a_model_nothing_is_known() -> None:
    work, is_known = shapes_of(CaptureBuilder().kernel(0, 100).build())
    assert not work.any()
    assert not is_known.any()
