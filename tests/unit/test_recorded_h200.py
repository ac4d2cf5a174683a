"""The reports of captures that were recorded on an H200, and the README's picture of one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import qmeter_native
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.json_report import report_document

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
NUM_REQUESTS = {"h200-llama-3.1-8b": 64, "h200-vllm-gptq": 32}
PICTURED = DATA / "h200-vllm-gptq.qmt"


@pytest.fixture(scope="module", params=list(NUM_REQUESTS))
def capture(request: pytest.FixtureRequest) -> Path:
    return DATA / f"{request.param}.qmt"


@pytest.fixture(scope="module")
def report(capture: Path) -> AttributionReport:
    return qmeter_native.report(capture)


def differences(path: str, value: Any, expected: Any) -> list[str]:
    """Where two JSON documents differ, floats beyond 1e-9 of their size (a residual: of a joule).

    Energy beyond 1e-6: the last digits of a fit are its linear algebra library's.
    """
    if isinstance(expected, dict) and isinstance(value, dict):
        found = [f"{path}: keys {sorted(value.keys() ^ expected.keys())}"] if value.keys() != expected.keys() else []
        shared = value.keys() & expected.keys()
        return found + [each for key in shared for each in differences(f"{path}.{key}", value[key], expected[key])]
    if isinstance(expected, list) and isinstance(value, list):
        found = [f"{path}: {len(value)} entries, not {len(expected)}"] if len(value) != len(expected) else []
        pairs = enumerate(zip(value, expected, strict=False))
        return found + [each for row, pair in pairs for each in differences(f"{path}[{row}]", *pair)]
    if isinstance(expected, float) and isinstance(value, (int, float)):
        rel = 1e-6 if "_j" in path or "energy" in path or "residual" in path else 1e-9
        return [] if value == pytest.approx(expected, rel=rel, abs=1e-9) else [f"{path}: {value}, not {expected}"]
    return [] if value == expected else [f"{path}: {value!r}, not {expected!r}"]


def test_the_report_is_what_it_was(capture: Path, report: AttributionReport) -> None:
    expected = json.loads(capture.with_suffix(".report.json").read_text(encoding="utf-8"))
    assert differences("report", json.loads(json.dumps(report_document(report))), expected) == []


def test_its_balances_close(capture: Path, report: AttributionReport) -> None:
    assert report.balance.failures() == ()
    assert report.balance.time[0].unassigned_share <= 0.01
    assert report.totals.num_finished == NUM_REQUESTS[capture.stem]


def test_every_kernel_has_a_family(report: AttributionReport) -> None:
    assert [kernel.name for kernel in report.kernels if kernel.op_family is OpFamily.OTHER] == []


def test_the_kernels_of_vllm_are_known_by_step_layer_and_family() -> None:
    report = qmeter_native.report(PICTURED)
    assert report.work is not None
    assert min(report.work.family_known, report.work.step_known, report.work.layer_known) >= 0.99
    layers = {row.role: row.num_layers for row in report.work.rows if row.flops}
    in_each = ("qkv_proj", "attention", "o_proj", "gate_up_proj", "down_proj")
    assert layers == {**dict.fromkeys(in_each, 32), "lm_head": 0}


def test_nothing_of_vllm_was_lost() -> None:
    assert qmeter_native.report(PICTURED).loss.total == 0


def test_gptq_was_asked_for_and_machete_ran() -> None:
    choice = qmeter_native.report(PICTURED).kernel_choice
    assert choice is not None
    assert choice.method == "gptq"
    assert choice.observed[0].implementation == "Machete"
    assert choice.is_fallback is False


def test_the_parts_of_each_explained_request_add_up() -> None:
    explained = qmeter_native.report(PICTURED).explanations
    assert len(explained) == 2
    for each in explained:
        assert each.residual_ns == 0
        assert sum(part.time_ns for part in each.parts) == each.end_to_end_ns


def test_the_readme_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from qmeter_native.cli.main import cli
    from qmeter_native.cli.rim import run

    assert run(cli, ["report", str(PICTURED), "--width", "100"]) == 0
    printed = {line.rstrip() for line in capsys.readouterr().out.splitlines()}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(r"<!-- report:begin -->\n```\n(.*?)```\n<!-- report:end -->", readme, re.DOTALL)
    assert match is not None
    shown = [line for line in match[1].splitlines() if line and line != "…"]
    assert len(shown) > 20
    assert [line for line in shown if line not in printed] == []
