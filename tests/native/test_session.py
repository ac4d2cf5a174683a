"""Sessions on a machine without a GPU: what is recorded, what is recovered, what is refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import qmeter_native
from qmeter_native.capture.finalize import is_unfinished
from qmeter_native.capture.open import open_capture
from qmeter_native.capture.session import Session, SessionOptions
from qmeter_native.errors import CaptureError, CaptureNotFoundError, DamagedCaptureError, UsageError
from qmeter_native.storage.reader import read_capture

CPU = SessionOptions(device="cpu")


def test_ranges_are_nested_per_thread_and_survive_exceptions(tmp_path: Path) -> None:
    with Session(tmp_path / "run.qmt", CPU) as session:

        @session.traced()
        def work() -> int:
            with session.range("inner"):
                return 42

        assert work() == 42
        with pytest.raises(KeyError), session.range("failing"):
            raise KeyError
    ranges = read_capture(tmp_path / "run.qmt").ranges
    by_name = {name.rpartition(".")[2]: row for row, name in enumerate(ranges.name)}
    assert set(by_name) == {"work", "inner", "failing"}
    assert ranges.depth[by_name["inner"]] == 1
    assert ranges.depth[by_name["work"]] == ranges.depth[by_name["failing"]] == 0
    assert ranges.start_ns[by_name["work"]] <= ranges.start_ns[by_name["inner"]]
    assert ranges.end_ns[by_name["inner"]] <= ranges.end_ns[by_name["work"]]


def test_the_python_api_traces_and_reports(tmp_path: Path) -> None:
    with qmeter_native.trace(tmp_path / "run.qmt", device="cpu") as session, session.range("body"):
        pass
    manifest = read_capture(tmp_path / "run.qmt").manifest
    assert manifest.start_ns <= manifest.measure_start_ns <= manifest.measure_end_ns <= manifest.end_ns
    report = qmeter_native.report(tmp_path / "run.qmt")
    assert report.totals.num_requests == 0
    assert report.balance.failures() == ()


def test_the_python_api_traces_the_operators_of_torch_on_a_cpu(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with qmeter_native.trace(tmp_path / "run.qmt", device="cpu"):
        torch.ones(64, 64) @ torch.ones(64, 64)
    report = qmeter_native.report(tmp_path / "run.qmt")
    assert "aten::mm" in [kernel.name for kernel in report.kernels]
    assert report.balance.failures() == ()


def test_the_api_leaves_a_capture_behind_when_the_body_raises(tmp_path: Path) -> None:
    def fail_after_a_range() -> None:
        with qmeter_native.trace(tmp_path / "run.qmt", device="cpu") as session:
            with session.range("before"):
                pass
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_a_range()
    assert list(read_capture(tmp_path / "run.qmt").ranges.name) == ["before"]


def test_a_capture_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.qmt").mkdir()
    with pytest.raises(CaptureError, match="exists already"):
        Session(tmp_path / "run.qmt", CPU)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptureError, match=r"file/run\.qmt cannot be created"):
        Session(tmp_path / "file" / "run.qmt", CPU)


def test_an_unknown_device_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'tpu'"):
        SessionOptions(device="tpu")


def test_a_device_without_a_source_of_energy_says_why(tmp_path: Path) -> None:
    options = SessionOptions(device="cpu", powercap_root=str(tmp_path / "no-powercap"))
    with Session(tmp_path / "run.qmt", options) as session:
        session.measure_idle(60.0)  # returns at once: there is nothing to measure
    (device,) = read_capture(tmp_path / "run.qmt").manifest.devices
    assert device.energy_source is None
    assert device.energy_absent_reason
    assert device.idle_power_w is None


def test_energy_that_is_switched_off_is_absent_for_that_reason(tmp_path: Path) -> None:
    with Session(tmp_path / "run.qmt", SessionOptions(device="cpu", energy=False)):
        pass
    (device,) = read_capture(tmp_path / "run.qmt").manifest.devices
    assert device.energy_absent_reason == "energy sampling was switched off"


def test_a_killed_process_leaves_a_capture_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "run.qmt"
    program = f"""
        import os, signal
        from qmeter_native.capture.session import Session, SessionOptions
        session = Session({str(path)!r}, SessionOptions(device="cpu"))
        session.begin()
        with session.range("before the end"):
            pass
        session.spool.sync()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert killed.returncode == -9
    assert is_unfinished(path)
    capture = open_capture(path)
    assert list(capture.ranges.name) == ["before the end"]
    assert "recovered" in [entry.code for entry in capture.manifest.validity]
    assert not is_unfinished(path)
    assert len(open_capture(path).ranges) == 1


def test_a_capture_that_is_being_recorded_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.qmt"
    with Session(path, CPU) as session:
        session.spool.sync()
        with pytest.raises(CaptureError, match="still being recorded"):
            open_capture(path)
        with session.range("after the look"):
            pass
    assert list(open_capture(path).ranges.name) == ["after the look"]


def test_a_spool_without_a_session_is_damaged_beyond_recovery(tmp_path: Path) -> None:
    folder = tmp_path / "run.qmt" / "spool"
    folder.mkdir(parents=True)
    (folder / "host-1.qms").write_bytes(b"")
    with pytest.raises(DamagedCaptureError, match="no spool tells what was traced"):
        open_capture(tmp_path / "run.qmt")
    assert (folder / "host-1.qms").exists()


def test_nothing_at_a_path_is_not_a_capture(tmp_path: Path) -> None:
    with pytest.raises(CaptureNotFoundError):
        open_capture(tmp_path / "nowhere.qmt")


def test_a_discarded_session_leaves_nothing(tmp_path: Path) -> None:
    session = Session(tmp_path / "run.qmt", CPU)
    session.discard()
    session.discard()
    assert not (tmp_path / "run.qmt").exists()
