"""The scheduler of vLLM: stamps of requests, whichever way they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmeter_native.model.table import Table
from qmeter_native.units import s_to_ns
from tests import vllm_stubs as vllm

ARRIVAL_S = 1_700_000_000.25


def scheduler_of(ours: Any, **changes: Any) -> Any:
    return ours.scheduler.QmeterScheduler(vllm_config=vllm.vllm_config(**changes))


def step(scheduler: Any, output: vllm.SchedulerOutput, tokens: dict[str, int]) -> None:
    """Schedule a batch and process its output."""
    scheduler.next_output = output
    assert scheduler.update_from_output(scheduler.schedule(), tokens) == "outputs"


def rows(table: Any) -> list[dict[str, Any]]:
    names = [spec.name for spec in type(table).columns()]
    return [
        dict(zip(names, values, strict=True))
        for values in zip(*(getattr(table, name).tolist() for name in names), strict=True)
    ]


def finished(folder: Path) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Engine requests, and the ids behind their numbers."""
    tables: dict[str, Table] = vllm.spool(folder).tables
    names = {row["request"]: row["name"] for row in rows(tables["request_ids"])}
    return rows(tables["engine_requests"]), names


def test_a_request_is_recorded_when_it_has_finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scheduler = scheduler_of(vllm.install(monkeypatch, tmp_path))
    scheduler.add_request(vllm.Request("cmpl-x-0-1a2b3c4d", ARRIVAL_S, num_prompt_tokens=40))
    step(scheduler, vllm.new("cmpl-x-0-1a2b3c4d", 40, 4, computed=32), {})
    step(scheduler, vllm.SchedulerOutput(), {"cmpl-x-0-1a2b3c4d": 1})
    step(scheduler, vllm.SchedulerOutput(), {"cmpl-x-0-1a2b3c4d": -1})
    scheduler.shutdown()
    assert scheduler.is_shut_down
    (request,), names = finished(tmp_path)
    assert names == {0: "cmpl-x-0-1a2b3c4d"}
    assert request["arrival_ns"] == s_to_ns(ARRIVAL_S)
    assert request["arrival_ns"] < request["first_schedule_ns"] <= request["first_token_ns"] < request["finish_ns"]
    counts = ("num_prompt_tokens", "num_cached_tokens", "num_output_tokens", "is_finished", "reason")
    assert [request[name] for name in counts] == [40, 32, 2, True, "length"]


def test_a_request_that_yields_one_token_has_its_first_stamp_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scheduler = scheduler_of(vllm.install(monkeypatch, tmp_path))
    scheduler.add_request(vllm.Request("a", ARRIVAL_S))
    step(scheduler, vllm.new("a", 4, 4), {"a": -1})
    scheduler.shutdown()
    (request,), _ = finished(tmp_path)
    assert request["first_token_ns"] == request["finish_ns"] > 0


def test_aborted_and_unfinished_requests_are_not_finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scheduler = scheduler_of(vllm.install(monkeypatch, tmp_path))
    for name in ("waiting", "running", "aborted"):
        scheduler.add_request(vllm.Request(name, ARRIVAL_S))
    step(scheduler, vllm.batch(vllm.new("running", 4, 4), vllm.new("aborted", 4, 4)), {"running": 1, "aborted": 1})
    assert scheduler.finish_requests("aborted", "abort") == ["aborted"]
    scheduler.schedule()
    scheduler.shutdown()
    requests, names = finished(tmp_path)
    found = {names[row["request"]]: row for row in requests}
    assert {name: (row["is_finished"], row["reason"]) for name, row in found.items()} == {
        "aborted": (False, "abort"),
        "waiting": (False, ""),
        "running": (False, ""),
    }
    assert found["aborted"]["finish_ns"] > 0
    assert found["running"]["first_token_ns"] > 0
    assert found["running"]["finish_ns"] == 0
    assert found["waiting"]["first_schedule_ns"] == 0


