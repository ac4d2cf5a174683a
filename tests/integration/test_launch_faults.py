"""Launched commands when things go wrong: the program is unharmed, and what was captured is kept."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qmeter_native.storage.reader import read_capture
from tests.fakes.cuda_program import PROGRAM
from tests.fakes.fake_nvml import fake_uuid
from tests.integration.command import Done, finish
from tests.integration.test_launch import QUICK, Launcher, codes, wait_until
from tests.openai_server import OpenAIServer

COUNTS_INTERRUPTS = """
import signal, time
count = 0
def interrupt(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, interrupt)
print("READY", flush=True)
end = time.monotonic() + 60
while not count and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.5)
print("COUNTED", count, flush=True)
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path)


def wait_for_kernels(launcher: Launcher, num_processes: int = 1) -> None:
    """Until each process has kernels on disk."""
    folder = launcher.folder / "a.qmt" / "spool"
    wait_until(lambda: sum(file.stat().st_size > 20_000 for file in folder.glob("*-cuda0.qms")) == num_processes)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    assert any(text in line for line in process.stderr)


def test_ctrl_c_while_a_daemon_is_waited_for_keeps_the_capture_and_the_daemon(launcher: Launcher) -> None:
    options = ("--grace", "100")
    trace = launcher.start_trace("--outlive", "--seconds", "100", "--rate", "1000", options=options)
    wait_for_kernels(launcher)
    trace.send_signal(signal.SIGINT)
    finish(trace)
    capture = launcher.capture()
    assert {"outlived", "interrupted"} <= codes(capture)
    assert len(capture.kernels) > 100
    daemon = capture.manifest.processes[-1]  # the launcher is the first
    os.kill(daemon.pid, signal.SIGKILL)  # it was alive


def test_a_second_ctrl_c_kills_a_command_that_ignores_the_first(launcher: Launcher) -> None:
    script = "trap '' INT; echo ready >&2; while :; do sleep 0.1; done"
    trace = launcher.start(*QUICK, "--", "bash", "-c", script)
    wait_for_line(trace, "ready")
    trace.send_signal(signal.SIGINT)
    wait_for_line(trace, "waiting for the command to end")
    trace.send_signal(signal.SIGINT)
    finish(trace).assert_clear(137)
    assert "interrupted" in codes(launcher.capture())


def test_ctrl_c_reaches_the_whole_tree_without_a_terminal(launcher: Launcher) -> None:
    trace = launcher.start_trace("--spawn", "2", "--seconds", "100", "--rate", "1000", options=("--grace", "100"))
    wait_for_kernels(launcher, 3)
    trace.send_signal(signal.SIGINT)
    finish(trace)
    assert "outlived" not in codes(launcher.capture())


@pytest.mark.parametrize("has_input", [True, False])
def test_ctrl_c_in_a_terminal_reaches_the_command_once(launcher: Launcher, has_input: bool) -> None:
    command = (*QUICK, "--", sys.executable, "-c", COUNTS_INTERRUPTS)
    assert "COUNTED 1\r\n" in in_a_terminal(launcher, command, has_input)


