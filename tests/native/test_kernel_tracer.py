"""The kernel tracer on a fake libcupti: what it records, what it counts, and that it undoes what it did."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qmeter_native import _native
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.tables import KernelClassTable, KernelTable
from qmeter_native.storage.spool import read_spool
from tests.fakes.build import build_fake
from tests.fakes.fake_cupti import MEMCPY, MEMCPY2, MEMSET, RUNTIME, FakeCupti
from tests.native.trace_windows import windows_of


@dataclass
class Tracing:
    """Starts tracers on the fake and reads back what they wrote."""

    fake: FakeCupti
    path: Path
    tracers: list[_native.KernelTracer] = field(default_factory=list)
    spools: list[_native.Spool] = field(default_factory=list)

    def start(self, **options: Any) -> _native.KernelTracer:
        self.spools.append(_native.Spool(str(self.path), identity="{}"))
        self.tracers.append(_native.KernelTracer(self.spools[-1], cupti_path=self.fake.path, **options))
        return self.tracers[-1]

    def stop(self) -> None:
        for closable in (*self.tracers, *self.spools):
            closable.close()

    def captured(self) -> tuple[KernelTable, KernelClassTable, list[str]]:
        """Kernels, classes, and the class name of each kernel, after stopping."""
        self.stop()
        tables = read_spool(self.path).tables
        rows, classes = tables[KernelTable.NAME], tables[KernelClassTable.NAME]
        assert isinstance(rows, KernelTable)
        assert isinstance(classes, KernelClassTable)
        return rows, classes, [str(classes.name[class_id]) for class_id in rows.class_id]

    def windows(self) -> list[tuple[int, int]]:
        """Trace windows, after stopping."""
        self.stop()
        return windows_of(read_spool(self.path))


@pytest.fixture
def tracing(fake_cupti: FakeCupti, tmp_path: Path) -> Iterator[Tracing]:
    tracing = Tracing(fake_cupti, tmp_path / "spool")
    yield tracing
    tracing.stop()


def fault_of(**options: Any) -> tuple[str, str]:
    """Message and code with which a tracer refuses to start."""
    with pytest.raises(_native.NativeFault) as raised:
        _native.KernelTracer(None, **options)
    return raised.value.args


def assert_untouched(fake: FakeCupti) -> None:
    for name in ("subscribers", "kinds_enabled", "zeroed_buffers", "flush_period", "buffers_out"):
        assert fake.get(name) == 0, name


def test_a_kernel_is_recorded_with_all_that_the_table_holds(tracing: Tracing) -> None:
    tracing.start()
    tracing.fake.emit(
        name="_Z6scale8PfS_i",
        start=100,
        end=170,
        grid=(4, 3, 2),
        block=(128, 2, 1),
        static_shared=16,
        dynamic_shared=2048,
        registers=40,
        device=1,
        stream=7,
        graph=3,
        graph_node=55,
        correlation=9,
    )
    rows, classes, names = tracing.captured()
    assert names == ["scale8(float*, float*, int)"]
    assert (rows.start_ns[0], rows.end_ns[0], rows.device[0], rows.stream[0]) == (100, 170, 1, 7)
    assert (rows.graph[0], rows.graph_node[0], rows.correlation[0], rows.copied_bytes[0]) == (3, 55, 9, 0)
    launch = (classes.grid_x, classes.grid_y, classes.grid_z, classes.block_x, classes.block_y, classes.block_z)
    assert [int(column[0]) for column in launch] == [4, 3, 2, 128, 2, 1]
    resources = (classes.static_shared_bytes, classes.dynamic_shared_bytes, classes.registers, classes.kind)
    assert [int(column[0]) for column in resources] == [16, 2048, 40, ActivityKind.KERNEL]


@pytest.mark.parametrize("record_bytes", [208, 216, 248])
def test_records_of_any_cupti_version_are_decoded(tracing: Tracing, record_bytes: int) -> None:
    tracing.fake.set("kernel_record_bytes", record_bytes)
    tracer = tracing.start()
    tracing.fake.emit(count=1000, graph_node=1)
    tracer.flush()
    assert tracer.info()["record_bytes"] == record_bytes
    rows, _, _ = tracing.captured()
    assert rows.start_ns.tolist() == [1000 + 1000 * number for number in range(1000)]
    assert rows.graph_node.tolist() == list(range(1, 1001))


def test_copies_and_memsets_are_recorded_with_their_bytes(tracing: Tracing) -> None:
    tracer = tracing.start()
    for kind, copy_kind in ((MEMCPY, 1), (MEMCPY, 8), (MEMCPY, 99), (MEMCPY2, 10), (MEMSET, 0)):
        tracing.fake.emit(kind, copy_kind=copy_kind, bytes=4096, stream=5)
    rows, classes, names = tracing.captured()
    assert names == ["Memcpy HtoD", "Memcpy DtoD", "Memcpy", "Memcpy PtoP", "Memset"]
    assert rows.copied_bytes.tolist() == [4096] * 5
    assert [ActivityKind(kind) for kind in classes.kind[rows.class_id]] == [ActivityKind.MEMCPY] * 4 + [
        ActivityKind.MEMSET
    ]
    assert (tracer.stats()["memcpys"], tracer.stats()["memsets"], tracer.stats()["kernels"]) == (4, 1, 0)


def test_each_launch_configuration_is_a_class_of_its_own(tracing: Tracing) -> None:
    tracing.start()
    for _ in range(2):
        for number in range(3000):  # more than the class table begins with
            tracing.fake.emit(name="gemm", grid=(number, 1, 1))
            tracing.fake.emit(name="norm", grid=(number, 1, 1))
    rows, classes, names = tracing.captured()
    assert len(classes.name) == 6000
    assert names == ["gemm", "norm"] * 6000
    assert classes.grid_x[rows.class_id].tolist() == [number for _ in range(2) for number in range(3000) for _ in "ab"]


def test_a_name_pointer_that_is_reused_for_another_kernel_is_noticed(tracing: Tracing) -> None:
    tracer = tracing.start()
    place = ctypes.create_string_buffer(b"first", 32)
    tracing.fake.emit(name=place)
    tracer.flush()
    place.value = b"second"  # its module was unloaded, another was loaded at the same address
    tracing.fake.emit(name=place)
    tracer.flush()
    place.value = b"first"
    tracing.fake.emit(name=place)
    _, classes, names = tracing.captured()
    assert names == ["first", "second", "first"]
    assert classes.name.tolist() == ["first", "second"]


def test_impossible_time_stamps_are_counted_and_not_passed_on(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.emit(start=0, end=0)
    tracing.fake.emit(start=0, end=500)
    tracing.fake.emit(start=500, end=0)
    tracing.fake.emit(start=500, end=499)
    tracing.fake.emit(MEMSET, start=500, end=499)
    tracing.fake.emit(start=500, end=500)  # a kernel may be shorter than the clock's grain
    rows, _, _ = tracing.captured()
    assert rows.start_ns.tolist() == [500]
    stats = tracer.stats()
    assert (stats["zero_timestamps"], stats["reversed_timestamps"], stats["kernels"]) == (3, 2, 1)


def test_records_of_a_kind_nobody_asked_for_are_counted(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.emit(RUNTIME, count=3)
    tracing.fake.emit()
    rows, _, _ = tracing.captured()
    assert len(rows.start_ns) == 1
    assert tracer.stats()["unknown_records"] == 3


def test_graph_nodes_are_counted(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.emit(count=10, graph=2, graph_node=100)
    tracing.fake.emit(count=5)
    tracer.flush()
    assert (tracer.stats()["kernels"], tracer.stats()["graph_nodes"]) == (15, 10)


def test_a_storm_from_many_threads_is_recorded_whole(tracing: Tracing) -> None:
    tracer = tracing.start(buffer_bytes=65536)
    tracing.fake.storm(num_threads=8, count=20_000, graph_node=1)
    rows, _, _ = tracing.captured()
    stats = tracer.stats()
    assert stats["kernels"] + stats["dropped_records"] == 160_000
    assert len(rows.start_ns) == stats["kernels"]
    assert tracing.fake.get("dirty_buffers") == 0


def test_beyond_the_budget_buffers_are_denied_and_losses_counted(tracing: Tracing) -> None:
    tracer = tracing.start(buffer_bytes=65536, buffer_budget_bytes=2 * 65536)
    for lane in range(4):
        tracing.fake.emit(lane=lane, count=10)
    tracer.flush()
    stats = tracer.stats()
    assert (stats["kernels"], stats["buffers_denied"], stats["buffers_in_use_max"]) == (20, 20, 2)
    tracing.fake.emit(lane=3)
    tracer.flush()
    stats = tracer.stats()
    assert (stats["kernels"], stats["dropped_records"]) == (21, 20)


def test_what_cupti_dropped_is_counted(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.drop(17)
    tracing.fake.emit()
    tracer.flush()
    assert tracer.stats()["dropped_records"] == 17


def test_closing_delivers_the_rest_and_undoes_everything(tracing: Tracing) -> None:
    tracer = tracing.start()
    assert tracer.info()["kinds"] == ["CONCURRENT_KERNEL", "MEMCPY", "MEMCPY2", "MEMSET"]
    assert tracing.fake.get("flush_period") == 1000
    tracing.fake.emit(count=5)
    tracer.close()
    tracer.close()
    assert tracer.stats()["kernels"] == 5
    assert_untouched(tracing.fake)
    tracing.fake.emit()
    tracer.flush()
    assert tracer.stats()["kernels"] == 5


def test_a_tracer_can_follow_another(tracing: Tracing, fake_cupti: FakeCupti) -> None:
    for _ in range(3):
        tracer = _native.KernelTracer(None, cupti_path=fake_cupti.path)
        fake_cupti.emit(count=4)
        del tracer
        assert_untouched(fake_cupti)
    tracer = tracing.start()
    fake_cupti.emit(count=2)
    tracer.flush()
    assert tracer.stats()["kernels"] == 2


def test_statistics_are_in_the_spool_too(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.emit(count=5)
    tracing.fake.emit(start=0)
    tracing.captured()
    recorded = read_spool(tracing.path).stats["kernel_tracer"]
    assert {key: value for key, value in recorded.items() if key != "name"} == tracer.stats()


def test_a_refusing_iterator_is_reported(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.set("iterator_result", 21)
    tracing.fake.emit(count=3)
    tracer.flush()
    stats = tracer.stats()
    assert (stats["kernels"], "CUPTI_ERROR_INVALID_KIND" in stats["error"]) == (3, True)


def test_a_refused_flush_is_reported_and_harmless(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.set("flush_result", 999)
    tracer.flush()
    assert "cuptiActivityFlushAll" in tracer.stats()["error"]


@pytest.mark.slow
def test_a_cupti_that_never_returns_does_not_hold_the_program(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.emit()
    tracing.fake.set("flush_hang", 1)
    tracer.close()
    assert "did not return" in tracer.stats()["error"]
    tracing.fake.set("flush_hang", 0)


def test_python_goes_on_while_a_tracer_that_nobody_closed_waits_for_cupti(fake_cupti: FakeCupti) -> None:
    tracer = _native.KernelTracer(None, cupti_path=fake_cupti.path)
    fake_cupti.set("flush_hang", 1)
    release = threading.Timer(0.2, fake_cupti.set, ("flush_hang", 0))
    release.start()
    del tracer  # waits for the flush; with the GIL held, the timer could never end it, and CUPTI would stay on
    release.join()
    assert_untouched(fake_cupti)


def test_a_denied_permission_is_forbidden_and_undone(fake_cupti: FakeCupti) -> None:
    fake_cupti.set("enable_result", 35)
    message, code = fault_of(cupti_path=fake_cupti.path)
    assert code == "forbidden"
    assert "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES" in message
    assert fake_cupti.path in message
    assert_untouched(fake_cupti)


def test_a_second_subscriber_is_refused_and_the_first_named(
    fake_cupti: FakeCupti, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_INJECTION64_PATH", "/opt/other/libother_profiler.so")
    monkeypatch.setenv("NSYS_PROFILING_SESSION_ID", "1")
    fake_cupti.set("subscribers", 1)
    message, code = fault_of(cupti_path=fake_cupti.path)
    assert code == "taken"
    assert "libother_profiler.so" in message
    assert "Nsight Systems" in message
    assert fake_cupti.get("kinds_enabled") == 0
    assert fake_cupti.get("subscribers") == 1


def test_two_tracers_at_once_are_refused_without_harm_to_the_first(tracing: Tracing) -> None:
    tracer = tracing.start()
    message, code = fault_of(cupti_path=tracing.fake.path)
    assert (code, "already runs" in message) == ("taken", True)
    tracing.fake.emit()
    tracer.flush()
    assert tracer.stats()["kernels"] == 1


def test_a_cupti_that_is_too_old_is_unsupported(fake_cupti: FakeCupti) -> None:
    fake_cupti.set("version", 17)
    message, code = fault_of(cupti_path=fake_cupti.path)
    assert (code, "version 17" in message) == ("unsupported", True)


def test_a_missing_symbol_is_unsupported_and_named() -> None:
    old = build_fake("fake_cupti.cpp", "libcupti_old.so", defines=["FAKE_CUPTI_OLD"])
    message, code = fault_of(cupti_path=str(old))
    assert (code, "cuptiActivityFlushPeriod" in message) == ("unsupported", True)


def test_a_budget_below_one_buffer_is_invalid(fake_cupti: FakeCupti) -> None:
    assert fault_of(cupti_path=fake_cupti.path, buffer_budget_bytes=4096)[1] == "invalid"


def test_a_forked_child_leaves_the_tracer_alone(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.emit(count=3)
    child = os.fork()
    if child == 0:
        tracer.flush()
        tracer.close()
        os._exit(0 if tracing.fake.get("kinds_enabled") == tracing.fake.get("flushes") == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    rows, _, _ = tracing.captured()
    assert len(rows.start_ns) == 3


def test_what_runs_during_a_pause_is_not_recorded_and_lies_between_two_windows(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.emit(name="before")
    tracer.pause()
    tracer.pause()
    assert (tracing.fake.get("kinds_enabled"), tracing.fake.get("subscribers")) == (0, 1)
    assert tracer.stats()["kernels"] == 1
    tracing.fake.emit(name="meanwhile")
    tracer.resume()
    tracer.resume()
    tracing.fake.emit(name="after")
    _, _, names = tracing.captured()
    assert names == ["before", "after"]
    first, second = tracing.windows()
    assert first[0] < first[1] < second[0] < second[1]
    assert_untouched(tracing.fake)


def test_a_tracer_that_was_never_paused_writes_no_windows(tracing: Tracing) -> None:
    tracing.start()
    tracing.fake.emit()
    tracing.captured()
    assert tracing.windows() == []


def test_a_tracer_may_begin_paused(tracing: Tracing) -> None:
    tracer = tracing.start(is_paused=True)
    assert (tracing.fake.get("kinds_enabled"), tracing.fake.get("subscribers")) == (0, 1)
    tracing.fake.emit(name="early")
    tracer.resume()
    tracing.fake.emit(name="late")
    _, _, names = tracing.captured()
    assert names == ["late"]
    assert len(tracing.windows()) == 1


def test_a_pause_whose_flush_is_refused_is_a_pause_and_reported(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracing.fake.set("flush_result", 999)
    tracer.pause()
    tracing.fake.emit()
    rows, _, _ = tracing.captured()
    assert len(rows.start_ns) == 0
    assert "cuptiActivityFlushAll" in tracer.stats()["error"]
    assert_untouched(tracing.fake)


def test_a_refused_resume_is_an_error_and_leaves_the_tracer_paused(tracing: Tracing) -> None:
    tracer = tracing.start()
    tracer.pause()
    tracing.fake.set("enable_result", 35)
    with pytest.raises(_native.NativeFault) as raised:
        tracer.resume()
    assert raised.value.args[1] == "forbidden"
    assert tracing.fake.get("kinds_enabled") == 0
    tracing.fake.set("enable_result", 0)
    tracer.resume()
    tracing.fake.emit()
    tracer.close()
    assert tracer.stats()["kernels"] == 1


EXIT_WHILE_TRACING = """
import sys
from pathlib import Path
from qmeter_native import _native
from tests.fakes.fake_cupti import FakeCupti
fake = FakeCupti(Path(sys.argv[1]))
tracer = _native.KernelTracer(_native.Spool(sys.argv[2], identity="{}"), cupti_path=fake.path)
fake.emit(count=7)
"""


def test_a_program_may_end_without_closing_its_tracer(fake_cupti_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", EXIT_WHILE_TRACING, str(fake_cupti_path), str(tmp_path / "spool")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=60)
    assert len(read_spool(tmp_path / "spool").tables[KernelTable.NAME]) == 7


def test_kept_buffers_can_be_decoded_again(tracing: Tracing) -> None:
    tracer = tracing.start(buffer_bytes=65536, keep_raw_buffers=2)
    tracing.fake.emit(count=1000, graph_node=1)
    tracer.flush()
    per_buffer = 65536 // 216
    assert [len(buffer) for buffer in tracer.raw_buffers()] == [216 * per_buffer] * 2
    result = tracer.benchmark_decode(3)
    assert result["records"] == 2 * per_buffer
    assert result["raw_bytes"] == 2 * per_buffer * 216
    assert result["bytes_per_record"] <= 64
    assert len(result["seconds"]) == 3


def test_decoding_again_needs_kept_buffers(tracing: Tracing) -> None:
    tracer = tracing.start()
    with pytest.raises(_native.NativeFault) as raised:
        tracer.benchmark_decode(1)
    assert raised.value.args[1] == "invalid"
