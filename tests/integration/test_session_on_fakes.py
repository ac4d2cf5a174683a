"""Whole captures of GPUs on the fakes of NVML and CUPTI: what a sound run gives, and what a fault leaves of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import qmeter_native
from qmeter_native.capture.session import Session, SessionOptions
from qmeter_native.errors import DeviceError
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import Validity
from qmeter_native.model.report import AttributionReport
from tests.fakes.fake_cupti import FakeCupti
from tests.fakes.fake_nvml import GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, FakeNvml, fake_uuid

INSUFFICIENT_PRIVILEGES = 35
FEW_TICKS_S = 0.35
"""The fake's counter steps every 0.1 s."""


class Bench:
    """Starts sessions on both fakes and reads back the one that was closed last."""

    def __init__(self, path: Path, nvml: FakeNvml, cupti: FakeCupti) -> None:
        self.path = path
        self.nvml = nvml
        self.cupti = cupti

    def start(self, *, cupti_path: str | None = None) -> Session:
        options = SessionOptions(device="cuda", nvml_path=self.nvml.path, cupti_path=cupti_path or self.cupti.path)
        return Session(self.path, options)

    def run(self, *, cupti_path: str | None = None, device: int = 0) -> Capture:
        """A capture in which the GPU works for about half of the time."""
        session = self.start(cupti_path=cupti_path)
        session.begin()
        self.work(device=device)
        session.end()
        return session.close()

    def work(self, *, device: int = 0, name: str = "gemm") -> None:
        """Let some ticks pass and fill half of that time with kernels of 0.5 ms."""
        start_ns = time.time_ns()
        time.sleep(FEW_TICKS_S)
        count = (time.time_ns() - start_ns) // 1_000_000
        self.cupti.emit(
            name=name, start=start_ns, end=start_ns + 500_000, count=count, step_ns=1_000_000, device=device, stream=7
        )

    def report(self) -> AttributionReport:
        return qmeter_native.report(self.path)


