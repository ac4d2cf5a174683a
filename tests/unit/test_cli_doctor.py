from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qmeter_native.capture import checkup
from qmeter_native.capture.checkup import Finding, State, gpu, host, software, verdicts_of
from qmeter_native.cli.main import cli
from qmeter_native.cli.rim import run
from qmeter_native.devices import default_profile, save_profile
from qmeter_native.errors import NativeError


def reading(**changes: Any) -> dict[str, Any]:
    return {"ok": True, "reason": None, "call_cost_ns": 2_400_000, **changes}


def nvml_device(**changes: Any) -> dict[str, Any]:
    device = {
        "index": 0,
        "name": "NVIDIA H200",
        "uuid": "GPU-of-the-test",
        "energy": "nvml_total_energy",
        "reason": None,
        "mig": False,
        "readings": {
            "total_energy": reading(),
            "power_samples": reading(call_cost_ns=51_200),
            "power_memory": reading(ok=False, reason="Not Supported", call_cost_ns=None),
        },
    }
    return {**device, **changes}


def native(devices: list[dict[str, Any]] | None = None, **cupti: Any) -> Any:
    nvml = {"path": "libnvidia-ml.so.1", "driver": "595.45", "version": "13", "devices": devices or [], "error": None}
    found = {"path": "/opt/libcupti.so.13", "version": 130001, "how": "wheel", "tried": [], **cupti}
    return SimpleNamespace(probe_nvml=lambda: nvml, find_cupti=lambda dirs: found)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_device_lists_its_readings_with_their_cost_and_what_is_missing() -> None:
    findings = {finding.name: finding for finding in gpu.nvml_findings(native([nvml_device()]))}
    assert findings["NVML"].state is State.OK
    assert "595.45" in findings["NVML"].detail
    assert findings["GPU 0"].detail == "NVIDIA H200, energy from nvml_total_energy"
    assert findings["GPU 0 readings"].detail == "total_energy 2.4 ms, power_samples 51.2 µs a call"
    assert findings["GPU 0 power_memory"] == Finding("NVIDIA", "GPU 0 power_memory", State.ABSENT, "Not Supported")


def test_a_gpu_is_calibrated_or_not_or_its_profile_cannot_be_used(tmp_path: Path) -> None:
    default = default_profile("NVIDIA H200", "GPU-1")
    calibrated = replace(default, date="2026-11-24", power_model=replace(default.power_model, source="calibrated"))
    save_profile(calibrated, tmp_path / "GPU-1.json")
    save_profile(default, tmp_path / "GPU-2.json")
    write(tmp_path / "GPU-3.json", "{")
    found = [gpu.profile_finding("GPU 0 profile", f"GPU-{number}", tmp_path) for number in range(4)]
    assert [finding.state for finding in found] == [State.ABSENT, State.OK, State.BROKEN, State.BROKEN]
    assert "qmeter-native calibrate" in str(found[0].advice)
    assert "2026-11-24" in found[1].detail
    assert "GPU-3.json" in found[3].detail


def test_a_partitioned_gpu_is_broken_for_energy() -> None:
    device = nvml_device(energy=None, reason="MIG is on", mig=True)
    states = {finding.name: finding.state for finding in gpu.nvml_findings(native([device]))}
    assert states["GPU 0"] is State.BROKEN
    assert states["GPU 0 MIG"] is State.BROKEN


def test_a_machine_without_a_driver_is_no_defect() -> None:
    absent = native()
    absent.probe_nvml = lambda: {"error": "libnvidia-ml.so.1: cannot open", "devices": []}
    (finding,) = gpu.nvml_findings(absent)
    assert finding.state is State.ABSENT
    assert "--gpus all" in str(finding.advice)


def test_cupti_says_where_it_is_or_where_it_was_looked_for() -> None:
    assert "/opt/libcupti.so.13" in gpu.cupti_finding(native(), []).detail
    lost = gpu.cupti_finding(native(path=None, tried=[("libcupti.so.13", "not loaded")]), [])
    assert lost.state is State.ABSENT
    assert "libcupti.so.13: not loaded" in lost.detail
    assert "QMETER_CUPTI_PATH" in str(lost.advice)


@pytest.mark.parametrize(
    ("params", "capabilities", "state"),
    [
        ("RmProfilingAdminOnly: 0\n", "0", State.OK),
        ("RmProfilingAdminOnly: 1\n", "0", State.BROKEN),
        ("RmProfilingAdminOnly: 1\n", "000001ffffffffff", State.OK),
        (None, "0", State.ABSENT),
    ],
)
def test_hardware_counters_need_permission(params: str | None, capabilities: str, state: State, tmp_path: Path) -> None:
    write(tmp_path / "proc/self/status", f"Name:\tpython\nCapEff:\t{capabilities}\n")
    if params:
        write(tmp_path / "proc/driver/nvidia/params", f"ResmanDebugLevel: 1\n{params}")
    finding = gpu.counter_finding(tmp_path)
    assert finding.state is state
    assert (finding.advice is not None) == (state is State.BROKEN)


