"""Statistics, processes, engines, devices and windows of several processes, merged."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.capture.device_map import device_of_uuid, kernel_devices, mapped_devices
from qmeter_native.capture.engine_merge import merge_engine
from qmeter_native.capture.process_merge import merge_processes
from qmeter_native.capture.session_state import SessionState
from qmeter_native.capture.stats_merge import MERGE_RULES, merged_stats
from qmeter_native.capture.trace_windows import join_windows
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.model.tables import KernelClassTable, TraceWindowTable
from qmeter_native.storage.spool import SpoolContents
from tests.factories import device


def spool(identity: dict[str, Any] | None = None, name: str = "a.qms", **stats: dict[str, Any]) -> SpoolContents:
    return SpoolContents(Path(name), identity or {}, {"kernel_classes": KernelClassTable.empty()}, stats)


def who(pid: int, **values: Any) -> dict[str, Any]:
    return {"host": "h", "boot_id": "b", "pid": pid, **values}


def test_counts_are_added_up_and_maxima_are_maxima() -> None:
    tracers = [
        {"name": "kernel_tracer", "kernels": 3, "buffers_in_use_max": 9, "error": None},
        {"name": "kernel_tracer", "kernels": 4, "buffers_in_use_max": 2, "error": "late", "new": 1},
    ]
    assert merged_stats([spool(kernel_tracer=each) for each in tracers], "kernel_tracer") == {
        "kernels": 7,
        "buffers_in_use_max": 9,
        "error": "late",
        "new": 1,
    }


def test_errors_are_counted_by_text_and_lost_devices_listed_once() -> None:
    samplers = [{"errors": {"a": 1, "b": 2}, "devices_lost": [1]}, {"errors": {"b": 3}, "devices_lost": [0, 1]}]
    merged = merged_stats([spool(energy_sampler=each) for each in samplers], "energy_sampler")
    assert merged == {"errors": {"a": 1, "b": 5}, "devices_lost": [0, 1]}


def test_a_collector_that_nobody_ran_has_no_statistics() -> None:
    assert merged_stats([spool(), spool(inject={"path": None})], "kernel_tracer") == {}
    assert merged_stats([spool(inject={"path": None})], "inject") == {"path": None}


def test_what_is_called_a_maximum_is_merged_as_one() -> None:
    for rules in MERGE_RULES.values():
        assert all(rule is max for key, rule in rules.items() if "max" in key)


def test_all_spools_of_a_pid_are_one_process_and_the_sessions_is_the_first() -> None:
    inject = {"gpu_uuids": ["GPU-1"], "clock_offset_count": 4}
    inject |= {"clock_offset_median_ns": -3, "clock_offset_min_ns": -9, "clock_offset_max_ns": 7}
    merged = merge_processes(
        [
            spool(who(20, role="cuda", command="python serve.py"), inject=inject),
            spool(who(20, role="engine", rank=1)),
            spool(who(10, command="qmeter-native trace"), session={}),
            spool(who(20, boot_id="other")),
            spool({}, "lost.qms"),
        ]
    )
    assert merged.of_spool == (1, 1, 0, 2, 3)
    assert [info.pid for info in merged.infos] == [10, 20, 20, 0]
    assert [info.index for info in merged.infos] == [0, 1, 2, 3]
    served = merged.infos[1]
    assert (served.rank, served.command, served.gpu_uuids) == (1, "python serve.py", ("GPU-1",))
    assert (served.clock_offset_ns, served.clock_offset_range_ns) == (-3, (-9, 7))
    assert merged.infos[0].clock_offset_ns is None


def test_a_clock_that_was_never_read_has_no_offset() -> None:
    inject = {"clock_offset_count": 0, "clock_offset_median_ns": None, "gpu_uuids": None}
    (info,) = merge_processes([spool(who(1), inject=inject)]).infos
    assert (info.gpu_uuids, info.clock_offset_ns) == ((), None)


def test_the_plugin_is_right_about_what_runs_and_the_session_about_what_was_asked() -> None:
    asked = EngineInfo("openai", "unknown", "m", {"dtype": "auto"}, {"dtype": "auto", "seed": 1}, "checkpoint")
    ran = {"name": "vllm", "version": "0.26.0", "model": "m", "effective": {"dtype": "bfloat16"}}
    merged = merge_engine(asked, [{"tensor_parallel": 2}, {"engine": {**ran, "weights_source": "dummy"}}])
    assert merged == EngineInfo(
        "vllm", "0.26.0", "m", {"dtype": "auto"}, {"dtype": "bfloat16", "seed": 1}, "checkpoint"
    )
    assert merge_engine(None, [{"engine": ran, "tensor_parallel": 2}]) == EngineInfo(
        "vllm", "0.26.0", "m", {}, {"dtype": "bfloat16", "tensor_parallel": 2}
    )
    assert merge_engine(asked, []) is asked
    assert merge_engine(None, []) is None


def test_a_process_says_itself_which_gpus_it_sees() -> None:
    state = SessionState(0, [device(0, uuid="GPU-a"), device(1, uuid="GPU-b")], cuda_devices=[0, 1])
    hidden = kernel_devices(spool(inject={"gpu_uuids": ["GPU-b", "GPU-elsewhere"]}), state)
    assert mapped_devices(np.array([0, 1, 5], "i2"), hidden).tolist() == [1, -1, -1]
    silent = kernel_devices(spool(inject={"gpu_uuids": None}), state)
    assert mapped_devices(np.array([1, 1], "i2"), silent).tolist() == [1, 1]
    assert device_of_uuid(state.devices, "") is None


PIECES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30), st.integers(0, 6)), max_size=12)


def windows(*pieces: tuple[int, int, int]) -> TraceWindowTable:
    process, start, length = np.array(pieces, np.int64).reshape(-1, 3).T
    return TraceWindowTable.from_columns(process=process, start_ns=start, end_ns=start + length)


def rows(table: TraceWindowTable) -> list[tuple[int, int, int]]:
    return list(zip(table.process.tolist(), table.start_ns.tolist(), table.end_ns.tolist(), strict=True))


def test_pieces_that_touch_are_one_window_and_a_killed_process_recorded_until_its_last_kernel() -> None:
    pieces = windows((0, 10, 5), (0, 0, 10), (1, 3, 4), (0, 20, 2))
    assert rows(join_windows(pieces, {0: 27, 1: 5, 2: 9})) == [(0, 0, 15), (0, 20, 27), (1, 3, 7)]


@given(PIECES)
def test_windows_cover_what_their_pieces_cover_and_never_touch(pieces: list[tuple[int, int, int]]) -> None:
    joined = rows(join_windows(windows(*pieces), {}))
    assert joined == sorted(joined)
    for (process, _, end), (following, start, _) in pairwise(joined):
        assert process != following or end < start
    covered = {(process, at) for process, start, length in pieces for at in range(start, start + length)}
    assert {(process, at) for process, start, end in joined for at in range(start, end)} == covered
