"""Traced serving runs on a CPU, with the smallest model shape."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from qmeter_native.attribution.report import attribute
from qmeter_native.capture.driving import RunPhase, RunStatus
from qmeter_native.capture.serving import ExternalOptions, ServingOptions, ServingResult, serve, serve_external
from qmeter_native.capture.session import SessionOptions
from qmeter_native.engines.openai_server import OpenAIServer as Address
from qmeter_native.engines.options import EngineOptions
from qmeter_native.errors import EngineError
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.phase import Phase
from qmeter_native.workload.workload import Workload
from tests.openai_server import OpenAIServer, ServerOptions


def options(workload: Workload, model: str = "shape:tiny") -> ServingOptions:
    pytest.importorskip("torch")
    engine = EngineOptions(model, device="cpu", max_context_len=workload.context_len)
    return ServingOptions(engine, workload, SessionOptions(device="cpu"), idle_s=0.0)


def test_a_run_records_every_token_step_and_operator(tmp_path: Path) -> None:
    workload = Workload(num_requests=3, input_len=20, output_len=6)
    seen: list[RunStatus] = []
    result = serve(tmp_path / "run.qmt", options(workload), observe=seen.append)
    capture = result.capture
    assert result.failure is None
    assert capture.manifest.loss.total == 0
    assert capture.requests.is_finished.all()
    assert capture.output_tokens.num_tokens.sum() == 3 * 6
    # The last token of an answer is sampled and never computed upon.
    assert capture.step_requests.num_scheduled.sum() == 3 * (20 + 6 - 1)
    assert capture.step_requests.num_sampled.sum() == 3 * 6
    assert set(capture.step_requests.phase.tolist()) == {Phase.PREFILL, Phase.DECODE}
    manifest = capture.manifest
    assert manifest.engine is not None
    assert manifest.engine.requested["model"] == "shape:tiny"
    assert manifest.engine.effective["device"] == "cpu"
    inside = (capture.kernels.start_ns >= capture.steps.start_ns.min()) & (
        capture.kernels.end_ns <= capture.steps.end_ns.max()
    )
    kinds = capture.kernel_classes.kind[capture.kernels.class_id[inside]]
    assert len(kinds) > 0
    assert np.all(kinds == ActivityKind.OPERATOR)
    assert manifest.tracer["num_operators"] == len(capture.kernels)
    assert [phase for phase in RunPhase if phase in {status.phase for status in seen}] == [
        RunPhase.LOADING,
        RunPhase.WARM_UP,
        RunPhase.SERVING,
        RunPhase.WRITING,
    ]


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    stop = threading.Event()

    def interrupt(status: RunStatus) -> None:
        if status.progress is not None and status.progress.num_output_tokens > 0:
            stop.set()

    workload = Workload(num_requests=2, input_len=16, output_len=400)
    result = serve(tmp_path / "run.qmt", options(workload), stop=stop, observe=interrupt)
    assert result.failure is None
    assert "interrupted" in [entry.code for entry in result.capture.manifest.validity]
    assert 0 < result.capture.output_tokens.num_tokens.sum() < 2 * 400
    assert not result.capture.requests.is_finished.any()
    assert len(result.capture.steps) > 0


def test_an_engine_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        serve(tmp_path / "run.qmt", options(Workload(), model="shape:no-such-model"))
    assert not (tmp_path / "run.qmt").exists()


def external(server: OpenAIServer, workload: Workload) -> ExternalOptions:
    return ExternalOptions(server.base_url, workload, session=SessionOptions(device="cpu"), idle_s=0.0)


def codes(result: ServingResult) -> set[str]:
    return {entry.code for entry in result.capture.manifest.validity}


def test_a_server_that_runs_already_is_measured_by_its_clients(tmp_path: Path) -> None:
    workload = Workload(num_requests=5, input_len=20, output_len=6)
    seen: list[RunStatus] = []
    with OpenAIServer() as server:
        result = serve_external(tmp_path / "run.qmt", external(server, workload), observe=seen.append)
        sent = {request.headers["x-request-id"] for request in server.received}
    capture = result.capture
    assert result.failure is None
    assert capture.requests.num_output_tokens.tolist() == [6] * 5
    assert set(capture.requests.name) <= sent
    assert capture.output_tokens.num_tokens.sum() == 5 * 6
    assert len(capture.kernels) == len(capture.steps) == 0
    assert capture.manifest.engine is not None
    assert capture.manifest.engine.name == "openai"
    assert capture.manifest.measure_start_ns <= capture.requests.send_ns.min()
    assert capture.manifest.workload["read_lag_max_s"] is None or capture.manifest.workload["read_lag_max_s"] >= 0
    assert "kernels_absent" in codes(result)
    time = attribute(capture, "run.qmt").balance.time[0]
    assert time.untraced_ns == time.wall_ns > 0
    assert RunPhase.WAITING in {status.phase for status in seen}


def test_the_energy_of_a_server_on_another_host_is_not_that_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Address, "is_local", False)
    with OpenAIServer() as server:
        result = serve_external(tmp_path / "run.qmt", external(server, Workload(num_requests=1)))
    assert "remote_server" in codes(result)
    assert [device.energy_source for device in result.capture.manifest.devices] == [None]
    assert "another host" in (result.capture.manifest.devices[0].energy_absent_reason or "")
    assert len(result.capture.energy) == 0


def test_a_server_that_fails_in_mid_run_leaves_a_capture_that_says_so(tmp_path: Path) -> None:
    with OpenAIServer(ServerOptions(fault="cut", fault_from=5)) as server:
        result = serve_external(tmp_path / "run.qmt", external(server, Workload(num_requests=3, output_len=5)))
    assert result.failure is not None
    assert "engine_failed" in codes(result)
    assert result.capture.requests.is_finished.sum() == 2
    assert result.capture.requests.num_output_tokens.sum() == 5 + 5 + 2


def test_a_server_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        gone = external(server, Workload())
    with pytest.raises(EngineError, match="no server answers"):
        serve_external(tmp_path / "run.qmt", gone)
    assert not (tmp_path / "run.qmt").exists()
