"""``trace -- COMMAND`` and ``ctl`` on the fakes: a fake CUDA driver loads the injected library as the real one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qmeter_native.model.capture import Capture
from qmeter_native.model.tables import TraceWindowTable
from qmeter_native.storage.reader import read_capture
from tests.fakes.build import build_fake
from tests.fakes.cuda_program import PROGRAM, program_environment
from tests.integration.command import Done, finish

SERVER = Path(__file__).parents[1] / "openai_server.py"

QUICK = ("trace", "--no-plugin", "--idle", "0", "--output", "a.qmt")


class Launcher:
    """Runs ``qmeter-native`` in a folder, in an environment that finds the fakes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        fakes = program_environment()
        nvml = build_fake("fake_nvml.cpp", "libnvidia-ml.so.1").parent
        fakes["LD_LIBRARY_PATH"] += f"{os.pathsep}{nvml}"
        path = os.pathsep.join(path for path in sys.path if path)
        self.environment = {**os.environ, **fakes, "PYTHONPATH": path, "TMPDIR": str(folder)}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "qmeter_native", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> Done:
        return finish(self.start(*arguments, **environment))

    def trace(self, *words: str, options: tuple[str, ...] = (), **environment: str) -> Done:
        """Trace the fake CUDA program with ``words`` into ``a.qmt``."""
        return self.run(*QUICK, *options, "--", sys.executable, str(PROGRAM), *words, **environment)

    def start_trace(self, *words: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        return self.start(*QUICK, *options, "--", sys.executable, str(PROGRAM), *words)

    def capture(self) -> Capture:
        return read_capture(self.folder / "a.qmt")


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path)


def codes(capture: Capture) -> set[str]:
    return {entry.code for entry in capture.manifest.validity}


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_kernels_of_a_command_and_its_children_become_one_capture(launcher: Launcher):
    done = launcher.trace("--launches", "300", "--rate", "1000", "--spawn", "2", "--print", "hello")
    done.assert_clear(0)
    assert done.out.startswith("hello\n")
    capture = launcher.capture()
    assert len(capture.kernels) == 900
    assert capture.manifest.loss.total == 0
    assert len({process.pid for process in capture.manifest.processes}) == 4  # the launcher and three traced ones
    assert set(capture.kernels.device.tolist()) == {0}
    assert capture.manifest.devices[0].uuid == capture.manifest.processes[-1].gpu_uuids[0]
    assert capture.manifest.workload["command"][1] == str(PROGRAM)
    assert not (launcher.folder / "a.qmt" / "spool").exists()
    assert not (launcher.folder / "a.qmt" / "control.sock").exists()


def test_the_launcher_samples_hardware_counters_beside_energy(launcher: Launcher, fake_cupti_path: Path):
    options = ("--counters", "0.2", "--counters-after", "0", "--cupti", str(fake_cupti_path))
    done = launcher.trace("--seconds", "2", options=options, QMETER_FAKE_NVML="0.is_h200=1")
    done.assert_clear(0)
    capture = launcher.capture()
    assert not {"counters_absent", "counters_cut"} & codes(capture)
    assert set(capture.counters.device) == {device.index for device in capture.manifest.devices}
    assert all(counted["samples"] > 0 for counted in capture.manifest.counters.values())
    assert capture.counter_windows.disable_ns.min() < capture.manifest.measure_end_ns
    assert len(capture.kernels) > 0


def test_counters_without_permission_leave_the_run_alone(launcher: Launcher, fake_cupti_path: Path):
    options = ("--counters", "0.1", "--counters-after", "0", "--cupti", str(fake_cupti_path))
    environment = {"QMETER_FAKE_NVML": "0.is_h200=1", "FAKE_CUPTI": "pm_enable_result=35"}
    done = launcher.trace("--launches", "9", options=options, **environment)
    done.assert_clear(0)
    capture = launcher.capture()
    notes = [entry.message for entry in capture.manifest.validity if entry.code == "counters_absent"]
    assert len(notes) == 1
    assert "ERR_NVGPUCTRPERM" in notes[0]
    assert len(capture.kernels) == 9


def test_the_exit_code_is_the_commands(launcher: Launcher):
    assert launcher.trace("--launches", "1", "--exit-code", "7").code == 7


def test_a_command_that_a_signal_ended_gives_128_and_its_number(launcher: Launcher):
    done = launcher.run(*QUICK, "--", "bash", "-c", "kill -KILL $$")
    done.assert_clear(137)


