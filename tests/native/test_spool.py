"""The spool writer, read back by `qmeter_native.storage.spool`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qmeter_native import _native
from qmeter_native.model.tables import KernelClassTable, KernelTable, RequestIdTable
from qmeter_native.storage.spool import is_being_written, read_spool
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

NewSpool = Callable[..., _native.Spool]


def kernels(count: int, *, first: int = 0, class_id: int = 0) -> NDArray[np.void]:
    """Kernel records whose ``start_ns`` are ``first``, ``first`` + 1, …"""
    rows = np.zeros(count, RECORD_DTYPES[RecordKind.KERNEL])
    rows["start_ns"] = np.arange(first, first + count)
    rows["end_ns"] = rows["start_ns"] + 1
    rows["class_id"] = class_id
    return rows


def starts(path: Path) -> list[int]:
    table = read_spool(path).tables[KernelTable.NAME]
    assert isinstance(table, KernelTable)
    return [int(start) for start in table.start_ns]


def test_records_have_the_layout_that_readers_expect() -> None:
    layouts = {layout["kind"]: layout for layout in _native.record_layouts().values()}
    assert layouts.keys() == {kind.value for kind in RECORD_DTYPES}
    for kind, dtype in RECORD_DTYPES.items():
        layout = layouts[kind.value]
        fields = layout["fields"]
        described = np.dtype(
            {
                "names": [name for name, _, _ in fields],
                "formats": [format_ for _, format_, _ in fields],
                "offsets": [offset for _, _, offset in fields],
                "itemsize": layout["size"],
            }
        )
        assert described == dtype, kind


def test_what_is_appended_is_read_back_in_order(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool(block_bytes=1000)
    for first in range(0, 1000, 100):
        spool.append(RecordKind.KERNEL, kernels(100, first=first))
    spool.close()
    assert starts(tmp_path / "spool") == list(range(1000))
    assert spool.stats()["records"] == 1000
    assert spool.stats()["bytes"] == (tmp_path / "spool").stat().st_size


def test_strings_and_classes_come_before_the_records_that_name_them(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool(block_bytes=400)
    for number in range(50):
        class_id = spool.define_class(f"kernel_{number}", 0, (number, 1, 1), (32, 1, 1))
        spool.append(RecordKind.KERNEL, kernels(7, class_id=class_id))
    spool.close()
    whole = (tmp_path / "spool").read_bytes()
    # However much of the file is left, each record in it knows its class.
    for end in range(len(whole), 0, -997):
        (tmp_path / "part").write_bytes(whole[:end])
        tables = read_spool(tmp_path / "part").tables
        classes, rows = tables[KernelClassTable.NAME], tables[KernelTable.NAME]
        assert isinstance(classes, KernelClassTable)
        assert isinstance(rows, KernelTable)
        assert "<lost kernel class>" not in {str(classes.name[class_id]) for class_id in rows.class_id}


def test_a_class_is_its_name_and_its_launch(new_spool: NewSpool) -> None:
    spool = new_spool()
    first = spool.define_class("gemm", 0, (1, 2, 3), (4, 5, 6), 7, 8, 9)
    assert spool.define_class("gemm", 0, (1, 2, 3), (4, 5, 6), 7, 8, 9) == first
    assert spool.define_class("gemm", 0, (1, 2, 4), (4, 5, 6), 7, 8, 9) != first
    assert spool.define_class("gemv", 0, (1, 2, 3), (4, 5, 6), 7, 8, 9) != first
    assert spool.intern("") == 0
    assert spool.intern("gemm") == spool.intern("gemm") != 0


def test_a_torn_tail_costs_only_the_last_block(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool(block_bytes=500)
    spool.append(RecordKind.KERNEL, kernels(100))
    spool.close()
    path = tmp_path / "spool"
    whole = path.read_bytes()
    for missing in (1, 20, 300, 527):
        path.write_bytes(whole[:-missing])
        assert starts(path) == list(range(90))
        assert read_spool(path).blocks_lost == 1


def test_what_exceeds_the_budget_is_dropped_and_counted(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool(queue_bytes=5000, flush_period_ns=3600 * 10**9)
    spool.append(RecordKind.KERNEL, kernels(150))
    spool.append(RecordKind.KERNEL, kernels(50, first=150))
    spool.close()
    stats = spool.stats()
    assert (stats["records"], stats["dropped_records"]) == (100, 100)
    assert starts(tmp_path / "spool") == list(range(100))


def test_a_partial_block_is_written_without_being_asked(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool(flush_period_ns=1_000_000)
    spool.append(RecordKind.KERNEL, kernels(1))
    while spool.stats()["records"] == 0:  # the suite's time limit ends a writer that never does
        time.sleep(0.001)
    assert starts(tmp_path / "spool") == [0]


def test_sync_puts_everything_so_far_on_disk(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool(flush_period_ns=3600 * 10**9)
    spool.append(RecordKind.KERNEL, kernels(3))
    spool.append_stats('{"name": "tracer", "kernels": 3}')
    spool.sync()
    assert starts(tmp_path / "spool") == [0, 1, 2]
    assert read_spool(tmp_path / "spool").stats["tracer"]["kernels"] == 3


def test_threads_may_append_at_once(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool(block_bytes=4096)

    def append_all(first: int) -> None:
        for start in range(first, first + 10_000, 100):
            class_id = spool.define_class(f"kernel_{start}", 0)
            spool.append(RecordKind.KERNEL, kernels(100, first=start, class_id=class_id))

    threads = [threading.Thread(target=append_all, args=(10_000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spool.close()
    assert sorted(starts(tmp_path / "spool")) == list(range(40_000))


def test_closing_twice_is_allowed_and_late_records_are_counted(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool()
    spool.close()
    spool.close()
    spool.append(RecordKind.KERNEL, kernels(5))
    spool.sync()
    assert spool.stats()["dropped_records"] == 5


def test_a_path_that_exists_is_refused(new_spool: NewSpool, tmp_path: Path) -> None:
    new_spool()
    with pytest.raises(_native.NativeFault) as raised:
        new_spool()
    message, code = raised.value.args
    assert code == "io"
    assert str(tmp_path / "spool") in message


def test_rows_that_are_no_records_are_refused(new_spool: NewSpool) -> None:
    spool = new_spool()
    for kind, rows in ((RecordKind.KERNEL, b"12"), (RecordKind.STRINGS, b""), (999, b"")):
        with pytest.raises(_native.NativeFault) as raised:
            spool.append(kind, rows)
        assert raised.value.args[1] == "invalid"


FILL_DISK = """
import resource, sys
import numpy as np
from qmeter_native import _native
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
spool = _native.Spool(sys.argv[1], identity="{}", block_bytes=3000)
rows = np.zeros(1000, RECORD_DTYPES[RecordKind.KERNEL])
rows["start_ns"] = np.arange(1000)
spool.append(RecordKind.KERNEL, rows)
spool.sync()
spool.append(RecordKind.KERNEL, rows)
spool.close()
stats = spool.stats()
assert "File too large" in stats["error"] and sys.argv[1] in stats["error"], stats
assert stats["records"] + stats["dropped_records"] == 2000 and stats["dropped_records"] > 1000, stats
print(stats["records"])
"""


def test_a_full_disk_is_remembered_and_the_program_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    done = subprocess.run([sys.executable, "-c", FILL_DISK, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert starts(path) == list(range(int(done.stdout)))
    assert read_spool(path).blocks_lost == 0


APPEND_FOR_EVER = """
import sys
import numpy as np
from qmeter_native import _native
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind
spool = _native.Spool(sys.argv[1], identity="{}", block_bytes=20_000)
first = 0
while True:
    rows = np.zeros(1000, RECORD_DTYPES[RecordKind.KERNEL])
    rows["start_ns"] = np.arange(first, first + 1000)
    spool.append(RecordKind.KERNEL, rows)
    first += 1000
    if first % 10_000 == 0:
        spool.sync()
        print(first, flush=True)
