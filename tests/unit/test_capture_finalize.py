"""Spools of many processes become one capture."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.capture.finalize import finalize, is_unfinished
from qmeter_native.capture.open import open_capture
from qmeter_native.capture.session_state import SessionState
from qmeter_native.errors import CaptureError, CaptureNotFoundError
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.storage import read_capture
from qmeter_native.storage.spool_records import RecordKind
from tests.factories import T0, device
from tests.spools import SpoolFile

S = 1_000_000_000


def state(**changes: Any) -> SessionState:
    values: dict[str, Any] = {"measure_start_ns": T0 + 10 * S, "measure_end_ns": T0 + 50 * S, "end_ns": T0 + 60 * S}
    gpus = [device(0, uuid="GPU-a"), device(1, uuid="GPU-b")]
    return SessionState(T0, gpus, **{**values, "cuda_devices": [0, 1], **changes})


def launcher(**changes: Any) -> SpoolFile:
    return SpoolFile().identity(10, command="qmeter-native trace").session(state(**changes))


def injected(pid: int, *kernel_starts: int, **stats: Any) -> SpoolFile:
    spool = SpoolFile().identity(pid, role="cuda", command="python serve.py").strings(s1="gemm")
    spool.records(RecordKind.CLASS, {"class_id": 0, "name": 1, "kind": ActivityKind.KERNEL})
    if kernel_starts:
        spool.kernels(*(T0 + start for start in kernel_starts))
    defaults = {"error": None, "gpu_uuids": ["GPU-b"], "start_ns": T0, "end_ns": T0 + 60 * S, "control": "file"}
    return spool.stats("inject", **{**defaults, **stats}).stats("spool", error=None)


def engine_spool(pid: int, **identity: Any) -> SpoolFile:
    return SpoolFile().identity(pid, role="engine", **identity).stats("spool", error=None)


def window(spool: SpoolFile, start: int, end: int) -> SpoolFile:
    return spool.records(RecordKind.TRACE_WINDOW, {"start_ns": T0 + start, "end_ns": T0 + end})


def step(spool: SpoolFile, number: int, start: int, *requests: int) -> SpoolFile:
    spool.records(RecordKind.STEP, {"step": number, "start_ns": T0 + start, "end_ns": T0 + start + 9, "num_padded": 64})
    return spool.records(RecordKind.STEP_REQUEST, *({"step": number, "request": request} for request in requests))


def put(path: Path, **spools: SpoolFile) -> Path:
    (path / "spool").mkdir(parents=True)
    for name, spool in spools.items():
        spool.write(path / "spool" / f"{name}.qms")
    return path


def finalized(path: Path, **spools: SpoolFile) -> Capture:
    finalize(put(path, **spools))
    return read_capture(path)


def codes(capture: Capture) -> list[tuple[str, str]]:
    return [(entry.code, entry.subject) for entry in capture.manifest.validity]


def test_a_server_of_two_processes_with_a_plugin_is_one_capture(tmp_path: Path) -> None:
    client = launcher(engine=EngineInfo("vllm", "", "m", {"dtype": "auto"})).strings(s1="qm-1", s2="qm-2")
    client.records(RecordKind.REQUEST, {"request": 0, "name": 1}, {"request": 1, "name": 2})
    client.records(RecordKind.OUTPUT_TOKEN, {"request": 1, "time_ns": T0 + 30 * S})
    cuda = window(window(injected(20, 12 * S, 11 * S), 1 * S, 2 * S), 2 * S, 60 * S)
    plugin = engine_spool(20, rank=0).strings(s1="cmpl-qm-2-0-ff", s2="cmpl-qm-1-0-ee")
    plugin.records(RecordKind.REQUEST_ID, {"request": 5, "name": 1}, {"request": 6, "name": 2})
    step(plugin, 0, 11 * S, 5, 6)
    plugin.records(RecordKind.ENGINE_REQUEST, {"request": 5, "arrival_ns": T0 + 20 * S, "reason": 0})
    plugin.records(RecordKind.PREEMPTION, {"request": 6, "time_ns": T0 + 21 * S})
    engine = {"name": "vllm", "version": "0.26.0", "model": "m", "effective": {"dtype": "bfloat16"}}
    plugin.stats("engine", engine=engine, device_uuid="GPU-b", tensor_parallel=1, validity=[])
    capture = finalized(tmp_path / "run.qmt", a=client, b=cuda, c=plugin)

    manifest = capture.manifest
    assert [(info.index, info.pid, info.rank) for info in manifest.processes] == [(0, 10, None), (1, 20, 0)]
    assert manifest.engine == EngineInfo(
        "vllm", "0.26.0", "m", {"dtype": "auto"}, {"dtype": "bfloat16", "tensor_parallel": 1}
    )
    assert capture.kernels.start_ns.tolist() == [T0 + 11 * S, T0 + 12 * S]
    assert capture.kernels.device.tolist() == capture.steps.device.tolist() * 2 == [1, 1]
    assert capture.kernels.process.tolist() == capture.steps.process.tolist() * 2 == [1, 1]
    assert capture.steps.num_padded.tolist() == [64]
    assert capture.requests.name.tolist() == ["qm-1", "qm-2"]
    assert capture.step_requests.request.tolist() == [1, 0]
    assert capture.engine_requests.request.tolist() == capture.output_tokens.request.tolist() == [1]
    assert capture.preemptions.request.tolist() == [0]
    assert capture.trace_windows.start_ns.tolist() == [T0 + 1 * S]
    assert capture.trace_windows.end_ns.tolist() == [T0 + 60 * S]
    assert manifest.tracer["control"] == "file"
    assert codes(capture) == []
    assert not is_unfinished(tmp_path / "run.qmt")
    assert not (tmp_path / "run.qmt" / "spool").exists()


def test_a_spool_whose_process_lives_is_read_and_left_to_it(tmp_path: Path) -> None:
    path = put(tmp_path / "run.qmt", a=launcher(), b=window(injected(20, 12 * S), 0, 60 * S))
    (path / "spool" / "control").write_bytes(b"x")
    living = path / "spool" / "b.qms"
    with living.open("ab") as writer:
        writer.write(b"QMSB half of a block")
        writer.flush()
        fcntl.flock(writer, fcntl.LOCK_EX)
        with pytest.raises(CaptureError, match="still being recorded"):
            open_capture(path)
        finalize(path)
    capture = open_capture(path)
    assert len(capture.kernels) == 1
    assert codes(capture) == [("outlived", "process 1")]
    assert capture.manifest.loss.spool_blocks_lost == 0
    assert sorted(file.name for file in (path / "spool").iterdir()) == ["b.qms", "control"]


def test_a_spool_that_the_caller_has_closed_is_finished_though_a_child_holds_its_lock(tmp_path: Path) -> None:
    path = put(tmp_path / "run.qmt", a=launcher())
    with (path / "spool" / "a.qms").open("ab") as child:
        fcntl.flock(child, fcntl.LOCK_EX)
        finalize(path, {"a.qms": {}})
    assert codes(read_capture(path)) == []
    assert not is_unfinished(path)


def test_a_tail_torn_by_a_kill_is_a_lost_block(tmp_path: Path) -> None:
    path = put(tmp_path / "run.qmt", a=launcher(), b=injected(20, 12 * S))
    with (path / "spool" / "b.qms").open("ab") as writer:
        writer.write(b"QMSB half of a block")
    finalize(path)
    assert read_capture(path).manifest.loss.spool_blocks_lost == 1


def test_a_process_that_did_not_close_its_spool_is_named_once(tmp_path: Path) -> None:
    spools = {name: SpoolFile().identity(20, role=role) for name, role in (("b", "cuda"), ("c", "engine"))}
    capture = finalized(tmp_path / "run.qmt", a=launcher(), d=engine_spool(21), **spools)
    assert codes(capture) == [("spool_cut_off", "process 1")]


def test_a_process_without_space_for_a_single_block_is_noted(tmp_path: Path) -> None:
    capture = finalized(tmp_path / "run.qmt", a=launcher(), b=SpoolFile())
    assert codes(capture) == [("spool_cut_off", "process 1")]
    assert not (tmp_path / "run.qmt" / "spool").exists()


def test_a_session_that_was_killed_is_recovered_and_no_more_is_said(tmp_path: Path) -> None:
    capture = finalized(tmp_path / "run.qmt", a=launcher(end_ns=0))
    assert codes(capture) == [("recovered", "")]


def test_an_injection_that_failed_says_why_and_was_never_traced(tmp_path: Path) -> None:
    failed = step(injected(20, error="CUPTI is taken by nsys"), 0, 20 * S)
    capture = finalized(tmp_path / "run.qmt", a=launcher(), b=failed)
    assert codes(capture) == [("injection_failed", "process 1")]
    assert "taken by nsys" in capture.manifest.validity[0].message
    assert capture.trace_windows.start_ns.tolist() == capture.trace_windows.end_ns.tolist() == [T0]


@pytest.mark.parametrize(
    ("first_window", "first_step", "is_late"), [(0, 5 * S, False), (3 * S, 5 * S, True), (S // 2, S // 4, True)]
)
def test_tracing_that_began_after_the_process_is_noted(
    tmp_path: Path, first_window: int, first_step: int, is_late: bool
) -> None:
    spool = step(window(injected(20, 12 * S), first_window, 60 * S), 0, first_step)
    capture = finalized(tmp_path / "run.qmt", a=launcher(), b=spool)
    assert codes(capture) == ([("late_tracing", "process 1")] if is_late else [])


def test_tracing_that_was_never_switched_on_is_noted(tmp_path: Path) -> None:
    capture = finalized(tmp_path / "run.qmt", a=launcher(), b=injected(20))
    assert codes(capture) == [("late_tracing", "process 1")]


def test_a_killed_process_was_traced_until_its_last_kernel(tmp_path: Path) -> None:
    capture = finalized(tmp_path / "run.qmt", a=launcher(), b=window(injected(20, 12 * S, end_ns=0), 0, 11 * S))
    assert capture.trace_windows.end_ns.tolist() == [T0 + 12 * S + 1]


def test_without_clients_latencies_are_the_engines(tmp_path: Path) -> None:
    plugin = engine_spool(20).strings(s1="cmpl-x")
    plugin.records(RecordKind.REQUEST_ID, {"request": 0, "name": 1})
    plugin.records(RecordKind.ENGINE_REQUEST, {"request": 0, "arrival_ns": T0 + 20 * S, "finish_ns": T0 + 21 * S})
    note = {"code": "untested_version", "message": "vLLM 9", "subject": ""}
    engine = {"name": "vllm", "version": "9", "model": "m"}
    plugin.stats("engine", engine=engine, device_uuid=None, tensor_parallel=1, validity=[note, note])
    capture = finalized(tmp_path / "run.qmt", a=launcher(), b=plugin)
    assert codes(capture) == [("untested_version", ""), ("engine_stamps", "")]
    assert capture.requests.name.tolist() == ["cmpl-x"]
    assert capture.requests.send_ns.tolist() == [T0 + 20 * S]


@pytest.mark.parametrize(("arrival", "is_noted"), [(5 * S, False), (20 * S, True)])
def test_requests_that_no_client_sent_are_noted_if_they_came_while_it_was_measured(
    tmp_path: Path, arrival: int, is_noted: bool
) -> None:
    client = launcher().strings(s1="qm-0").records(RecordKind.REQUEST, {"request": 0, "name": 1})
    plugin = engine_spool(20).strings(s1="cmpl-qm-warmup-0", s2="cmpl-qm-0-ff")
    plugin.records(RecordKind.REQUEST_ID, {"request": 0, "name": 1}, {"request": 1, "name": 2})
    plugin.records(RecordKind.ENGINE_REQUEST, {"request": 0, "arrival_ns": T0 + arrival})
    capture = finalized(tmp_path / "run.qmt", a=client, b=step(plugin, 0, arrival, 0, 1))
    assert codes(capture) == ([("unsent_requests", "")] if is_noted else [])
    assert capture.requests.name.tolist() == ["qm-0", "cmpl-qm-warmup-0"]
    assert capture.step_requests.request.tolist() == [1, 0]


def test_a_step_of_the_clock_is_noted_once_for_its_host(tmp_path: Path) -> None:
    pairs = [{"realtime_ns": T0 + 20 * S, "monotonic_ns": 20 * S}, {"realtime_ns": T0 + 23 * S, "monotonic_ns": 21 * S}]
    spools = [spool.records(RecordKind.CLOCK_PAIR, *pairs) for spool in (launcher(), engine_spool(20))]
    capture = finalized(tmp_path / "run.qmt", a=spools[0], b=spools[1])
    assert codes(capture) == [("clock_step", "host host")]
    assert "forward by 2.000000 s, 20.0 s after the start" in capture.manifest.validity[0].message
    assert capture.clock_pairs.realtime_ns.tolist() == [T0 + 20 * S, T0 + 23 * S] * 2


def test_losses_of_all_processes_are_added_up(tmp_path: Path) -> None:
    tracer = {"dropped_records": 2, "zero_timestamps": 1, "kernels": 1}
    spools = [
        injected(pid, 12 * S).stats("kernel_tracer", **tracer).stats("spool", dropped_records=5) for pid in (20, 21)
    ]
    capture = finalized(tmp_path / "run.qmt", a=launcher(), b=spools[0], c=spools[1])
    loss = capture.manifest.loss
    assert (loss.dropped_records, loss.zero_timestamps, loss.spool_records_dropped) == (4, 2, 10)
    assert capture.manifest.tracer["kernels"] == 2


def test_a_disk_without_room_keeps_the_spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = put(tmp_path / "run.qmt", a=launcher(), b=injected(20, 12 * S))
    with monkeypatch.context() as patch:
        patch.setattr("qmeter_native.storage.table_files.write_table", full)
        with pytest.raises(CaptureError, match="No space left"):
            finalize(path)
    assert sorted(file.name for file in path.rglob("*")) == ["a.qms", "b.qms", "spool"]
    finalize(path)
    assert len(read_capture(path).kernels) == 1


def test_a_folder_without_spools_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureNotFoundError, match="no spool"):
        finalize(tmp_path)


PROCESS = st.lists(st.integers(0, 50), max_size=20)


@settings(deadline=None, max_examples=25)
@given(kernels=st.lists(PROCESS, max_size=4), rides=st.lists(st.integers(-2, 5), max_size=8), torn=st.booleans())
def test_rows_in_are_rows_out_and_counted_losses(
    tmp_path_factory: pytest.TempPathFactory, kernels: list[list[int]], rides: list[int], torn: bool
) -> None:
    path = tmp_path_factory.mktemp("merge") / "run.qmt"
    spools = {f"p{number}": injected(20 + number // 2, *starts) for number, starts in enumerate(kernels)}
    engine = engine_spool(20)
    for number, ride in enumerate(rides):
        step(engine, number, number, ride)
    put(path, a=launcher(), e=engine, **spools)
    is_torn = torn and bool(rides)  # else the torn block would be the only one, and the file no spool at all
    if is_torn:
        file = path / "spool" / "e.qms"
        file.write_bytes(file.read_bytes()[:-1])
    finalize(path)
    capture = read_capture(path)
    assert len(capture.kernels) == sum(map(len, kernels))
    assert sorted(capture.kernels.start_ns.tolist()) == sorted(T0 + start for starts in kernels for start in starts)
    assert len(capture.steps) == len(rides)
    assert len(capture.step_requests) == len(rides) - is_torn
    assert capture.manifest.loss.spool_blocks_lost == is_torn
    assert set(capture.step_requests.request.tolist()) == set(capture.requests.request.tolist())
    assert len(capture.manifest.processes) == 2 + (len(kernels) > 2)