def in_a_terminal(launcher: Launcher, arguments: tuple[str, ...], has_input: bool) -> str:
    """What the program prints in a terminal of its own, in which Ctrl-C is pressed when the command is ready."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(launcher.folder)
        if not has_input:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        command = [sys.executable, "-m", "qmeter_native", *arguments]
        os.execve(sys.executable, command, launcher.environment)
    output, is_pressed, end_s = b"", False, time.monotonic() + 60
    while time.monotonic() < end_s and select.select([terminal], [], [], 60)[0]:
        try:
            output += os.read(terminal, 65536)
        except OSError:  # Linux's way to say that nobody has the terminal any more
            break
        if b"READY" in output and not is_pressed:
            is_pressed = os.write(terminal, b"\x03") == 1
    os.waitpid(pid, 0)
    os.close(terminal)
    return output.decode()


def test_ctrl_c_before_the_command_starts_leaves_nothing(launcher: Launcher) -> None:
    trace = launcher.start("trace", "--idle", "60", "--output", "a.qmt", "--", "touch", "ran")
    wait_for_line(trace, "measuring idle power")
    trace.send_signal(signal.SIGINT)
    finish(trace).assert_clear(130)
    assert not (launcher.folder / "ran").exists()
    assert not (launcher.folder / "a.qmt").exists()


def test_idle_power_that_was_measured_without_a_context_is_said_to_be(launcher: Launcher) -> None:
    launcher.run("trace", "--idle", "0.6", "--output", "a.qmt", "--", "true").assert_clear(0)
    capture = launcher.capture()
    assert "idle_without_context" in codes(capture)
    assert capture.manifest.devices[0].idle_power_w == pytest.approx(200, rel=0.05)


def test_the_load_never_goes_to_a_server_that_ran_already(launcher: Launcher) -> None:
    with OpenAIServer() as other:
        done = launcher.run(*QUICK, "--port", str(other.port), "--", "touch", "ran")
        assert other.received == []
    done.assert_clear(2, "another server listens", str(other.port), "--engine openai")
    assert not (launcher.folder / "ran").exists()
    assert not (launcher.folder / "a.qmt").exists()


def test_an_argument_that_is_no_unicode_reaches_the_command_as_it_is(launcher: Launcher) -> None:
    command = [os.fsencode(word) for word in (sys.executable, "-m", "qmeter_native", *QUICK, "--", "echo")]
    done = subprocess.run(
        [*command, b"\xff\xfe"], cwd=launcher.folder, env=launcher.environment, capture_output=True, check=True
    )
    assert done.stdout.startswith(b"\xff\xfe\n")
    assert launcher.capture().manifest.workload["command"] == ["echo", "\ufffd\ufffd"]


def test_a_command_line_of_a_megabyte_is_run_and_cut_short_in_the_list_of_processes(launcher: Launcher) -> None:
    launcher.run(*QUICK, "--", "true", *["x" * 100_000] * 10).assert_clear(0)
    assert len(launcher.capture().manifest.processes[0].command) == 4096


def test_a_command_line_that_is_too_long_for_the_system_is_refused(launcher: Launcher) -> None:
    script = launcher.folder / "trace.py"
    script.write_text(
        f"import sys\nfrom qmeter_native.cli.main import main\nmain([*{QUICK!r}, '--', 'true', 'x' * 1_000_000])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=launcher.folder, env=launcher.environment, capture_output=True, text=True
    )
    assert (done.returncode, "true cannot be started: Argument list too long" in done.stderr) == (2, True)
    assert not (launcher.folder / "a.qmt").exists()


def test_a_lock_that_cannot_be_made_keeps_nobody_from_tracing(launcher: Launcher) -> None:
    precious = launcher.folder / "precious"
    precious.write_text("data")
    locks = launcher.folder / "qmeter-native"
    locks.mkdir()
    (locks / f"{fake_uuid(0)}.lock").symlink_to(precious)
    launcher.trace("--launches", "5", XDG_RUNTIME_DIR=str(launcher.folder)).assert_clear(0)
    assert precious.read_text() == "data"
    assert len(launcher.capture().kernels) == 5


def in_little_space(launcher: Launcher, num_kib: int, *words: str) -> Done:
    """Trace the fake CUDA program where no file of its own grows past this, as on a disk that is full."""
    program = shlex.join([sys.executable, str(PROGRAM), *words])
    return launcher.run(*QUICK, "--", "bash", "-c", f"ulimit -f {num_kib}; {program} && touch unharmed")


def test_a_disk_that_fills_up_costs_only_what_came_after_and_is_said(launcher: Launcher) -> None:
    done = in_little_space(launcher, 40, "--launches", "2000", "--rate", "1000")
    done.assert_clear(1, "a.qmt is not complete", "File too large", "Free some space")
    assert (launcher.folder / "unharmed").exists()
    capture = launcher.capture()
    assert "spool_write_failed" in codes(capture)
    assert "spool_cut_off" not in codes(capture)
    assert 0 < len(capture.kernels) < 2000
    assert len(capture.kernels) + capture.manifest.loss.spool_records_dropped >= 2000


def test_a_disk_without_room_for_the_first_block_is_said_and_the_command_is_unharmed(launcher: Launcher) -> None:
    in_little_space(launcher, 1, "--launches", "5").assert_clear(0)
    assert (launcher.folder / "unharmed").exists()
    assert "spool_cut_off" in codes(launcher.capture())


def test_a_process_that_is_killed_after_the_disk_filled_up_has_said_so(launcher: Launcher) -> None:
    trace = launcher.start(*QUICK, "--", "bash", "-c", f"ulimit -f 40; exec {sys.executable} {PROGRAM} --seconds 100")
    spools = launcher.folder / "a.qmt" / "spool"
    wait_until(lambda: any(b"File too large" in file.read_bytes() for file in spools.glob("*-cuda0.qms")))
    os.kill(int(next(spools.glob("*-cuda0.qms")).name.split("-")[-2]), signal.SIGKILL)
    finish(trace).assert_clear(1, "a.qmt is not complete")


def test_a_hangup_goes_to_the_command_and_the_capture_is_finished(launcher: Launcher) -> None:
    trace = launcher.start_trace("--seconds", "100", "--rate", "1000")
    wait_for_kernels(launcher)
    trace.send_signal(signal.SIGHUP)
    assert finish(trace).code == 128 + signal.SIGHUP
    assert len(launcher.capture().kernels) > 100


def test_the_status_counts_kernels_while_the_command_runs(launcher: Launcher) -> None:
    trace = launcher.start_trace("--seconds", "100", "--rate", "1000")
    wait_for_kernels(launcher)
    assert " kernels, " in launcher.run("ctl", "status", "a.qmt").out
    assert '"num_kernels": 0' not in launcher.run("ctl", "status", "a.qmt", "--json").out
    trace.terminate()
    finish(trace)


def test_a_gpu_that_the_command_cannot_see_is_not_measured(launcher: Launcher) -> None:
    environment = {"QMETER_FAKE_NVML": "num_devices=2", "FAKE_CUDA": "num_devices=2", "CUDA_VISIBLE_DEVICES": "1"}
    command = ("--", sys.executable, str(PROGRAM), "--launches", "5")
    launcher.run(*QUICK, *command, **environment).assert_clear(0)
    capture = read_capture(launcher.folder / "a.qmt")
    assert [device.uuid for device in capture.manifest.devices] == [fake_uuid(1)]
    assert set(capture.kernels.device.tolist()) == {1}


def test_a_load_that_fails_unexpectedly_ends_the_server_and_keeps_the_capture(launcher: Launcher) -> None:
    script = launcher.folder / "trace.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from qmeter_native.capture.launch import LaunchOptions, launch\n"
        "from qmeter_native.capture.server_load import ServerLoad\n"
        "from qmeter_native.workload.workload import Workload\n"
        "def fail(*_, **__):\n"
        "    raise RuntimeError('a mistake of ours')\n"
        "ServerLoad.drive = fail\n"
        "load = ServerLoad('http://localhost:1', Workload(num_requests=1))\n"
        "server = (sys.executable, '-c', 'import time; time.sleep(100)')\n"
        "launch(Path('a.qmt'), LaunchOptions(server, load=load))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=launcher.folder, env=launcher.environment, capture_output=True, text=True
    )
    assert "RuntimeError: a mistake of ours" in done.stderr
    assert "KeyboardInterrupt" in done.stderr  # the server was interrupted, as by Ctrl-C
    launcher.capture()