@pytest.fixture
def bench(tmp_path: Path, fake_nvml: FakeNvml, fake_cupti: FakeCupti, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Bench(tmp_path / "run.qmt", fake_nvml, fake_cupti)


def entry(capture: Capture, code: str) -> Validity:
    """The only validity entry with that code."""
    (found,) = [entry for entry in capture.manifest.validity if entry.code == code]
    return found


def test_kernels_and_energy_of_one_run_balance(bench: Bench) -> None:
    capture = bench.run()
    assert capture.manifest.validity == ()
    assert capture.manifest.loss.total == 0
    report = bench.report()
    assert report.balance.failures() == ()
    (kernel,) = report.kernels
    assert (kernel.name, kernel.calls) == ("gemm", len(capture.kernels))
    (energy,) = report.balance.energy
    assert energy.measured_j is not None
    wall_s = report.balance.time[0].wall_ns / 1e9
    assert energy.measured_j == pytest.approx(200 * wall_s, rel=0.05)  # the fake draws 200 W
    assert kernel.energy_j.value is not None
    assert 0 < kernel.energy_j.value <= energy.measured_j


def test_each_gpu_has_its_own_kernels_and_joules(bench: Bench) -> None:
    bench.nvml.reset(2)
    bench.nvml.set(1, power_mw=400_000)
    session = bench.start()
    session.begin()
    bench.work(device=1, name="on_the_second")
    session.end()
    capture = session.close()
    assert set(capture.kernels.device.tolist()) == {1}
    report = bench.report()
    assert report.balance.failures() == ()
    first, second = report.balance.energy
    assert first.measured_j is not None
    assert second.measured_j is not None
    assert first.kernels_j == 0
    assert second.measured_j == pytest.approx(2 * first.measured_j, rel=0.05)
    assert [device.busy_ns > 0 for device in report.balance.time] == [False, True]


@pytest.mark.parametrize("visible", ["1,0", "GPU-fa4e0001,GPU-fa4e0000", "1"])
def test_kernels_belong_to_the_gpu_that_cuda_was_shown(
    bench: Bench, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.nvml.reset(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    capture = bench.run(device=0)  # CUDA's first is NVML's second
    uuids = {device.index: device.uuid for device in capture.manifest.devices}
    assert {uuids[index] for index in capture.kernels.device.tolist()} == {fake_uuid(1)}
    assert bench.report().balance.failures() == ()


def test_a_kernel_of_a_gpu_that_is_not_listed_is_given_to_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.nvml.reset(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    capture = bench.run(device=1)  # CUDA never would; whatever it means, it is not GPU 0
    assert set(capture.kernels.device.tolist()) == {-1}
    report = bench.report()
    assert "unlisted_device" in [entry.code for entry in report.validity]
    assert report.balance.time[0].busy_ns == 0


def test_auto_takes_the_cpu_where_cuda_may_see_no_gpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with Session(bench.path, SessionOptions(device="auto", nvml_path=bench.nvml.path)) as session:
        assert not session.is_cuda


def test_an_idle_measurement_that_is_cut_short_is_not_kept(bench: Bench) -> None:
    with bench.start() as session:
        session.measure_idle(60.0, wait=lambda _: None)
        assert session.state.devices[0].idle_power_w is None
        session.measure_idle(0.6)
        assert session.state.devices[0].idle_power_w == pytest.approx(200, rel=0.05)


def test_a_gpu_that_is_lost_in_mid_run_leaves_the_other_and_the_kernels(bench: Bench) -> None:
    bench.nvml.reset(2)
    session = bench.start()
    session.begin()
    bench.work(device=1)
    lost_ns = time.time_ns()
    bench.nvml.set(0, lost_at_ns=lost_ns)
    bench.work(device=1)
    session.end()
    capture = session.close()
    assert entry(capture, "device_lost").subject == "device 0"
    energy = capture.energy
    assert energy.high_ns[energy.device == 0].min() < lost_ns
    assert energy.high_ns[energy.device == 1].max() > lost_ns
    assert capture.kernels.end_ns.max() > lost_ns
    report = bench.report()
    assert report.balance.failures() == ()
    assert report.balance.energy[1].measured_j is not None


def test_a_cupti_that_another_profiler_holds_costs_only_the_kernels(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_INJECTION64_PATH", "/opt/other/libother_profiler.so")
    bench.cupti.set("subscribers", 1)
    capture = bench.run()
    message = entry(capture, "kernels_absent").message
    assert "libother_profiler.so" in message
    assert "Stop the other profiler" in message
    assert_energy_without_kernels(bench, capture)


def test_a_cupti_that_is_missing_costs_only_the_kernels(bench: Bench, tmp_path: Path) -> None:
    missing = tmp_path / "libcupti.so.13"
    capture = bench.run(cupti_path=str(missing))
    message = entry(capture, "kernels_absent").message
    assert str(missing) in message
    assert "qmeter-native doctor" in message
    assert_energy_without_kernels(bench, capture)


def test_a_file_that_is_no_cupti_costs_only_the_kernels(bench: Bench, tmp_path: Path) -> None:
    foreign = tmp_path / "libcupti.so.13"
    foreign.write_bytes(b"not a library")
    capture = bench.run(cupti_path=str(foreign))
    assert str(foreign) in entry(capture, "kernels_absent").message
    assert_energy_without_kernels(bench, capture)


def test_a_driver_that_forbids_tracing_costs_only_the_kernels(bench: Bench) -> None:
    bench.cupti.set("enable_result", INSUFFICIENT_PRIVILEGES)
    capture = bench.run()
    message = entry(capture, "kernels_absent").message
    assert "does not permit" in message
    assert "qmeter-native doctor" in message
    assert bench.cupti.get("subscribers") == 0
    assert_energy_without_kernels(bench, capture)


def assert_energy_without_kernels(bench: Bench, capture: Capture) -> None:
    assert len(capture.kernels) == 0
    assert len(capture.energy) > 0
    report = bench.report()
    assert report.balance.failures() == ()
    assert report.balance.energy[0].measured_j is not None


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"is_mig": 1, "error": NOT_SUPPORTED}, "MIG is on"),
        ({"error": NO_PERMISSION}, "Insufficient Permissions"),
        ({"error": NOT_SUPPORTED}, "Not Supported"),  # as in many virtual machines
    ],
)
def test_counters_that_are_absent_leave_the_kernels_and_the_reason(
    bench: Bench, settings: dict[str, int], reason: str
) -> None:
    error = settings.pop("error")
    calls = ("total_energy", "power_samples", "power_fields", "power_usage")
    bench.nvml.reset(**settings, **{f"{call}_error": error for call in calls})
    capture = bench.run()
    (device,) = capture.manifest.devices
    assert device.energy_source is None
    assert device.energy_absent_reason is not None
    assert reason in device.energy_absent_reason
    report = bench.report()
    assert report.balance.failures() == ()
    (kernel,) = report.kernels
    assert kernel.calls == len(capture.kernels) > 0
    assert kernel.energy_j.value is None
    assert kernel.energy_j.reason is not None
    assert reason in kernel.energy_j.reason


def test_a_gpu_that_is_lost_before_the_start_is_listed_as_absent(bench: Bench) -> None:
    bench.nvml.reset(lost_at_ns=1)
    capture = bench.run()
    (device,) = capture.manifest.devices
    assert "GPU is lost" in (device.energy_absent_reason or "")
    assert bench.report().balance.failures() == ()


def test_records_that_cupti_dropped_are_counted_in_the_capture(bench: Bench) -> None:
    session = bench.start()
    bench.cupti.drop(5)
    bench.work()
    assert session.close().manifest.loss.dropped_records == 5


def test_cuda_without_a_gpu_is_refused_and_leaves_nothing(bench: Bench) -> None:
    bench.nvml.set_library("count_error", GPU_IS_LOST)
    with pytest.raises(DeviceError, match=r"finds no GPU: .*GPU is lost"):
        bench.start()
    assert not bench.path.exists()


def test_a_session_can_follow_one_that_failed_to_trace(bench: Bench, tmp_path: Path) -> None:
    bench.cupti.set("enable_result", INSUFFICIENT_PRIVILEGES)
    bench.run()
    bench.cupti.set("enable_result", 0)
    bench.path = tmp_path / "again.qmt"
    assert len(bench.run().kernels) > 0


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_body_that_raises_leaves_a_capture_that_balances(bench: Bench, error: type[BaseException]) -> None:
    def work_and_fail() -> None:
        with bench.start():
            bench.work()
            raise error

    with pytest.raises(error):
        work_and_fail()
    assert bench.report().balance.failures() == ()
    assert bench.cupti.get("subscribers") == 0