def test_a_command_that_is_not_there_is_a_usage_error_and_leaves_nothing(launcher: Launcher):
    launcher.run(*QUICK, "--", "no-such-command").assert_clear(2, "no-such-command")
    assert not (launcher.folder / "a.qmt").exists()


def test_a_file_that_is_no_program_is_refused(launcher: Launcher):
    broken = launcher.folder / "broken"
    broken.write_text("\x00\x01")
    broken.chmod(0o755)
    launcher.run(*QUICK, "--", str(broken)).assert_clear(2, "broken cannot be started")
    assert not (launcher.folder / "a.qmt").exists()


def test_a_command_without_cuda_has_energy_only_and_the_capture_says_so(launcher: Launcher):
    launcher.trace("--no-cuda", "--seconds", "0.3").assert_clear(0)
    capture = launcher.capture()
    assert "no_cuda" in codes(capture)
    assert len(capture.power) > 0


def test_without_kernels_nothing_is_injected(launcher: Launcher):
    done = launcher.run(*QUICK, "--no-kernels", "--", "bash", "-c", "echo [$CUDA_INJECTION64_PATH]")
    assert done.out.startswith("[]\n")
    assert "no_cuda" not in codes(launcher.capture())


@pytest.mark.parametrize("name", ["CUDA_INJECTION64_PATH", "NSYS_PROFILING_SESSION_ID"])
def test_a_profiler_that_is_attached_is_named(launcher: Launcher, name: str):
    launcher.trace("--launches", "1", **{name: "other-profiler"}).assert_clear(1, "another profiler", name)
    assert not (launcher.folder / "a.qmt").exists()


def test_a_folder_that_cannot_be_written_is_named_before_the_command_runs(launcher: Launcher):
    (launcher.folder / "file").write_text("")
    done = launcher.run("trace", "--output", "file/a.qmt", "--", "touch", "ran")
    done.assert_clear(1, "file/a.qmt")
    assert not (launcher.folder / "ran").exists()


def test_a_worker_that_is_killed_keeps_what_it_wrote(launcher: Launcher):
    trace = launcher.start_trace("--seconds", "60", "--rate", "2000")
    spools = launcher.folder / "a.qmt" / "spool"
    wait_until(lambda: any(file.stat().st_size > 20_000 for file in spools.glob("*-cuda0.qms")))
    pid = int(next(spools.glob("*-cuda0.qms")).name.split("-")[-2])
    os.kill(pid, signal.SIGKILL)
    assert finish(trace).code == 137
    assert len(launcher.capture().kernels) > 300


def test_a_child_that_outlives_its_parent_is_waited_for(launcher: Launcher):
    launcher.trace("--outlive", "--launches", "200", "--rate", "200").assert_clear(0)
    assert len(launcher.capture().kernels) == 200
    assert "outlived" not in codes(launcher.capture())


def test_a_daemon_that_stays_is_left_alone_and_named(launcher: Launcher):
    options = ("--grace", "2.5")
    launcher.trace("--outlive", "--seconds", "20", "--rate", "100", options=options).assert_clear(0)
    capture = launcher.capture()
    assert "outlived" in codes(capture)
    assert len(capture.kernels) > 10
    left = next(process.pid for process in capture.manifest.processes if process.gpu_uuids)
    os.kill(left, signal.SIGKILL)  # it was alive


def test_ctrl_c_ends_the_command_and_keeps_the_capture(launcher: Launcher):
    trace = launcher.start_trace("--seconds", "60", "--rate", "1000")
    wait_until(lambda: bool(list((launcher.folder / "a.qmt" / "spool").glob("*-cuda0.qms"))))
    time.sleep(2)  # Python ends itself by SIGINT then, without the exit handlers of C: its last second may be lost
    trace.send_signal(signal.SIGINT)
    assert finish(trace).code == 130
    assert len(launcher.capture().kernels) > 100
    assert "interrupted" in codes(launcher.capture())


def test_sigterm_goes_to_the_command(launcher: Launcher):
    trace = launcher.start_trace("--seconds", "60", "--rate", "1000")
    wait_until(lambda: bool(list((launcher.folder / "a.qmt" / "spool").glob("*-cuda0.qms"))))
    trace.send_signal(signal.SIGTERM)
    assert finish(trace).code == 143
    launcher.capture()


def recorded_s(capture: Capture) -> float:
    windows: TraceWindowTable = capture.trace_windows
    return float((windows.end_ns - windows.start_ns).sum()) / 1e9


def test_tracing_for_a_while_stops_and_lets_the_command_go_on(launcher: Launcher):
    options = ("--start-after", "0.5", "--duration", "0.5")
    launcher.trace("--seconds", "2.5", "--rate", "1000", options=options).assert_clear(0)
    capture = launcher.capture()
    assert 0.3 < recorded_s(capture) < 1.0
    assert 100 < len(capture.kernels) < 1200


