"""The report of the capture that was recorded on an H200, and the README's picture of it."""

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
CAPTURE = ROOT / "tests" / "data" / "h200-llama-3.1-8b.qmt"


@pytest.fixture(scope="module")
def report() -> AttributionReport:
    return qmeter_native.report(CAPTURE)


def differences(path: str, value: Any, expected: Any) -> list[str]:
    """Where two JSON documents differ, floats beyond 1e-9 of their size (a residual: of a joule)."""
    if isinstance(expected, dict) and isinstance(value, dict):
        found = [f"{path}: keys {sorted(value.keys() ^ expected.keys())}"] if value.keys() != expected.keys() else []
        shared = value.keys() & expected.keys()
        return found + [each for key in shared for each in differences(f"{path}.{key}", value[key], expected[key])]
    if isinstance(expected, list) and isinstance(value, list):
        found = [f"{path}: {len(value)} entries, not {len(expected)}"] if len(value) != len(expected) else []
        pairs = enumerate(zip(value, expected, strict=False))
        return found + [each for row, pair in pairs for each in differences(f"{path}[{row}]", *pair)]
    if isinstance(expected, float) and isinstance(value, (int, float)):
        return [] if value == pytest.approx(expected, rel=1e-9, abs=1e-9) else [f"{path}: {value}, not {expected}"]
    return [] if value == expected else [f"{path}: {value!r}, not {expected!r}"]


def test_the_report_is_what_it_was(report: AttributionReport) -> None:
    expected = json.loads(CAPTURE.with_suffix(".report.json").read_text(encoding="utf-8"))
    assert differences("report", json.loads(json.dumps(report_document(report))), expected) == []


def test_its_balances_close(report: AttributionReport) -> None:
    assert report.balance.failures() == ()
    assert report.balance.time[0].unassigned_share <= 0.01
    assert report.totals.num_finished == 64


def test_every_kernel_has_a_family(report: AttributionReport) -> None:
    assert [kernel.name for kernel in report.kernels if kernel.op_family is OpFamily.OTHER] == []


def test_the_readme_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from qmeter_native.cli.main import cli
    from qmeter_native.cli.rim import run

    assert run(cli, ["report", str(CAPTURE), "--width", "100"]) == 0
    printed = {line.rstrip() for line in capsys.readouterr().out.splitlines()}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(r"<!-- report:begin -->\n```\n(.*?)```\n<!-- report:end -->", readme, re.DOTALL)
    assert match is not None
    shown = [line for line in match[1].splitlines() if line and line != "…"]
    assert len(shown) > 20
    assert [line for line in shown if line not in printed] == []
