"""What must hold of any run on any GPU. Invariants only: no figure of one machine."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import qmeter_native
from qmeter_native.attribution.report import attribute
from qmeter_native.attribution.steps import step_spans
from qmeter_native.capture.serving import ServingOptions, serve
from qmeter_native.capture.session import SessionOptions
from qmeter_native.engines.options import EngineOptions
from qmeter_native.model.capture import Capture
from qmeter_native.storage.reader import read_capture
from qmeter_native.workload.workload import Workload

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    workload = Workload(num_requests=8, input_len=64, output_len=64, num_warmup=8)
    engine = EngineOptions("shape:qwen3-0.6b", device="cuda", max_concurrency=8, max_context_len=128)
    options = ServingOptions(engine, workload, SessionOptions(device="cuda"))
    return serve(tmp_path_factory.mktemp("gpu") / "run.qmt", options).capture


def test_the_balances_of_a_served_run_close(served: Capture) -> None:
    report = attribute(served, "run")
    assert report.balance.failures() == ()
    assert report.balance.time[0].unassigned_share < 0.01
    assert report.totals.num_finished == 8
    assert report.totals.energy_gross_j.value is not None
    assert report.totals.energy_gross_j.value > 0


def test_every_step_is_bounded_by_its_markers_on_the_device(served: Capture) -> None:
    spans = step_spans(served)
    assert len(served.steps) > 0
    assert spans.is_on_device.all()
    assert np.all(np.diff(spans.start_ns) > 0)


def test_device_stamps_are_on_the_clock_of_the_host(served: Capture) -> None:
    spans = step_spans(served)
    assert np.all(spans.start_ns >= served.steps.start_ns - 100_000)
    assert np.all(spans.end_ns <= served.steps.end_ns + 100_000)


def test_the_energy_counter_rises_and_its_edges_are_bracketed(served: Capture) -> None:
    energy = served.energy
    assert len(energy) > 1
    assert np.all(np.diff(energy.energy_uj) >= 0)
    assert np.all(energy.low_ns < energy.high_ns)


def test_nodes_of_cuda_graphs_are_traced(tmp_path: Path) -> None:
    with qmeter_native.trace(tmp_path / "run.qmt", device="cuda"):
        values = torch.ones(1024, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(10):
                values.mul_(1.0001)
        for _ in range(5):
            graph.replay()
        torch.cuda.synchronize()
    kernels = read_capture(tmp_path / "run.qmt").kernels
    nodes = kernels.graph != 0
    assert nodes.sum() == 50
    assert len(np.unique(kernels.graph_node[nodes])) == 10


def test_a_second_profiler_is_named_and_energy_is_still_measured(tmp_path: Path) -> None:
    program = f"""
        import qmeter_native, torch
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]):
            torch.ones(8, device="cuda").sum().item()
            with qmeter_native.trace({str(tmp_path / "run.qmt")!r}, device="cuda"):
                torch.ones(8, device="cuda").sum().item()
    """  # in a process of its own, because torch keeps its subscription to the end of the process
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
    manifest = read_capture(tmp_path / "run.qmt").manifest
    (entry,) = [entry for entry in manifest.validity if entry.code == "kernels_absent"]
    assert "torch" in entry.message or "kineto" in entry.message.lower()
    assert manifest.devices[0].energy_source is not None


def test_tracing_ends_without_a_trace_in_the_program(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with qmeter_native.trace(tmp_path / f"{name}.qmt", device="cuda"):
            torch.ones(8, device="cuda").sum().item()
        assert len(read_capture(tmp_path / f"{name}.qmt").kernels) > 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        torch.ones(8, device="cuda").sum().item()
    assert any(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())