def test_ctl_starts_stops_and_tells_the_status(launcher: Launcher):
    trace = launcher.start_trace("--seconds", "4", "--rate", "1000", options=("--start-stopped",))
    socket = launcher.folder / "a.qmt" / "control.sock"
    wait_until(socket.exists)
    wait_until(lambda: json.loads(launcher.run("ctl", "status", "a.qmt", "--json").out)["num_traced"] == 1)
    assert "not tracing" in launcher.run("ctl", "status", "a.qmt").out
    started = launcher.run("ctl", "start", "a.qmt", "--duty", "0.1/0.2", "--json")
    assert json.loads(started.out)["mode"] == "duty_cycled"
    assert json.loads(started.out)["duty"] == "0.1/0.2"
    launcher.run("ctl", "stop", "a.qmt").assert_clear(0)
    launcher.run("ctl", "start", "a.qmt", "--duty", "2/1").assert_clear(2, "duty cycle")
    assert finish(trace).code == 0
    assert 0 < len(launcher.capture().kernels) < 4000
    launcher.run("ctl", "status", "a.qmt").assert_clear(1, "is finished", "report a.qmt")
    launcher.run("ctl", "status", "other.qmt").assert_clear(1, "no trace at other.qmt")


def test_sigusr1_switches_tracing(launcher: Launcher):
    trace = launcher.start_trace("--seconds", "3", "--rate", "1000", options=("--start-stopped",))
    wait_until((launcher.folder / "a.qmt" / "control.sock").exists)
    time.sleep(0.5)
    trace.send_signal(signal.SIGUSR1)
    time.sleep(0.7)
    trace.send_signal(signal.SIGUSR1)
    assert finish(trace).code == 0
    assert 0.2 < recorded_s(launcher.capture()) < 1.6


def test_a_duty_cycled_run_says_how_much_it_saw(launcher: Launcher):
    done = launcher.trace("--seconds", "3", "--rate", "1000", options=("--duty", "0.1/0.4", "--json"))
    done.assert_clear(0)
    report = json.loads(done.out)
    (coverage,) = report["coverage"]
    assert 0 < coverage["traced_ns"] < coverage["untraced_ns"]
    assert coverage["num_windows"] >= 5
    assert len(launcher.capture().kernels) < 2000


def test_a_socket_path_that_is_too_long_is_put_elsewhere(tmp_path: Path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    launcher = Launcher(folder)
    launcher.environment["TMPDIR"] = str(tmp_path)
    trace = launcher.start_trace("--seconds", "3", "--rate", "100")
    wait_until((folder / "a.qmt" / "control.address").exists)
    wait_until(lambda: "tracing" in launcher.run("ctl", "status", "a.qmt").out)
    assert finish(trace).code == 0
    assert not list(tmp_path.glob("qmeter-*/control.sock"))


def test_a_second_trace_on_one_gpu_is_noted(launcher: Launcher):
    first = launcher.start_trace("--seconds", "4", "--rate", "100")
    wait_until((launcher.folder / "a.qmt" / "control.sock").exists)
    command = ("trace", "--no-plugin", "--idle", "0", "--output", "b.qmt", "--", "true")
    launcher.run(*command).assert_clear(0)
    assert "gpu_shared" in codes(read_capture(launcher.folder / "b.qmt"))
    assert finish(first).code == 0
    assert "gpu_shared" not in codes(launcher.capture())


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_is_waited_for_driven_and_ended(launcher: Launcher):
    port = str(free_port())
    options = ("--requests", "6", "--warmup", "1", "--input-len", "8", "--output-len", "5", "--port", port)
    server = (sys.executable, str(SERVER), "--port", port, "--delay", "0.3")
    launcher.run(*QUICK, *options, "--", *server).assert_clear(0)
    capture = launcher.capture()
    assert capture.requests.is_finished.all()
    assert len(capture.requests) == 6
    assert {"no_cuda", "no_plugin"} <= codes(capture)


def test_a_server_that_dies_before_it_is_healthy_is_an_error_and_keeps_the_capture(launcher: Launcher):
    options = ("--requests", "6", "--port", str(free_port()))
    done = launcher.run(*QUICK, *options, "--", "bash", "-c", "exit 5")
    done.assert_clear(1)
    assert {"command_ended", "load_failed"} <= codes(launcher.capture())
    assert any("exit code 5" in entry.message for entry in launcher.capture().manifest.validity)
