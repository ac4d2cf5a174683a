from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from qmeter_native.attribution import report as attribution
from qmeter_native.cli.main import cli
from qmeter_native.cli.rim import run
from qmeter_native.devices.default_profile import default_profile
from qmeter_native.devices.profile_store import save_profile
from qmeter_native.storage import write_capture
from tests import reports
from tests.factories import CaptureBuilder, device, synthetic_capture

SCHEMA: dict[str, Any] = json.loads((files("qmeter_native.reporters") / "report.schema.json").read_text())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captures") / "run.qmt"
    write_capture(synthetic_capture(2_000), path)
    return path


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A capture to damage."""
    path = tmp_path / "run.qmt"
    write_capture(synthetic_capture(400), path)
    return path


def report(capsys: pytest.CaptureFixture[str], path: Path, *options: str) -> tuple[int, str, str]:
    code = run(cli, ["report", str(path), *options])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_a_capture_is_reported_with_its_balances_closed(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = report(capsys, recorded, "--check")
    assert (code, err) == (0, "")
    assert out.count("  ✓ ") == 4
    assert "Kernels by time" in out
    assert "Kernels by energy" in out
    assert out.endswith(f"Next: qmeter-native export {recorded} --to perfetto\n")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_report_fits_the_width_it_is_given(width: int, recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = report(capsys, recorded, "--width", str(width))
    assert max(len(line) for line in out.splitlines() if not line.startswith("Next: ")) <= width


def test_output_into_a_pipe_has_no_escapes(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = report(capsys, recorded)
    assert "\x1b" not in out


def test_json_is_the_documented_document(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = report(capsys, recorded, "--json", "--check")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(document)] == []
    assert document["balance"]["time"]["residual_ns"] == 0
    assert document["name"] == "run.qmt"


def test_an_empty_capture_is_reported_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.qmt"
    write_capture(CaptureBuilder().build(), path)
    code, out, _ = report(capsys, path, "--json")
    assert code == 0
    assert list(Draft202012Validator(SCHEMA).iter_errors(json.loads(out))) == []
    assert report(capsys, path)[0] == 0


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_check_exits_with_3_after_printing_when_a_balance_is_open(
    options: tuple[str, ...], recorded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "attribute", lambda *args: reports.report_of_devices(2))
    code, out, err = report(capsys, recorded, "--check", *options)
    assert code == 3
    assert "time of device 1 does not close: -7 ns" in err
    if options:
        assert json.loads(out)["balance"]["is_closed"] is False
    else:
        assert "left over -7 ns" in out
    assert report(capsys, recorded, *options)[0] == 0


def test_a_missing_capture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = report(capsys, tmp_path / "none.qmt")
    assert (code, out) == (1, "")
    assert str(tmp_path / "none.qmt") in err
    assert len(err.splitlines()) == 2


def test_a_folder_or_file_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file.qmt").write_text("no capture")
    (tmp_path / "folder.qmt").mkdir()
    for name in ("file.qmt", "folder.qmt"):
        code, _, err = report(capsys, tmp_path / name)
        assert code == 1
        assert name in err
        assert "Traceback" not in err


def test_a_truncated_table_is_named(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = next(capture.glob("kernels-*.parquet"))
    table.write_bytes(table.read_bytes()[:-100])
    code, _, err = report(capsys, capture)
    assert code == 1
    assert table.name in err


def test_a_newer_capture_asks_for_an_update(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = capture / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema_version": 999}))
    code, _, err = report(capsys, capture)
    assert code == 1
    assert "999" in err
    assert "Update" in err


def test_top_and_requests_limit_what_is_shown(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = report(capsys, recorded, "--top", "2", "--sort", "time", "--requests", "0")
    assert "2 of " in out
    assert "Kernels by energy" not in out
    assert "Requests:" not in out


def test_one_request_is_explained_by_its_name(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = report(capsys, recorded, "--json")
    document = json.loads(out)
    name = next(row["name"] for row in document["requests"] if row["elapsed"])
    assert len(document["explanations"]) in (1, 2)
    code, out, _ = report(capsys, recorded, "--request", name, "--json")
    (explanation,) = json.loads(out)["explanations"]
    assert (code, explanation["name"], explanation["reason"]) == (0, name, "asked for")
    assert sum(part["time_ns"] for part in explanation["parts"]) == explanation["end_to_end_ns"]
    code, out, _ = report(capsys, recorded, "--request", name)
    assert f"Explained: {name}" in out


def test_an_unknown_request_names_near_ones(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = report(capsys, recorded, "--request", "request-x")
    assert (code, out) == (2, "")
    assert "no request goes by 'request-x'" in err
    assert "Near ones: request-" in err


def test_a_request_that_was_cut_off_says_why_it_is_not_explained(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = report(capsys, recorded, "--json")
    name = next(row["name"] for row in json.loads(out)["requests"] if row["elapsed"] is None)
    code, _, err = report(capsys, recorded, "--request", name)
    assert code == 1
    assert f"request {name} cannot be explained: it did not finish" in err


def test_a_request_of_the_warm_up_that_was_cut_off_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = CaptureBuilder(1_000).kernel(0, 500).request(5, -500, 0, 0, is_finished=False)
    write_capture(builder.build(), tmp_path / "run.qmt")
    code, _, err = report(capsys, tmp_path / "run.qmt", "--request", "r5")
    assert code == 1
    assert "request r5 cannot be explained: it had no part in the measured window" in err


@pytest.mark.parametrize("policy", ["separate", "by-time", "by-energy"])
def test_static_joules_go_where_they_are_told(policy: str, recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = report(capsys, recorded, "--static-policy", policy, "--json", "--check")
    document = json.loads(out)
    assert (code, document["static_policy"]) == (0, policy)
    assert (document["balance"]["energy"]["static_j"] > 0) == (policy == "separate")


def test_a_profile_is_named_in_the_report(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = default_profile("NVIDIA Test")
    model = replace(known.power_model, source="calibrated")
    save_profile(replace(known, date="2026-11-24T12:00:00Z", power_model=model), tmp_path / "profile.json")
    code, out, _ = report(capsys, recorded, "--profile", str(tmp_path / "profile.json"), "--json")
    assert code == 0
    assert json.loads(out)["balance"]["energy"]["per_device"][0]["profile"] == "calibrated 2026-11-24"


def test_a_profile_of_another_device_is_refused(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_profile(default_profile("NVIDIA H200"), tmp_path / "profile.json")
    code, _, err = report(capsys, recorded, "--profile", str(tmp_path / "profile.json"))
    assert code == 1
    assert "the profile is of NVIDIA H200, but the capture is of NVIDIA Test" in err


def test_a_declared_power_is_labelled_wherever_joules_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unmeasured = {"energy_source": None, "energy_absent_reason": "no sensor", "idle_power_w": None}
    builder = CaptureBuilder(1_000_000, {"devices": (device(**unmeasured),)}).kernel(0, 500_000)
    write_capture(builder.build(), tmp_path / "run.qmt")
    code, out, _ = report(capsys, tmp_path / "run.qmt", "--tdp", "95")
    assert code == 0
    assert "estimated: declared power of 95 W" in out
    assert "nothing was measured: no sensor" in out
