"""The doctor's findings through the real extension, on a fake NVML."""

from __future__ import annotations

from types import SimpleNamespace

from qmeter_native import _native
from qmeter_native.capture.checkup import Finding, State, gpu
from tests.fakes.fake_nvml import NOT_SUPPORTED, FakeNvml


def findings(path: str) -> dict[str, Finding]:
    library = SimpleNamespace(probe_nvml=lambda: _native.probe_nvml(path))
    return {finding.name: finding for finding in gpu.nvml_findings(library)}


def test_each_gpu_lists_what_a_call_of_each_reading_costs(fake_nvml: FakeNvml) -> None:
    fake_nvml.reset(2)
    found = findings(fake_nvml.path)
    for name in ("GPU 0", "GPU 1"):
        assert found[name].state is State.OK
        assert "energy from nvml_total_energy" in found[name].detail
        assert found[f"{name} readings"].detail.endswith("s a call")


def test_a_partitioned_gpu_and_a_missing_reading_are_said(fake_nvml: FakeNvml) -> None:
    fake_nvml.reset(1, is_mig=1)
    assert findings(fake_nvml.path)["GPU 0 MIG"].state is State.BROKEN
    fake_nvml.reset(1, total_energy_error=NOT_SUPPORTED)
    found = findings(fake_nvml.path)
    assert found["GPU 0 total_energy"].state is State.ABSENT


def test_a_library_that_is_not_there_is_absent_with_advice() -> None:
    found = findings("/nowhere/libnvidia-ml.so.1")
    assert list(found) == ["NVML"]
    assert found["NVML"].state is State.ABSENT
    assert "/nowhere/libnvidia-ml.so.1" in found["NVML"].detail
