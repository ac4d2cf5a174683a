"""Runs of the truth test are planned within their budget, put together, written, drawn and printed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from threading import Event
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from qmeter_native.calibration.load_plan import PilotLoad
from qmeter_native.calibration.load_window import WindowRole
from qmeter_native.calibration.load_windows import load_problem
from qmeter_native.calibration.result_document import Metric, write_result
from qmeter_native.calibration.synthetic import KINDS
from qmeter_native.calibration.truth import truth_row
from qmeter_native.calibration.truth_targets import TARGETS, verdicts
from qmeter_native.calibration.verify import KINDS as TRUTH_KINDS
from qmeter_native.calibration.verify import VerifyOptions, VerifyResult, run_verify, truth_plan
from qmeter_native.devices import default_profile
from qmeter_native.errors import CaptureError, UsageError
from qmeter_native.reporters.console.truth import print_truth
from qmeter_native.storage.writer import write_capture
from tests.factories import CaptureBuilder
from tests.loads import load_capture, made_up_loads, made_up_plan

PILOTS = {f"kind{number}": PilotLoad(1e-4 * (1 + number % 4), 500.0 + 20 * number) for number in range(10)}


@cache
def row(part: int) -> dict[str, Any]:
    loads = made_up_loads()
    plan = made_up_plan(loads, num_mixtures=8, num_capped=0, num_interventions=2, part=(part, 2))
    problem = load_problem(load_capture(loads, plan), 0, None, reference_mhz=1980.0)
    return truth_row(problem, default_profile("NVIDIA H200", "GPU-0"))


def result_file(path: Path, part: int, device: str = "NVIDIA H200") -> Path:
    write_result(path, "truth", {}, device=device, command="x", rows=[row(part)], notes=["The load x was left out."])
    return path


def shown(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> VerifyResult:
    folder = tmp_path_factory.mktemp("truth")
    files = (result_file(folder / "1.json", 1), result_file(folder / "2.json", 2))
    return run_verify(None, VerifyOptions(rows=files, output=folder / "all.json"), Event(), shown)


@pytest.mark.parametrize("budget_s", [300.0, 500.0, 800.0])
def test_a_plan_fits_its_budget(budget_s: float) -> None:
    plan = truth_plan(PILOTS, 125.0, (1, 1), budget_s)
    assert plan.length_s < budget_s + 15
    assert any(window.role is WindowRole.MIXTURE for window in plan.windows)


def test_a_plan_with_time_to_spare_is_the_whole_protocol() -> None:
    plan = truth_plan(PILOTS, 125.0, (1, 1), 5000.0)
    roles = [window.role for window in plan.windows]
    assert roles.count(WindowRole.MIXTURE) == 36 + 12
    assert roles.count(WindowRole.INTERVENTION) == 4 * 12
    assert all(window.length_s >= 5 for window in plan.windows)


@pytest.mark.parametrize("part", [1, 2])
def test_one_run_of_two_on_an_h200_fits_560_seconds(part: int) -> None:
    pilots = {name: PilotLoad(1e-4 * (1 + number % 4), 450.0 + 20 * number) for number, name in enumerate(TRUTH_KINDS)}
    plan = truth_plan(pilots, 130.0, (part, 2), 560.0 - 75.0)  # checks, the counter pass and pilots take 75 s
    roles = [window.role for window in plan.windows]
    paced = sum(window.slot_s > 0 for window in plan.windows if window.role is WindowRole.MIXTURE)
    assert plan.length_s <= 560.0 - 75.0
    assert paced >= 17
    assert roles.count(WindowRole.MIXTURE) - paced >= 6
    assert roles.count(WindowRole.INTERVENTION) >= 4 * 5
    assert roles.count(WindowRole.SINGLE) == 2 * 14


def test_parts_never_share_a_window_even_with_different_budgets() -> None:
    def groups(part: int, left_s: float) -> set[str]:
        plan = truth_plan(PILOTS, 125.0, (part, 2), left_s)
        return {window.group for window in plan.windows if window.role in (WindowRole.MIXTURE, WindowRole.INTERVENTION)}

    first, second = groups(1, 320.0), groups(2, 900.0)
    assert first
    assert not first & second
    assert groups(1, 900.0) > first


def test_runs_are_put_together_from_their_files(result: VerifyResult) -> None:
    assert result.device == "NVIDIA H200"
    assert result.metrics["num_runs"].value == 2
    assert result.metrics["num_uncapped_mixtures"].value == 8
    assert result.notes == ("The load x was left out.",)
    assert result.metrics["coverage_synthetic"].n == 40 * len(KINDS)


def test_the_file_of_a_merged_test_has_the_figures_and_can_be_read_again(result: VerifyResult) -> None:
    document = json.loads(result.written[0].read_text())
    assert document["metrics"]["window_error_median_uncapped"]["value"] == pytest.approx(
        result.metrics["window_error_median_uncapped"].value
    )
    again = run_verify(None, VerifyOptions(rows=result.written[:1]), Event(), shown)
    assert again.metrics["unseen_error_p95"].value == pytest.approx(result.metrics["unseen_error_p95"].value)
    assert again.written == ()


def test_the_picture_is_svg_with_a_point_for_each_window_intervention_and_kind(result: VerifyResult) -> None:
    root = ElementTree.fromstring(result.written[1].read_text())
    circles = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 8 + 2 + 6
    assert [path.name for path in result.written] == ["all.json", "all.svg"]


def test_the_table_shows_every_target_with_its_verdict(result: VerifyResult) -> None:
    text = StringIO()
    print_truth(result, Console(file=text, width=120))
    lines = text.getvalue()
    assert "mixtures below the cap, median error" in lines
    assert "num" not in lines
    assert lines.count(" met") >= 5
    assert "missed" in lines  # eight mixtures are not thirty


def test_files_of_two_gpus_are_not_put_together(tmp_path: Path) -> None:
    files = (result_file(tmp_path / "1.json", 1), result_file(tmp_path / "2.json", 2, "NVIDIA H100"))
    with pytest.raises(CaptureError, match="NVIDIA H100"):
        run_verify(None, VerifyOptions(rows=files), Event(), shown)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"device": "x"}'])
def test_a_file_that_is_none_of_the_truth_test_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(CaptureError, match=r"x\.json"):
        run_verify(None, VerifyOptions(rows=(path,)), Event(), shown)


def test_a_run_is_also_read_from_the_folder_of_its_captures(tmp_path: Path) -> None:
    loads = made_up_loads()
    plan = made_up_plan(loads, num_mixtures=8, num_capped=0, num_interventions=2, part=(2, 2))
    capture = load_capture(loads, plan)
    device = replace(capture.manifest.devices[0], name="NVIDIA H200", uuid="GPU-0")
    capture = replace(capture, manifest=replace(capture.manifest, devices=(device,)))
    write_capture(capture, tmp_path / "run" / "loads.qmt")
    files = (result_file(tmp_path / "1.json", 1), tmp_path / "run")
    found = run_verify(None, VerifyOptions(rows=files), Event(), shown)
    assert found.metrics["num_uncapped_mixtures"].value == 8
    assert "Work of kinds is known by shapes (6)." in found.notes
    alone = run_verify(None, VerifyOptions(rows=(tmp_path / "run" / "loads.qmt",)), Event(), shown)
    assert alone.metrics["num_uncapped_mixtures"].value == 4


def test_a_capture_of_something_else_is_named(tmp_path: Path) -> None:
    write_capture(CaptureBuilder(1000).build(), tmp_path / "x.qmt")
    with pytest.raises(CaptureError, match=r"x\.qmt is no capture of the truth test"):
        run_verify(None, VerifyOptions(rows=(tmp_path / "x.qmt",)), Event(), shown)


def test_a_missing_figure_misses_its_target_and_a_met_one_meets_it() -> None:
    found = {
        verdict.target.metric: verdict for verdict in verdicts({"window_error_median_uncapped": Metric(0.01, "1")})
    }
    assert found["window_error_median_uncapped"].is_met
    assert not found["unseen_error_median"].is_met
    assert len(found) == len(TARGETS)


def test_a_baseline_must_do_worse_than_the_estimator() -> None:
    metrics = {
        "window_error_median_uncapped": Metric(0.03, "1"),
        "additive_error_median_uncapped": Metric(0.02, "1"),
        "mean_power_error_median_uncapped": Metric(0.2, "1"),
    }
    found = {verdict.target.metric: verdict.is_met for verdict in verdicts(metrics)}
    assert not found["additive_error_median_uncapped"]
    assert found["mean_power_error_median_uncapped"]
    assert not found["window_error_median_uncapped"]


def test_senseless_options_are_refused() -> None:
    with pytest.raises(UsageError, match="part"):
        VerifyOptions(part=(4, 3))
    with pytest.raises(UsageError, match="seconds"):
        VerifyOptions(budget_s=0)
    with pytest.raises(UsageError, match="no load 'fp5'"):
        VerifyOptions(kinds=("copy", "fp5"))
    with pytest.raises(UsageError, match="needs a GPU"):
        run_verify(None, VerifyOptions(), Event(), shown)
