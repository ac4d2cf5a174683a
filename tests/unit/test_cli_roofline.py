"""`qmeter-native roofline`: tables, JSON, pictures, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator

from qmeter_native.cli.main import cli
from qmeter_native.cli.rim import run
from qmeter_native.devices.default_profile import default_profile
from qmeter_native.devices.gpu_database import known_chips
from qmeter_native.devices.profile_store import save_profile
from qmeter_native.model.device_profile import Ceiling
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.kernel_benchmark import (
    BenchmarkRow,
    Device,
    KernelBenchmark,
    Protocol,
    Roof,
    benchmark_to_dict,
)
from qmeter_native.storage import write_capture
from tests.factories import synthetic_capture

SCHEMA: dict[str, Any] = json.loads((files("qmeter_native.reporters") / "roofline.schema.json").read_text())
RECORDED = str(Path(__file__).parents[1] / "data" / "h200-vllm-gptq.qmt")


@pytest.fixture(autouse=True)
def _no_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMETER_PROFILES", str(tmp_path / "profiles"))


def roofline(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(cli, ["roofline", *arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = roofline(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(found)] == []
    return found


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    rows = [
        BenchmarkRow("W4A16-INT g128", 1, 4096, 4096, "qmeter.weight_only", "float16", Estimate(4e-6, 3.9e-6, 4.2e-6)),
        BenchmarkRow("W8A8-FP", 4096, 4096, 4096, "torch._scaled_mm", "bfloat16", Estimate(120e-6)),
        BenchmarkRow("W4A16-INT g128", 1, 4096, 4096, "marlin", "float16", Estimate.missing("it is not installed")),
        BenchmarkRow("W9A9", 1, 4096, 4096, "other", "float16", Estimate(9e-6)),
    ]
    made = KernelBenchmark(
        date="2026-11-24",
        command="",
        device=Device("NVIDIA H200", "GPU-1", "9.0"),
        software={},
        roof=Roof("datasheet", 4.8e12, {}),
        protocol=Protocol(9, 0.02, 1.0, 1, 0),
        idle_w=Estimate.missing("not read"),
        rows=tuple(rows),
    )
    path = tmp_path / "kernels.json"
    path.write_text(json.dumps(benchmark_to_dict(made)))
    return path


def test_a_capture_is_put_under_its_roofs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = roofline(capsys, RECORDED, "--project", "H100 SXM", "--width", "120")

    assert (code, err) == (0, "")
    assert "NVIDIA H200  by its datasheet" in out
    assert "gate_up_proj" in out
    assert "On NVIDIA H100 SXM  a projection" in out
    assert out.endswith(f"Next: qmeter-native report {RECORDED}\n")


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_fit_the_width_they_are_given(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([RECORDED, "--project", "A100 SXM 80GB"], ["--gpu", "all"], ["--gpu", "B200"]):
        _, out, _ = roofline(capsys, *arguments, "--width", str(width))
        assert max(len(line) for line in out.splitlines() if not line.startswith("Next: ")) <= width


def test_the_json_document_has_the_documented_form(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, RECORDED, "--project", "H100 SXM", "--project", "B200", "--phase", "decode")

    assert found["name"] == "h200-vllm-gptq.qmt"
    assert sum(point["time_s"]["value"] for point in found["points"]) == pytest.approx(found["time_s"])
    assert [projection["gpu"] for projection in found["projections"]] == ["NVIDIA H100 SXM", "NVIDIA B200"]
    assert all(len(projection["points"]) == len(found["points"]) for projection in found["projections"])


def test_on_the_gpu_it_ran_on_the_time_stays(capsys: pytest.CaptureFixture[str]) -> None:
    (projection,) = document(capsys, RECORDED, "--project", "NVIDIA H200")["projections"]
    assert projection["speedup"]["value"] == projection["speedup"]["low"] == projection["speedup"]["high"] == 1.0


def test_a_calibrated_profile_gives_roofs_and_can_be_projected_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("NVIDIA H200", "NVIDIA B200"):
        plain = default_profile(name)
        ceilings = tuple(
            replace(one, measured=Estimate(0.9 * one.datasheet)) if one.datasheet else one for one in plain.ceilings
        )
        save_profile(replace(plain, ceilings=ceilings, date="2026-11-24"), tmp_path / f"{name[-4:]}.json")
    h200, b200 = str(tmp_path / "H200.json"), str(tmp_path / "B200.json")
    found = document(capsys, RECORDED, "--profile", h200, "--project", b200)

    assert found["ceilings"]["calibrated"] == "2026-11-24"
    assert found["ceilings"]["roofs"][0]["rate"]["value"] == pytest.approx(0.9 * 4.8e12)
    assert not any("was not calibrated" in sentence for sentence in found["projections"][0]["assumptions"])
    assert roofline(capsys, "--profile", h200)[0] == 0


def test_a_benchmarks_rows_are_points(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, str(benchmark), "--project", "A100 SXM 80GB")
    weight_only, scaled, unknown = found["points"]

    assert weight_only["bound"] in ("memory", "latency")
    assert weight_only["demand"]["dram_bytes"] == 4096 * 4096 // 2 + 4096 * 32 * 2 + 2 * 2 * 4096
    assert weight_only["fraction"]["low"] < weight_only["fraction"]["value"] < weight_only["fraction"]["high"]
    assert (scaled["bound"], scaled["roof"]) == ("compute", "fp8")
    assert unknown["bound"] == "unknown"
    assert "W9A9" in unknown["fraction"]["reason"]
    assert found["projections"][0]["points"][1]["fallback"] == "fp16"


def test_a_gpu_alone_shows_its_ceilings_and_ridges(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--gpu", "h200 nvl")
    ridges = {roof["name"]: roof["ridge"] for roof in found["ceilings"]["roofs"]}

    assert found["points"] == []
    assert ridges["fp16"] == pytest.approx(835.5 / 4.8)
    assert found["energy"]["balance"]["fp16"] > 0


def test_all_gpus_of_the_database_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = roofline(capsys, "--gpu", "all", "--json")
    assert code == 0
    assert len(json.loads(out)["gpus"]) == len(known_chips())
    _, out, _ = roofline(capsys, "--gpu", "all")
    assert all(chip.product in out for chip in known_chips())


def test_a_picture_shows_roofs_and_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "roofline.svg"
    assert roofline(capsys, RECORDED, "--picture", str(path))[0] == 0
    root = ElementTree.parse(path).getroot()
    text = " ".join(element.text or "" for element in root.iter())

    assert len(root.findall(".//{*}circle")) > 5
    assert "DRAM 4.800 TB/s" in text
    assert "bf16, fp16 989.4 TFLOP/s" in text
    assert "gate_up_proj" in text


def test_a_picture_of_a_gpu_alone_has_roofs_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b200.svg"
    assert roofline(capsys, "--gpu", "B200", "--picture", str(path))[0] == 0
    assert ElementTree.parse(path).getroot().findall(".//{*}circle") == []


def test_a_picture_is_drawn_where_only_bandwidth_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = default_profile("NVIDIA Z9000")
    ceiling = Ceiling("dram_read", "B/s", Estimate(1e12), None)
    save_profile(replace(plain, ceilings=(ceiling,)), tmp_path / "z9000.json")
    arguments = ["--profile", str(tmp_path / "z9000.json"), "--picture", str(tmp_path / "z9000.svg")]

    assert roofline(capsys, *arguments)[0] == 0
    assert "DRAM 1.000 TB/s" in (tmp_path / "z9000.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "nothing to put under a roof"),
        (["--phase", "decode"], 2, "nothing to project or to choose from"),
        (["--gpu", "H900"], 2, "the GPU database has no 'H900'"),
        (["--gpu", "A100"], 2, "may be any of: A100 SXM 40GB"),
        ([RECORDED, "--project", "Radeon"], 2, "the GPU database has no 'Radeon'"),
        ([RECORDED, "--role", "router"], 2, "there is no role 'router'"),
        ([RECORDED, "--layer", "99"], 2, "no kernel of the capture is left"),
        ([RECORDED, "--picture", "/nowhere/a.svg"], 1, "cannot be written"),
        (["missing.qmt"], 1, "missing.qmt"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = roofline(capsys, *arguments)
    assert found == code
    assert out == ""
    assert message in err


def test_a_benchmark_has_no_phases(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = roofline(capsys, str(benchmark), "--phase", "decode")
    assert code == 2
    assert "has no phases" in err


def test_a_json_file_that_is_no_benchmark_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    assert roofline(capsys, str(path))[0] == 1
    path.write_text("{")
    assert "is no JSON" in roofline(capsys, str(path))[2]


def test_an_unknown_gpu_needs_roofs_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.qmt"
    write_capture(synthetic_capture(400), path)
    code, _, err = roofline(capsys, str(path))
    assert code == 2
    assert "--gpu NAME" in err
    assert roofline(capsys, str(path), "--gpu", "H200")[0] == 0