def test_each_cpu_package_is_readable_or_says_which_file_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for domain, text in (("intel-rapl:0", "123\n"), ("intel-rapl:0:0", "1\n"), ("intel-rapl:1", "secret")):
        write(tmp_path / "sys/class/powercap" / domain / "energy_uj", text)
    read_text = Path.read_text

    def guarded(path: Path, *args: Any, **options: Any) -> str:
        if path.parent.name == "intel-rapl:1":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", guarded)
    first, second = host.rapl_findings(tmp_path)
    assert (first.name, first.state) == ("RAPL intel-rapl:0", State.OK)
    assert (second.name, second.state) == ("RAPL intel-rapl:1", State.BROKEN)
    assert f"chmod a+r {tmp_path}/sys/class/powercap/intel-rapl:1/energy_uj" in str(second.advice)


def test_surroundings_that_change_the_figures_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert host.container_finding(tmp_path).state is State.OK
    assert host.vm_finding(tmp_path).state is State.OK
    write(tmp_path / "run/.containerenv", "")
    write(tmp_path / "proc/cpuinfo", "flags\t\t: fpu hypervisor sse\n")
    assert host.container_finding(tmp_path).state is State.ABSENT
    assert host.vm_finding(tmp_path).state is State.ABSENT
    assert host.rapl_findings(tmp_path)[0].state is State.ABSENT


def test_other_profilers_and_mps_in_the_environment_are_named() -> None:
    (finding,) = host.profiler_findings({"CUDA_INJECTION64_PATH": "/opt/other.so"})
    assert finding.state is State.BROKEN
    assert "CUDA_INJECTION64_PATH=/opt/other.so" in finding.detail
    assert host.profiler_findings({})[0].state is State.OK
    assert host.mps_finding({}) is None
    assert host.mps_finding({"CUDA_MPS_PIPE_DIRECTORY": "/tmp/mps"}) is not None


def test_a_missing_extension_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NativeError("the compiled extension does not load: no such file")

    monkeypatch.setattr(software, "load_native", refuse)
    loaded, finding = software.extension()
    assert loaded is None
    assert finding.state is State.BROKEN
    assert "pip install ." in str(finding.advice)


def test_packages_that_are_missing_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = software.package_findings(False, ["a-package-that-nobody-has"])
    assert finding.state is State.ABSENT
    monkeypatch.setattr(software, "version", lambda name: "2.13.0+cpu")
    assert software.package_findings(True, ["torch"])[0].state is State.BROKEN
    assert software.package_findings(False, ["torch"])[0].state is State.OK


def test_verdicts_say_what_is_still_needed() -> None:
    everything = [
        *gpu.nvml_findings(native([nvml_device()])),
        gpu.cupti_finding(native(), []),
        Finding("Software", "extension", State.OK, "loaded"),
        Finding("Software", "torch", State.OK, "2.13.0"),
        Finding("Host", "RAPL intel-rapl:0", State.BROKEN, "root only"),
        Finding("NVIDIA", "hardware counters", State.BROKEN, "for administrators only"),
    ]
    verdicts = {verdict.name: verdict for verdict in verdicts_of(everything)}
    assert verdicts["time per kernel on GPUs"].state is State.OK
    assert verdicts["energy of GPUs"].state is State.OK
    assert verdicts["energy of CPUs"].detail == "needs a readable RAPL counter"
    assert verdicts["hardware counters of GPUs"].detail == "needs permission"
    assert verdicts["served requests"].detail == "needs transformers"


def test_doctor_says_it_in_words_and_in_json_and_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["doctor"]) == 0
    text = capsys.readouterr().out
    assert run(cli, ["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert text.index("This machine can measure") < text.index("Software") < text.index("Host")
    assert text.endswith("Next: qmeter-native trace --model builtin:stdlib-lm\n")
    assert document["schema_version"] == 1
    assert {entry["state"] for entry in document["findings"]} <= {state.value for state in State}
    assert all(entry["name"] in text for entry in document["findings"])


def test_doctor_works_without_the_extension(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = Finding("Software", "extension", State.BROKEN, "does not load")
    monkeypatch.setattr(checkup, "extension", lambda: (None, missing))
    assert run(cli, ["doctor"]) == 0
    assert "needs the extension" in capsys.readouterr().out
