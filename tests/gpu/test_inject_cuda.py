"""The injected library in a program that knows nothing of it, on a real driver: invariants only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmeter_native.capture.control import CONTROL_FILE, ControlBlock
from qmeter_native.capture.launch_environment import traced_environment
from qmeter_native.model.tables import KernelTable
from qmeter_native.storage.spool import SpoolContents, read_spool

torch = pytest.importorskip("torch")

NODES = 200
REPLAYING = f"""
import sys, time, torch
value = torch.zeros(1 << 20, device="cuda")
value.add_(0)
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    for _ in range({NODES}):
        value.add_(1)
end = time.monotonic() + float(sys.argv[1])
replays = 0
while time.monotonic() < end:
    graph.replay()
    torch.cuda.synchronize()
    replays += 1
print(replays)
sys.exit(3)
"""


class Program:
    """A traced program that replays a graph, and the control block that it follows."""

    def __init__(self, path: Path) -> None:
        self._spools = path / "spool"
        self._spools.mkdir(parents=True)
        self.control = ControlBlock(self._spools / CONTROL_FILE)
        self.control.run()
        self._environment = traced_environment(os.environ, path, kernels=True)
        self.process: subprocess.Popen[str] | None = None

    def start(self, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", REPLAYING, str(seconds)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=self._environment, stdout=pipe, stderr=pipe, text=True)
        return self.process

    def spool(self) -> SpoolContents:
        (path,) = self._spools.glob("*.qms")
        return read_spool(path)

    def wait_for_replays(self) -> None:
        deadline = time.monotonic() + 60
        while not any((kernels_of(read_spool(path)).graph_node != 0).any() for path in self._spools.glob("*.qms")):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path / "run.qmt")
    yield program
    if program.process is not None:
        program.process.kill()
        program.process.communicate()
    program.control.close()


def kernels_of(spool: SpoolContents) -> KernelTable:
    table = spool.tables[KernelTable.NAME]
    assert isinstance(table, KernelTable)
    return table


def test_every_replayed_node_is_recorded_and_the_program_notices_nothing(program: Program) -> None:
    process = program.start(1)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (3, "")
    spool = program.spool()
    stats = spool.stats["kernel_tracer"]
    assert stats["graph_nodes"] == int(out) * NODES
    assert (kernels_of(spool).graph_node != 0).sum() == stats["graph_nodes"]
    assert (stats["dropped_records"], stats["zero_timestamps"], stats["reversed_timestamps"]) == (0, 0, 0)
    assert (spool.stats["spool"]["dropped_records"], spool.blocks_lost) == (0, 0)


def test_the_library_knows_the_gpu_and_its_clock(program: Program) -> None:
    program.start(0.1).communicate(timeout=120)
    stats = program.spool().stats["inject"]
    assert stats["error"] is None
    assert stats["gpu_uuids"][0] == f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    assert abs(stats["clock_offset_median_ns"]) < 100_000


def test_the_first_pause_ends_the_recording_of_replayed_graphs(program: Program) -> None:
    process = program.start(60)
    program.wait_for_replays()
    program.control.stop()
    time.sleep(1)  # whatever was in flight is over
    silent_ns = time.time_ns()
    time.sleep(1)
    program.control.run()
    resumed_ns = time.time_ns()
    time.sleep(1)
    process.kill()
    process.communicate()
    starts = kernels_of(program.spool()).start_ns
    assert not ((starts > silent_ns) & (starts < resumed_ns)).any()
    assert (starts > resumed_ns).any()


def test_a_kill_costs_less_than_a_second(program: Program) -> None:
    process = program.start(60)
    program.wait_for_replays()
    time.sleep(2)
    killed_ns = time.time_ns()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert killed_ns - int(kernels_of(program.spool()).end_ns.max()) < 1_000_000_000