"""


@pytest.mark.parametrize("num_syncs", [1, 2, 5])
def test_a_killed_process_loses_at_most_its_last_block(tmp_path: Path, num_syncs: int) -> None:
    path = tmp_path / "spool"
    with subprocess.Popen([sys.executable, "-c", APPEND_FOR_EVER, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        num_safe = [int(child.stdout.readline()) for _ in range(num_syncs)][-1]
        child.send_signal(signal.SIGKILL)
    found = starts(path)
    assert found == list(range(len(found)))
    assert len(found) >= num_safe
    assert read_spool(path).blocks_lost <= 1


def test_a_forked_child_writes_nothing(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool(block_bytes=500)
    spool.append(RecordKind.KERNEL, kernels(100))
    child = os.fork()
    if child == 0:
        spool.append(RecordKind.KERNEL, kernels(100, first=5000))
        spool.intern("child")
        spool.sync()
        spool.close()
        del spool
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    spool.append(RecordKind.KERNEL, kernels(100, first=100))
    spool.close()
    assert starts(tmp_path / "spool") == list(range(200))


def test_a_forked_child_does_not_keep_the_spool_locked(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool()
    stop_reader, stop_writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(stop_writer)
        os.read(stop_reader, 1)  # lives until the parent is through
        os._exit(0)
    assert is_being_written(tmp_path / "spool")
    spool.close()
    assert not is_being_written(tmp_path / "spool")
    os.close(stop_writer)
    os.waitpid(child, 0)
    os.close(stop_reader)


def test_a_forked_child_has_no_copy_of_the_spools_descriptor(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool()
    child = os.fork()
    if child == 0:
        links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        os._exit(links.count(str(tmp_path / "spool")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_being_written(tmp_path / "spool")
    spool.close()


def test_a_file_that_took_over_the_descriptor_is_left_alone(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool()
    (number,) = [
        int(link.name) for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link) == str(tmp_path / "spool")
    ]
    with (tmp_path / "other").open("w") as other:
        os.dup2(other.fileno(), number)
        spool.append(RecordKind.KERNEL, kernels(10))
        spool.close()
        os.close(number)
    assert (tmp_path / "other").read_bytes() == b""
    assert "cannot write" in spool.stats()["error"]
    assert spool.stats()["dropped_records"] == 10


WRITE_STRINGS = """
import resource, sys
from qmeter_native import _native
spool = _native.Spool(sys.argv[1], identity="{}")
def write_strings(count):
    for number in range(count):
        spool.write_string(f"chatcmpl-{number:090}")
        if number % 10_000 == 0:
            spool.sync()
