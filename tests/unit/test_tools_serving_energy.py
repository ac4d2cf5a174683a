"""Energy of served batches: explained by their own fit and foretold by another's, on a made-up capture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qmeter_native.model.capture import Capture
from qmeter_native.model.tables import RangeTable
from qmeter_native.storage.writer import write_capture
from tests.factories import synthetic_capture
from tools.batch_loads import batch_range
from tools.bench_serving_energy import analyse, main
from tools.serving_energy import foretold, part_of, residuals, served_batch


def capture_of_batches() -> Capture:
    """A server that decodes; two halves of its time stand for two batches."""
    capture = synthetic_capture(400_000)
    start_ns, end_ns = capture.manifest.measure_start_ns, capture.manifest.measure_end_ns
    cuts = np.linspace(start_ns, end_ns, 4).astype(np.int64)
    ranges = RangeTable.from_columns(
        start_ns=cuts[:-1],
        end_ns=cuts[1:],
        name=[batch_range(size) for size in (8, 32, 128)],
        thread=[1] * 3,
        depth=[0] * 3,
        process=[0] * 3,
    )
    return replace(capture, ranges=ranges)


@pytest.fixture(scope="module")
def capture() -> Capture:
    return capture_of_batches()


def test_a_batch_is_the_part_of_the_capture_in_its_range(capture: Capture) -> None:
    part = part_of(capture, "batch:32")
    assert part.manifest.measure_start_ns == capture.ranges.start_ns[1]
    assert part.manifest.measure_end_ns == capture.ranges.end_ns[1]
    with pytest.raises(SystemExit, match="0 ranges"):
        part_of(capture, "batch:5")


def test_the_fit_of_one_part_foretells_another_like_it(capture: Capture) -> None:
    fitted, other = served_batch(part_of(capture, "batch:32")), served_batch(part_of(capture, "batch:8"))
    assert len(set(fitted.keys)) == len(fitted.keys) == fitted.split.problem.num_classes
    found = foretold(fitted, other)
    assert found.known_share == pytest.approx(1.0)
    assert found.error < 0.05
    assert found.measured_j == pytest.approx(other.energy_j / other.num_tokens)
    assert residuals(other).shape == (int(other.is_fitted.sum()),)


def test_metrics_and_rows_come_from_captures_alone(capture: Capture) -> None:
    metrics, rows = analyse({"machete": capture, "marlin": capture})
    assert metrics["batch_transfer_error"].n == 2
    assert metrics["raw_residual_p95"].value < 0.1
    assert metrics["swap_change"].value == pytest.approx(0.0, abs=1e-9)  # the same capture twice
    assert "swap_error" not in metrics
    assert [row["batch"] for row in rows if "batch" in row and "backend" in row] == [8, 32, 128] * 2
    json.dumps(rows)


def test_saved_captures_are_analysed_again(capture: Capture, tmp_path: Path) -> None:
    write_capture(capture, tmp_path / "machete.qmt")
    result = tmp_path / "result.json"
    main(["--captures", str(tmp_path), "--out", str(result), "--analyse", "--backends", "machete"])
    assert "batch_transfer_error" in json.loads(result.read_text())["metrics"]
