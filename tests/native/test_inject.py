"""The injected library in programs on the fakes of libcuda and libcupti: what it records, and that it does no harm."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qmeter_native.capture.inject_library import inject_library
from qmeter_native.errors import NativeError
from qmeter_native.model.tables import KernelTable, TraceWindowTable
from qmeter_native.storage.spool import SpoolContents, is_being_written, read_spool
from tests.fakes.cuda_program import PROGRAM, program_environment
from tests.fakes.fake_nvml import fake_uuid
from tests.native.trace_windows import windows_of

STOPPED, RUNNING, DUTY_CYCLED = range(3)
MS = 1_000_000
EDGE_NS = 100 * MS
"""How late a busy machine may let a window begin or end."""


@dataclass
class Program:
    """Starts the fake CUDA program with the library injected, and reads the spools of its processes."""

    folder: Path
    environment: dict[str, str]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, code: int = 0, output: str = "", **environment: str) -> list[SpoolContents]:
        """The spools after a run that ends with ``code`` and prints ``output`` and nothing else."""
        process = self.start(*arguments, **environment)
        assert process.communicate(timeout=60) == (output, "")
        assert process.returncode == code
        return self.spools()

    def spools(self) -> list[SpoolContents]:
        return [read_spool(path) for path in sorted(self.folder.glob("*.qms"))]

    def wait_for_kernels(self) -> None:
        """Until some are on disk."""
        wait_until(lambda: any(len(kernels_of(spool)) for spool in self.spools()))

    def control(self, mode: int, *, on_ns: int = 0, period_ns: int = 0, phase_ns: int = 0, version: int = 1) -> None:
        """Write the control block as the launcher does: in place, with an odd generation meanwhile."""
        path = Path(self.environment["QMETER_CONTROL"])
        path.touch()
        with path.open("r+b") as file:
            for generation in (1, 2):
                words = (b"QMCB", version, generation, mode, 0, on_ns, period_ns, phase_ns)
                file.seek(0)
                file.write(struct.pack("<4sIQIIqqq16x", *words))
                file.flush()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    folder = tmp_path / "spool"
    folder.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "QMETER_", "RANK"))},
        **program_environment(),
        "CUDA_INJECTION64_PATH": str(inject_library()),
        "QMETER_SPOOL_DIR": str(folder),
        "QMETER_CONTROL": str(tmp_path / "control"),
    }
    program = Program(folder, environment)
    yield program
    for process in program.processes:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def kernels_of(spool: SpoolContents) -> KernelTable:
    table = spool.tables[KernelTable.NAME]
    assert isinstance(table, KernelTable)
    return table


def num_outside(spool: SpoolContents) -> int:
    """Kernels that ran outside of all windows, give or take an edge."""
    kernels = kernels_of(spool)
    is_inside = np.zeros(len(kernels), bool)
    for start, end in windows_of(spool):
        is_inside |= (kernels.start_ns >= start - EDGE_NS) & (kernels.end_ns <= end + EDGE_NS)
    return int((~is_inside).sum())


def inject_stats(spool: SpoolContents) -> dict[str, Any]:
    return spool.stats["inject"]


def test_the_kernels_of_a_program_are_recorded_and_it_notices_nothing(program: Program) -> None:
    (spool,) = program.run("--launches", "500", "--exit-code", "7", "--print", "hello", code=7, output="hello\n")
    kernels = kernels_of(spool)
    assert len(kernels) == spool.stats["kernel_tracer"]["kernels"] == 500
    assert (np.diff(kernels.start_ns) > 0).all()
    assert (spool.stats["spool"]["error"], spool.stats["spool"]["dropped_records"]) == (None, 0)
    assert num_outside(spool) == 0
    assert len(windows_of(spool)) == 1


def test_a_spool_says_whose_it_is(program: Program) -> None:
    process = program.start("--launches", "1", RANK="3")
    process.communicate()
    (spool,) = program.spools()
    assert spool.path.name == f"{os.uname().nodename}-{process.pid}-cuda0.qms"
    assert spool.identity == {
        "format": "qmeter-spool",
        "version": 1,
        "host": os.uname().nodename,
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid": process.pid,
        "rank": 3,
        "command": f"{sys.executable} {PROGRAM} --launches 1",
        "role": "cuda",
    }


def test_the_statistics_say_how_tracing_went(program: Program) -> None:
    environment = program_environment(num_devices=3, cupti_settings="clock_offset_ns=-5000000000")
    (spool,) = program.run("--launches", "1", **environment, CUDA_VISIBLE_DEVICES="2,0")
    stats = inject_stats(spool)
    assert (stats["error"], stats["version"], stats["how"]) == (None, 130001, "QMETER_CUPTI_PATH")
    assert stats["path"].endswith("/libcupti.so.13")
    assert stats["kinds"] == ["CONCURRENT_KERNEL", "MEMCPY", "MEMCPY2", "MEMSET"]
    assert stats["gpu_uuids"] == [fake_uuid(2), fake_uuid(0)]
    assert stats["control"] == "absent"
    assert 0 < stats["start_ns"] < stats["end_ns"]
    assert stats["clock_offset_count"] >= 1
    assert stats["clock_offset_min_ns"] <= stats["clock_offset_median_ns"] <= stats["clock_offset_max_ns"]
    assert abs(stats["clock_offset_median_ns"] + 5_000_000_000) < EDGE_NS


def test_every_process_of_a_tree_has_a_spool_of_its_own(program: Program) -> None:
    spools = program.run("--launches", "50", "--spawn", "2", "--fork")
    assert len(spools) == 6  # the program and two children, each of which forks
    assert len({spool.identity["pid"] for spool in spools}) == 6
    assert [len(kernels_of(spool)) for spool in spools] == [50] * 6
    assert [inject_stats(spool)["error"] for spool in spools] == [None] * 6


def test_a_child_that_was_forked_leaves_its_parents_trace_alone(program: Program) -> None:
    spools = program.run("--launches", "20", "--fork", "--exit-code", "2", code=2)
    parent, child = sorted(spools, key=lambda spool: inject_stats(spool)["start_ns"])
    assert (parent.blocks_lost, child.blocks_lost) == (0, 0)
    assert inject_stats(parent)["end_ns"] > inject_stats(child)["end_ns"] > 0


def test_a_program_that_executes_another_goes_on_in_a_second_spool(program: Program) -> None:
    spools = program.run("--launches", "100", "--rate", "100", "--exec")
    assert [spool.path.stem.rpartition("-")[2] for spool in spools] == ["cuda0", "cuda1"]
    assert spools[0].identity["pid"] == spools[1].identity["pid"]
    assert (inject_stats(spools[0])["end_ns"], inject_stats(spools[1])["end_ns"] > 0) == (0, True)
    assert len(kernels_of(spools[1])) == 100
    assert not is_being_written(spools[0].path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_is_killed_loses_less_than_a_second(program: Program, number: signal.Signals) -> None:
    process = program.start("--seconds", "60", "--rate", "1000")
    program.wait_for_kernels()
    time.sleep(1)
    killed_ns = time.time_ns()
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    (spool,) = program.spools()
    assert killed_ns - int(kernels_of(spool).end_ns[-1]) < 1_000_000_000
    ((_, end_ns),) = windows_of(spool)
    assert end_ns <= killed_ns
    assert not is_being_written(spool.path)


def test_a_spool_is_locked_as_long_as_its_program_runs(program: Program) -> None:
    process = program.start("--seconds", "60", "--rate", "100")
    program.wait_for_kernels()
    (spool,) = program.spools()
    assert is_being_written(spool.path)
    assert inject_stats(spool)["end_ns"] == 0
    process.kill()
    process.communicate()
    assert not is_being_written(spool.path)


def test_a_daemon_that_outlives_its_parent_is_recorded(program: Program) -> None:
    assert program.run("--outlive", "--launches", "30") == []
    wait_until(lambda: any(inject_stats(spool)["end_ns"] for spool in program.spools() if "inject" in spool.stats))
    (spool,) = program.spools()
    assert len(kernels_of(spool)) == 30


def test_a_program_without_cuda_leaves_no_spool(program: Program) -> None:
    assert program.run("--no-cuda") == []


def test_without_a_spool_directory_nothing_happens(program: Program) -> None:
    del program.environment["QMETER_SPOOL_DIR"]
    assert program.run("--launches", "5", "--exit-code", "4", code=4) == []


def test_a_spool_that_cannot_be_written_harms_nobody(program: Program, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert program.run("--launches", "5", QMETER_SPOOL_DIR=str(tmp_path / "file")) == []


def test_a_missing_cupti_is_said_in_the_spool(program: Program, tmp_path: Path) -> None:
    environment = program_environment(has_cupti=False)
    (spool,) = program.run("--launches", "5", **environment, QMETER_CUPTI_DIRS=f"{tmp_path}/a:{tmp_path}/b")
    stats = inject_stats(spool)
    assert f"{tmp_path}/a/libcupti.so.13" in stats["error"]
    assert f"{tmp_path}/b/libcupti.so.12" in stats["error"]
    assert "\n" not in stats["error"]
    assert (stats["path"], stats["kinds"]) == (None, [])
    assert stats["end_ns"] > 0


def test_cupti_is_found_in_the_folders_given(program: Program) -> None:
    folder = program.environment["LD_LIBRARY_PATH"].split(os.pathsep)[1]
    environment = program_environment(has_cupti=False)
    (spool,) = program.run("--launches", "5", **environment, QMETER_CUPTI_DIRS=f"/nowhere:{folder}")
    assert (inject_stats(spool)["error"], inject_stats(spool)["how"]) == (None, "search directory")
    assert len(kernels_of(spool)) == 5


def test_another_subscriber_is_named_and_left_alone(program: Program) -> None:
    environment = program_environment(cupti_settings="subscribers=1")
    (spool,) = program.run("--launches", "5", **environment, NSYS_PROFILING_SESSION_ID="1")
    error = inject_stats(spool)["error"]
    assert "another profiler holds CUPTI" in error
    assert "Nsight Systems" in error
    assert "libqmeter_inject" not in error
    assert len(kernels_of(spool)) == 0


def test_the_extension_in_a_traced_program_says_who_holds_cupti(fake_cupti: Any, monkeypatch: Any) -> None:
    from qmeter_native import _native

    monkeypatch.setenv("CUDA_INJECTION64_PATH", str(inject_library()))
    fake_cupti.set("subscribers", 1)
    with pytest.raises(_native.NativeFault, match="libqmeter_inject"):
        _native.KernelTracer(None, cupti_path=fake_cupti.path)


def test_a_driver_without_a_gpu_leaves_the_program_its_own_error(program: Program) -> None:
    process = program.start("--launches", "5", **program_environment(settings="init_result=100"))
    assert process.communicate() == ("", "cuInit failed\n")
    assert process.returncode == 1
    (spool,) = program.spools()
    assert inject_stats(spool)["gpu_uuids"] is None
    assert inject_stats(spool)["clock_offset_median_ns"] is None


def test_a_stopped_control_block_records_nothing_until_it_says_run(program: Program) -> None:
    program.control(STOPPED)
    process = program.start("--seconds", "60", "--rate", "500")
    wait_until(lambda: len(program.spools()) == 1 and "inject" in program.spools()[0].stats)
    time.sleep(0.3)
    started_ns = time.time_ns()
    program.control(RUNNING)
    program.wait_for_kernels()
    stopped_ns = time.time_ns()
    program.control(STOPPED)
    wait_until(lambda: any(end >= stopped_ns for _, end in windows_of(program.spools()[0])))
    process.terminate()
    process.communicate()
    (spool,) = program.spools()
    ((start_ns, end_ns),) = windows_of(spool)
    assert started_ns <= start_ns < started_ns + EDGE_NS
    assert stopped_ns <= end_ns < stopped_ns + EDGE_NS
    assert num_outside(spool) == 0
    assert inject_stats(spool)["control"] == "file"


def test_a_process_that_never_recorded_says_so_with_an_empty_window(program: Program) -> None:
    program.control(STOPPED)
    (spool,) = program.run("--launches", "5")
    table = spool.tables[TraceWindowTable.NAME]
    assert isinstance(table, TraceWindowTable)
    assert table.start_ns.tolist() == table.end_ns.tolist() != []
    assert len(kernels_of(spool)) == 0


def test_duty_cycled_processes_record_in_the_same_windows(program: Program) -> None:
    on_ns, period_ns, phase_ns = 200 * MS, 500 * MS, 123 * MS
    program.control(DUTY_CYCLED, on_ns=on_ns, period_ns=period_ns, phase_ns=phase_ns)
    spools = program.run("--seconds", "2", "--rate", "500", "--spawn", "1")
    assert len(spools) == 2
    for spool in spools:
        assert inject_stats(spool)["error"] is None
        assert num_outside(spool) == 0
        windows = windows_of(spool)
        assert len(windows) >= 3
        for start, end in windows[1:-1]:  # the first and the last may be cut
            assert (start - phase_ns) % period_ns < EDGE_NS
            assert (end - phase_ns) % period_ns - on_ns < EDGE_NS


@pytest.mark.parametrize("version", [2, None])
def test_what_is_no_control_block_means_always(program: Program, version: int | None) -> None:
    if version is None:
        Path(program.environment["QMETER_CONTROL"]).write_bytes(b"nonsense")
    else:
        program.control(STOPPED, version=version)
    (spool,) = program.run("--launches", "5")
    assert len(kernels_of(spool)) == 5
    assert inject_stats(spool)["control"] == "absent"


def test_a_resume_that_is_refused_ends_tracing_with_the_reason(program: Program) -> None:
    program.control(STOPPED)
    environment = program_environment(cupti_settings="enable_result=35")
    process = program.start("--seconds", "60", "--rate", "500", **environment)
    wait_until(lambda: len(program.spools()) == 1)
    program.control(RUNNING)
    wait_until(lambda: "inject" in program.spools()[0].stats and inject_stats(program.spools()[0])["error"])
    assert "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES" in inject_stats(program.spools()[0])["error"]
    process.kill()


def test_replayed_graphs_are_recorded_node_by_node(program: Program) -> None:
    (spool,) = program.run("--launches", "20", "--graph-nodes", "30")
    kernels = kernels_of(spool)
    assert kernels.graph_node.tolist() == list(range(1, 31)) * 20
    assert spool.stats["kernel_tracer"]["graph_nodes"] == 600


def test_no_signal_lands_on_a_thread_of_ours(program: Program) -> None:
    process = program.start("--seconds", "60", "--rate", "100")
    program.wait_for_kernels()
    blocked = {}
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        lines = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        blocked[lines["Name"]] = int(lines["SigBlk"], 16)
    ours = {name: mask for name, mask in blocked.items() if name.startswith("qmeter")}
    # The bounded helper lives only while one call into CUPTI is waited for: a busy machine shows it here.
    assert set(ours) - {"qmeter-bounded"} == {"qmeter-inject", "qmeter-decode", "qmeter-spool"}
    catchable = (1 << (signal.SIGTERM - 1)) | (1 << (signal.SIGINT - 1)) | (1 << (signal.SIGCHLD - 1))
    assert all(mask & catchable == catchable for mask in ours.values())


@pytest.mark.slow
def test_a_cupti_that_never_returns_does_not_hold_the_programs_exit(program: Program) -> None:
    begin = time.monotonic()
    program.run("--launches", "5", "--seconds", "1", "--exit-code", "3", code=3, FAKE_CUPTI="flush_hang=1")
    assert time.monotonic() - begin < 40


def test_the_library_stands_alone_and_shows_one_symbol() -> None:
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", str(inject_library())], check=True, capture_output=True, text=True
    )
    assert [line.split()[-1] for line in symbols.stdout.splitlines()] == ["InitializeInjection"]
    needed = subprocess.run(["readelf", "-d", str(inject_library())], check=True, capture_output=True, text=True).stdout
    assert "libstdc++" not in needed
    assert "libpython" not in needed


def test_a_library_that_was_not_built_is_an_error_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import qmeter_native

    monkeypatch.setattr(qmeter_native, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(NativeError, match="pip install"):
        inject_library()