write_strings(20_000)
before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_strings(400_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib)
"""


def test_strings_that_are_written_once_take_no_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE_STRINGS, str(tmp_path / "spool")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 8 * 1024  # their texts alone are 40 MB


def test_strings_that_are_written_once_have_ids_of_their_own(new_spool: NewSpool, tmp_path: Path) -> None:
    spool = new_spool()
    ids = [spool.intern("a"), spool.write_string("b"), spool.intern("a"), spool.intern("b"), spool.write_string("b")]
    assert ids == [1, 2, 1, 3, 4]
    rows = np.zeros(4, RECORD_DTYPES[RecordKind.REQUEST_ID])
    rows["name"] = range(1, 5)
    spool.append(RecordKind.REQUEST_ID, rows)
    spool.close()
    table = read_spool(tmp_path / "spool").tables[RequestIdTable.NAME]
    assert isinstance(table, RequestIdTable)
    assert table.name.tolist() == ["a", "b", "b", "b"]


def test_why_writing_failed_is_in_the_spool_that_is_full(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    subprocess.run([sys.executable, "-c", FILL_DISK, str(path)], capture_output=True, check=True)
    stats = read_spool(path).stats["spool"]
    assert (str(path) in stats["error"], "File too large" in stats["error"]) == (True, True)
    assert (stats["records"], stats["dropped_records"]) == (len(starts(path)), 2000 - len(starts(path)))