def test_preemption_is_stamped_and_resuming_keeps_the_first_schedule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scheduler = scheduler_of(vllm.install(monkeypatch, tmp_path))
    scheduler.add_request(vllm.Request("a", ARRIVAL_S))
    step(scheduler, vllm.new("a", 4, 4), {"a": 1})
    step(scheduler, vllm.SchedulerOutput(preempted_req_ids={"a", "gone"}), {})
    step(scheduler, vllm.new("a", 4, 5, outputs=1, computed=2), {"a": -1})
    scheduler.shutdown()
    contents = vllm.spool(tmp_path)
    (preemption,) = rows(contents.tables["preemptions"])
    (request,), _ = finished(tmp_path)
    assert request["first_schedule_ns"] < preemption["time_ns"] < request["finish_ns"]
    assert preemption["request"] == request["request"]
    assert request["num_cached_tokens"] == 0


def test_more_input_of_a_live_request_is_no_new_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scheduler = scheduler_of(vllm.install(monkeypatch, tmp_path))
    scheduler.add_request(vllm.Request("a", ARRIVAL_S))
    scheduler.add_request(vllm.Request("a", ARRIVAL_S + 1))
    step(scheduler, vllm.new("a", 4, 4), {"a": -1})
    scheduler.shutdown()
    requests, names = finished(tmp_path)
    assert (len(requests), names) == (1, {0: "a"})


@pytest.mark.parametrize("is_async", [True, False])
def test_the_scheduler_is_the_one_that_vllm_would_have_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_async: bool
) -> None:
    scheduler = scheduler_of(vllm.install(monkeypatch, tmp_path), async_scheduling=is_async)
    assert isinstance(scheduler, vllm.AsyncScheduler) == is_async
    assert isinstance(scheduler, vllm.Scheduler)
    scheduler.shutdown()


def test_outside_a_capture_a_scheduler_records_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    monkeypatch.delenv("QMETER_SPOOL_DIR")
    scheduler = scheduler_of(ours)
    scheduler.add_request(vllm.Request("a", ARRIVAL_S))
    step(scheduler, vllm.new("a", 4, 4), {"a": -1})
    scheduler.shutdown()
    assert scheduler.is_shut_down
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_recorder_leaves_the_scheduler_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scheduler = scheduler_of(vllm.install(monkeypatch, tmp_path))
    scheduler.add_request(vllm.Request("a", ARRIVAL_S))
    scheduler.add_request(vllm.Request("b", None))  # type: ignore[arg-type]
    step(scheduler, vllm.batch(vllm.new("a", 4, 4), vllm.new("b", 4, 4)), {"a": 1, "b": -1})
    step(scheduler, vllm.SchedulerOutput(), {"a": -1})
    scheduler.shutdown()
    assert scheduler.is_shut_down
    assert vllm.notes(vllm.spool(tmp_path)) == ["engine_recording_failed"]


def test_worker_and_scheduler_of_one_process_share_a_spool_until_both_have_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    worker = ours.worker.QmeterWorker(vllm.vllm_config())
    worker.init_device()
    worker.compile_or_warm_up_model()
    scheduler = scheduler_of(ours)
    scheduler.add_request(vllm.Request("a", ARRIVAL_S))
    scheduler.next_output = vllm.new("a", 4, 4)
    output = scheduler.schedule()
    worker.execute_model(output)
    worker.sample_tokens(None)
    worker.shutdown()
    scheduler.update_from_output(output, {"a": -1})
    scheduler.shutdown()
    contents = vllm.spool(tmp_path)
    assert contents.tables["request_ids"].name.tolist() == ["a", "a"]
    assert len(contents.tables["step_requests"]) == len(contents.tables["engine_requests"]) == 1
    assert contents.stats["engine"]["device_uuid"] == f"GPU-{vllm.UUID}"
    assert "linear_kernels" in contents.stats["engine"]["engine"]["effective"]
