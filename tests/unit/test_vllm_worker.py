"""The worker of vLLM: which of its calls become steps, how they are marked, and what it survives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmeter_native.storage.spool import read_spool
from tests import vllm_stubs as vllm


def started(ours: Any, **changes: Any) -> Any:
    """A worker that is ready to serve."""
    worker = ours.worker.QmeterWorker(vllm.vllm_config(**changes))
    worker.init_device()
    assert worker.compile_or_warm_up_model() == "times"
    return worker


def run(worker: Any, output: Any) -> None:
    if worker.execute_model(output) is None:
        assert worker.sample_tokens(None) == "output"


def test_each_execute_and_sample_is_one_step_between_two_markers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    worker = started(ours)
    run(worker, vllm.new("a", prompt=3, scheduled=3))
    run(worker, vllm.cached(a=(3, 1)))
    worker.shutdown()
    contents = vllm.spool(tmp_path)
    steps = contents.tables["steps"]
    assert ours.markers == [(vllm.STREAM, number) for number in range(4)]
    assert steps.step.tolist() == [0, 1]
    assert steps.device.tolist() == [1, 1]
    assert steps.num_markers.tolist() == [2, 2]
    assert steps.num_padded.tolist() == [4, 1]
    assert (steps.start_ns < steps.end_ns).all()
    assert contents.tables["step_requests"].num_scheduled.tolist() == [3, 1]


def test_the_engines_warm_up_and_batches_without_tokens_are_no_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    worker = started(ours)
    run(worker, vllm.SchedulerOutput())
    worker.shutdown()
    assert worker.calls == ["execute_model", "sample_tokens", "execute_model", "shutdown"]
    assert ours.markers == []
    assert len(vllm.spool(tmp_path).tables["steps"]) == 0


def test_an_engine_that_warms_up_again_goes_on_with_its_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    worker = started(ours)
    run(worker, vllm.new("a", prompt=3, scheduled=3))
    worker.compile_or_warm_up_model()
    run(worker, vllm.cached(a=(3, 1)))
    worker.shutdown()
    contents = vllm.spool(tmp_path)
    assert contents.tables["steps"].step.tolist() == [0, 1]
    assert contents.tables["step_requests"].request.tolist() == [0, 0]
    assert [number for _, number in ours.markers] == [0, 1, 2, 3]
    assert vllm.notes(contents) == []


def test_a_batch_that_yields_its_output_at_once_is_a_whole_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    worker = started(ours)
    monkeypatch.setattr(vllm.Worker, "execute_model", lambda self, output: "pooled")
    run(worker, vllm.new("a", prompt=3, scheduled=3))
    worker.shutdown()
    assert [number for _, number in ours.markers] == [0, 1]
    assert vllm.spool(tmp_path).tables["steps"].num_padded.tolist() == [-1]


def test_a_step_that_is_never_sampled_ends_where_the_next_one_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    worker = started(ours)
    worker.execute_model(vllm.new("a", prompt=3, scheduled=3))
    run(worker, vllm.cached(a=(3, 1)))
    worker.shutdown()
    assert [number for _, number in ours.markers] == [0, 1, 2, 3]
    assert vllm.spool(tmp_path).tables["steps"].step.tolist() == [0, 1]


def test_without_the_injected_library_steps_are_recorded_and_nothing_is_launched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path, is_injected=False)
    worker = started(ours)
    run(worker, vllm.new("a", prompt=3, scheduled=3))
    worker.shutdown()
    assert ours.markers == []
    assert vllm.spool(tmp_path).tables["steps"].num_markers.tolist() == [0]


def test_markers_that_are_refused_leave_the_steps_and_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = vllm.install(monkeypatch, tmp_path, refused_marker=2)
    worker = started(ours)
    run(worker, vllm.new("a", prompt=3, scheduled=3))
    run(worker, vllm.cached(a=(3, 1)))
    worker.shutdown()
    contents = vllm.spool(tmp_path)
    assert contents.tables["steps"].num_markers.tolist() == [2, 0]
    assert vllm.notes(contents) == ["markers_absent"]


def test_a_fault_of_the_recorder_ends_recording_with_one_note_and_serving_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    worker = started(ours)
    run(worker, vllm.new("a", prompt=3, scheduled=3))
    run(worker, vllm.cached(never_seen=(3, 1)))
    run(worker, vllm.cached(a=(3, 1)))
    worker.shutdown()
    contents = vllm.spool(tmp_path)
    assert worker.calls[2:] == ["execute_model", "sample_tokens"] * 3 + ["shutdown"]
    assert contents.tables["steps"].step.tolist() == [0]
    assert vllm.notes(contents) == ["engine_recording_failed"]
    assert "never_seen" in contents.stats["engine"]["validity"][0]["message"]


def test_a_fault_of_vllm_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker = started(vllm.install(monkeypatch, tmp_path))

    def fail(self: Any, output: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vllm.Worker, "execute_model", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        worker.execute_model(vllm.new("a", prompt=3, scheduled=3))
    worker.shutdown()


def test_outside_a_capture_a_worker_is_vllms_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    monkeypatch.delenv("QMETER_SPOOL_DIR")
    worker = started(ours)
    run(worker, vllm.new("a", prompt=3, scheduled=3))
    worker.shutdown()
    assert list(tmp_path.iterdir()) == []
    assert ours.markers == []


def test_a_spool_that_cannot_be_written_leaves_the_worker_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker = started(vllm.install(monkeypatch, tmp_path / "absent"))
    run(worker, vllm.new("a", prompt=3, scheduled=3))
    worker.shutdown()
    assert worker.calls[2:] == ["execute_model", "sample_tokens", "shutdown"]


def test_the_spool_says_who_wrote_it_and_what_ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    parallel = vllm.SimpleNamespace(tensor_parallel_size=2, data_parallel_size=2, data_parallel_index=1, world_size=2)
    worker = ours.worker.QmeterWorker(vllm.vllm_config(parallel_config=parallel), rank=1)
    worker.init_device()
    worker.compile_or_warm_up_model()
    worker.shutdown()
    contents = vllm.spool(tmp_path)
    assert contents.identity["role"] == "engine"
    assert contents.identity["rank"] == 3
    stats = contents.stats["engine"]
    assert (stats["device_uuid"], stats["tensor_parallel"]) == (f"GPU-{vllm.UUID}", 2)
    assert stats["engine"]["effective"]["linear_kernels"] == {"MacheteLinearKernel": 3}
    assert stats["engine"]["effective"]["attention_backends"] == ["FLASH_ATTN"]
    assert stats["validity"] == []


def test_an_untested_version_is_recorded_with_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker = started(vllm.install(monkeypatch, tmp_path, version="0.27.1"))
    run(worker, vllm.new("a", prompt=3, scheduled=3))
    worker.shutdown()
    contents = vllm.spool(tmp_path)
    (note,) = contents.stats["engine"]["validity"]
    assert note["code"] == "untested_vllm"
    assert "0.27.1" in note["message"]
    assert "0.26.x" in note["message"]
    assert len(contents.tables["steps"]) == 1


def test_a_worker_without_a_needed_method_is_not_recorded_and_says_which(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path, version="0.30.0")
    worker = ours.worker.QmeterWorker(vllm.vllm_config())
    worker.init_device()
    monkeypatch.setattr(vllm.Worker, "compile_or_warm_up_model", lambda self: "times")
    monkeypatch.delattr(vllm.Worker, "sample_tokens")
    worker.compile_or_warm_up_model()
    worker.execute_model(vllm.new("a", prompt=3, scheduled=3))
    worker.shutdown()
    contents = vllm.spool(tmp_path)
    assert vllm.notes(contents) == ["vllm_hook_missing"]
    assert "sample_tokens" in contents.stats["engine"]["validity"][0]["message"]
    assert len(contents.tables["steps"]) == 0


@pytest.mark.parametrize(
    ("scheduler_cls", "expected"), [(None, 1), ("qmeter_native.engines.vllm.scheduler.QmeterScheduler", 0)]
)
def test_preemptions_are_the_workers_only_where_the_scheduler_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheduler_cls: str | None, expected: int
) -> None:
    worker = started(vllm.install(monkeypatch, tmp_path), scheduler_cls=scheduler_cls)
    run(worker, vllm.batch(vllm.new("a", 3, 3), vllm.new("b", 2, 2)))
    run(worker, vllm.batch(vllm.cached(a=(3, 1)), preempted_req_ids={"b"}))
    worker.shutdown()
    assert len(vllm.spool(tmp_path).tables["preemptions"]) == expected


def test_a_second_engine_in_the_same_process_has_its_own_spool_and_further_step_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = vllm.install(monkeypatch, tmp_path)
    for name in ("a", "b"):
        worker = started(ours)
        run(worker, vllm.new(name, prompt=3, scheduled=3))
        worker.shutdown()
    first, second = sorted(tmp_path.iterdir())
    assert (first.stem[-8:], second.stem[-8:]) == ("-engine0", "-engine1")
    assert [read_spool(path).tables["steps"].step.tolist() for path in (first, second)] == [[0], [1]]
