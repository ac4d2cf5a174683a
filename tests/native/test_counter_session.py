"""Sessions with counter phases, on the fake NVML and a stand-in for PM sampling that writes what the real one does."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import qmeter_native
from qmeter_native import _native
from qmeter_native.capture.counter_sampler import CounterOptions
from qmeter_native.capture.open import open_capture
from qmeter_native.capture.session import Session, SessionOptions
from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind
from tests.fakes.build import build_fake
from tests.fakes.fake_nvml import FakeNvml
from tests.native.energy_recording import wait_until

pytestmark = pytest.mark.filterwarnings("error")
AT_ONCE = CounterOptions(seconds=0.2, after_s=0.0)


class PmSampler:
    """A sampler of 132 SMs that takes one sample of each quantity a start, a millisecond long."""

    running: ClassVar[set[str]] = set()
    num_closed: ClassVar[int] = 0

    def __init__(self, spool: Any, *, device: int, uuid: str, metrics: list[Any], interval_ns: int, **_: Any) -> None:
        self._spool, self._device, self._uuid, self._interval_ns = spool, device, uuid, interval_ns
        self._quantities = [quantity for quantity, _, _ in metrics]
        self._enable_ns = time.time_ns()
        self._start_ns = self._stop_ns = self._num_samples = 0
        self.running.add(uuid)

    def info(self) -> dict[str, Any]:
        return {"chip": "GH100", "trigger": "gpu_time", "interval_ns": self._interval_ns, "num_sms": 132, "setup_ns": 1}

    def stats(self) -> dict[str, Any]:
        return {"samples": self._num_samples, "lost_samples": 0, "decode_ns": 5, "evaluate_ns": 6, "error": None}

    def start(self) -> None:
        self._start_ns = time.time_ns()

    def stop(self) -> None:
        self._stop_ns = time.time_ns()
        self._num_samples += 1
        rows = [
            (self._device, quantity, self._stop_ns - 1_000_000, self._stop_ns, 1.0) for quantity in self._quantities
        ]
        self._spool.append(RecordKind.COUNTER, np.array(rows, RECORD_DTYPES[RecordKind.COUNTER]))

    def close(self) -> None:
        if self._uuid in self.running:
            times = (self._enable_ns, self._start_ns, self._stop_ns, time.time_ns())
            row = (self._device, *times, self._interval_ns, self._num_samples, 0)
            self._spool.append(RecordKind.COUNTER_WINDOW, np.array([row], RECORD_DTYPES[RecordKind.COUNTER_WINDOW]))
            self.running.remove(self._uuid)
            PmSampler.num_closed += 1


@pytest.fixture(autouse=True)
def sampler(monkeypatch: pytest.MonkeyPatch) -> type[PmSampler]:
    monkeypatch.setattr(_native, "PmSampler", PmSampler, raising=False)
    return PmSampler


def session_on(path: Path, nvml: FakeNvml, counters: CounterOptions | None) -> Session:
    return Session(path, SessionOptions(device="cuda", kernels=False, nvml_path=nvml.path, counters=counters))


def codes(capture: Capture) -> list[str]:
    return [entry.code for entry in capture.manifest.validity]


def test_each_gpu_has_a_phase_in_the_measured_window(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.reset(2, is_h200=1)
    with session_on(tmp_path / "run.qmt", fake_nvml, AT_ONCE) as session:
        closed = PmSampler.num_closed
        session.begin()
        wait_until(lambda: PmSampler.num_closed == closed + 2)
        session.end()
        assert not PmSampler.running
        capture = session.close()
    windows, counters, manifest = capture.counter_windows, capture.counters, capture.manifest
    assert sorted(windows.device) == [0, 1]
    assert (windows.enable_ns >= manifest.measure_start_ns).all()
    assert (windows.disable_ns <= manifest.measure_end_ns).all()
    assert (windows.stop_ns - windows.start_ns >= 190_000_000).all()
    assert set(counters.quantity) >= {CounterQuantity.DRAM_READ_BYTES, CounterQuantity.TENSOR_CYCLES}
    assert manifest.counters.keys() == {"0", "1"}
    assert (manifest.counters["1"]["chip"], manifest.counters["1"]["samples"]) == ("GH100", 1)
    assert manifest.overhead["counter_decode_ns"] == 22
    assert codes(capture) == []


def test_an_interrupted_body_ends_its_phase(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.reset(is_h200=1)
    session = session_on(tmp_path / "run.qmt", fake_nvml, CounterOptions(seconds=60, after_s=0))

    def interrupted_body() -> None:
        with session:
            session.begin()
            wait_until(lambda: bool(PmSampler.running))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_body()
    capture = open_capture(tmp_path / "run.qmt")
    assert len(capture.counter_windows) == 1
    assert codes(capture) == ["counters_cut"]
    assert not PmSampler.running


def test_a_discarded_session_gives_the_gpu_back(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.reset(is_h200=1)
    session = session_on(tmp_path / "run.qmt", fake_nvml, CounterOptions(is_continuous=True))
    session.begin()
    session.discard()
    assert not PmSampler.running


def test_a_gpu_whose_chip_is_not_known_is_told(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    with session_on(tmp_path / "run.qmt", fake_nvml, AT_ONCE) as session:
        session.begin()
        session.end()
        capture = session.close()
    assert codes(capture) == ["counters_absent"]
    assert "absent_reason" in capture.manifest.counters["0"]


def test_a_caller_may_start_and_stop_the_counters_himself(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.reset(is_h200=1)
    with session_on(tmp_path / "run.qmt", fake_nvml, None) as session:
        with session.counting(0, CounterOptions(interval_s=1e-5)) as counters:
            for _ in range(3):
                counters.start()
                counters.stop()
        capture = session.close()
    assert (capture.manifest.counters["0"]["samples"], len(capture.counter_windows)) == (3, 1)
    assert capture.counter_windows.interval_ns.tolist() == [10_000]


def test_a_cpu_has_no_counters(tmp_path: Path) -> None:
    with qmeter_native.trace(tmp_path / "run.qmt", device="cpu", counters=1.0):
        pass
    assert "counters_absent" in codes(open_capture(tmp_path / "run.qmt"))


def test_a_run_that_is_killed_in_its_phase_gets_a_window_to_its_end(tmp_path: Path) -> None:
    script = f"""
        import os, time
        from qmeter_native import _native
        from qmeter_native.capture.counter_sampler import CounterOptions
        from qmeter_native.capture.session import Session, SessionOptions
        from tests.native.test_counter_session import PmSampler

        _native.PmSampler = PmSampler
        nvml = {str(build_fake("fake_nvml.cpp", "libnvidia-ml.so.1"))!r}
        session = Session({str(tmp_path / "run.qmt")!r}, SessionOptions(device="cuda", kernels=False, nvml_path=nvml))
        session.begin()
        with session.counting(0, CounterOptions()) as counters:
            counters.start()
            counters.stop()
            time.sleep(0.3)
            session.spool.sync()
            os._exit(9)
    """
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "QMETER_FAKE_NVML": "0.is_h200=1"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert done.returncode == 9
    capture = open_capture(tmp_path / "run.qmt")
    assert {"recovered", "counters_cut_off"} <= set(codes(capture))
    assert capture.counter_windows.disable_ns[0] - capture.counter_windows.stop_ns[0] > 100_000_000
