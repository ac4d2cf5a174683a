"""Captures on disk: what is written is read again, and whatever is wrong is said."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import (
    CaptureError,
    CaptureNotFoundError,
    DamagedCaptureError,
    ForeignCaptureError,
    NewerSchemaError,
)
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import EngineInfo, LossReport, ProcessInfo, Validity
from qmeter_native.model.tables import TABLES, PreemptionTable, RangeTable
from qmeter_native.storage import read_capture, write_capture
from tests.factories import T0, CaptureBuilder, capture_of_intervals, synthetic_capture


def assert_same_tables(left: Capture, right: Capture) -> None:
    for table in TABLES:
        for spec in table.columns():
            expected, found = (getattr(getattr(capture, table.NAME), spec.name) for capture in (left, right))
            np.testing.assert_array_equal(found, expected, err_msg=f"{table.NAME}.{spec.name}")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "small.qmt"
    write_capture(synthetic_capture(2_000), path)
    return path


def rewrite_manifest(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_capture_is_read_as_it_was_written(tmp_path: Path) -> None:
    capture = synthetic_capture(4_000)
    write_capture(capture, tmp_path / "run.qmt")
    read = read_capture(tmp_path / "run.qmt")
    assert read.manifest == capture.manifest
    assert_same_tables(capture, read)


def test_every_part_of_the_manifest_is_kept(tmp_path: Path) -> None:
    changes = {
        "engine": EngineInfo("e", "1", "m", {"a": 1}, {"b": [2]}),
        "loss": LossReport(dropped_records=3),
        "validity": (Validity("interrupted", "stopped by Ctrl-C"),),
        "overhead": {"cpu_s": 0.5},
    }
    capture = capture_of_intervals([(0, 5, 7)], **changes)
    write_capture(capture, tmp_path / "run.qmt")
    assert read_capture(tmp_path / "run.qmt").manifest == capture.manifest


def test_an_empty_capture_is_read_as_it_was_written(tmp_path: Path) -> None:
    capture = CaptureBuilder().build()
    write_capture(capture, tmp_path / "run.qmt")
    assert_same_tables(capture, read_capture(tmp_path / "run.qmt"))


def test_each_process_has_a_kernel_file_and_all_are_merged_by_start(tmp_path: Path) -> None:
    processes = (ProcessInfo(0, "host", "b", 100), ProcessInfo(1, "host", "b", 101), ProcessInfo(2, "host", "c", 100))
    builder = CaptureBuilder(100, {"processes": processes})
    for start, process in ((0, 1), (10, 0), (20, 2), (30, 1), (40, 0)):
        builder.kernel(start, start + 5, process=process)
    write_capture(builder.build(), tmp_path / "run.qmt")
    names = sorted(file.name for file in (tmp_path / "run.qmt").glob("kernels-*"))
    assert names == ["kernels-host-100-2.parquet", "kernels-host-100.parquet", "kernels-host-101-1.parquet"]
    kernels = read_capture(tmp_path / "run.qmt").kernels
    assert (kernels.start_ns - T0).tolist() == [0, 10, 20, 30, 40]
    assert kernels.process.tolist() == [1, 0, 2, 1, 0]


def test_kernels_find_their_ranges_again(tmp_path: Path) -> None:
    processes = (ProcessInfo(0, "host", "b", 100), ProcessInfo(1, "host", "b", 101))
    builder = CaptureBuilder(100, {"processes": processes})
    builder.add(RangeTable, start_ns=T0, end_ns=T0 + 9, name="late", process=1)
    builder.add(RangeTable, start_ns=T0, end_ns=T0 + 4, name="early", process=0)
    builder.kernel(1, 2, range_id=1, process=0).kernel(5, 6, range_id=0, process=1)
    write_capture(builder.build(), tmp_path / "run.qmt")
    read = read_capture(tmp_path / "run.qmt")
    assert read.ranges.name[read.kernels.range_id].tolist() == ["early", "late"]


def test_times_out_of_order_and_far_apart_stay_exact(tmp_path: Path) -> None:
    builder = CaptureBuilder()
    for start in (10**10 + 1, 3, 7 * 10**10, 127, 128):
        builder.add(RangeTable, start_ns=T0 + start, end_ns=T0 + start + start % 7, name=str(start))
        builder.step(start, start, start + 1)
    builder.step(-1, 0, 1).step(2**62, 0, 1)
    capture = builder.build()
    write_capture(capture, tmp_path / "run.qmt")
    assert_same_tables(capture, read_capture(tmp_path / "run.qmt"))


def test_a_large_table_is_split_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmeter_native.storage.writer.PART_ROWS", 700)
    capture = synthetic_capture(2_000)
    write_capture(capture, tmp_path / "run.qmt")
    names = sorted(file.name for file in (tmp_path / "run.qmt").glob("kernels-*"))
    assert names == ["kernels-host-100.1.parquet", "kernels-host-100.2.parquet", "kernels-host-100.parquet"]
    assert_same_tables(capture, read_capture(tmp_path / "run.qmt"))


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2), st.sampled_from([0, 7, 2**64 - 1])),
        max_size=12,
    ),
    part_rows=st.integers(2, 9),
)
def test_whatever_is_written_in_parts_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, int]], part_rows: int
) -> None:
    processes = tuple(ProcessInfo(index, "host", "b", 100 + index) for index in range(3))
    builder = CaptureBuilder(100, {"processes": processes})
    for start, length, process, node in sorted(rows):
        builder.kernel(start, start + length, process=process, graph_node=node)
        builder.add(PreemptionTable, time_ns=start, request=length % 7, process=process)
    path = tmp_path_factory.mktemp("parts") / "run.qmt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qmeter_native.storage.writer.PART_ROWS", part_rows)
        write_capture(builder.build(), path)
    read = read_capture(path)
    columns = [getattr(read.kernels, name).tolist() for name in ("start_ns", "end_ns", "process", "graph_node")]
    found = sorted(zip(*columns, strict=True))
    assert found == sorted((T0 + start, T0 + start + length, *rest) for start, length, *rest in rows)
    assert np.all(np.diff(read.kernels.start_ns) >= 0)
    assert sorted(read.preemptions.time_ns.tolist()) == sorted(start for start, *_ in rows)


def test_columns_that_an_older_capture_lacks_are_filled(written: Path) -> None:
    document = json.loads((written / "manifest.json").read_text())
    (entry,) = [entry for entry in document["tables"] if entry["table"] == "steps"]
    file = written / entry["file"]
    pl.read_parquet(file).drop("num_padded").write_parquet(file)
    content = file.read_bytes()
    entry.update(bytes=len(content), crc32=zlib.crc32(content))
    for process in document["processes"]:
        for key in ("gpu_uuids", "clock_offset_ns", "clock_offset_range_ns"):
            del process[key]
    rewrite_manifest(written, schema_version=1, tables=document["tables"], processes=document["processes"])
    read = read_capture(written)
    assert set(read.steps.num_padded.tolist()) == {-1}
    assert len(read.trace_windows) == len(read.engine_requests) == len(read.preemptions) == 0
    assert read.manifest.processes[0].gpu_uuids == ()
    assert read.manifest.processes[0].clock_offset_range_ns is None


def test_a_process_keeps_its_gpus_and_clock_offset(tmp_path: Path) -> None:
    process = ProcessInfo(0, "host", "b", 1, 3, "serve", ("GPU-a", "GPU-b"), -120, (-900, 40))
    write_capture(capture_of_intervals([(0, 5, 7)], processes=(process,)), tmp_path / "run.qmt")
    assert read_capture(tmp_path / "run.qmt").manifest.processes == (process,)


def test_a_row_of_an_unlisted_process_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="process"):
        write_capture(CaptureBuilder().kernel(0, 1, process=4).build(), tmp_path / "run.qmt")


def test_kernels_take_at_most_12_bytes_on_disk(tmp_path: Path) -> None:
    capture = synthetic_capture(100_000)
    write_capture(capture, tmp_path / "run.qmt")
    size = sum(file.stat().st_size for file in (tmp_path / "run.qmt").glob("kernel*"))
    assert size / len(capture.kernels) <= 12


def test_a_folder_with_spools_can_be_finished_in_place(tmp_path: Path) -> None:
    spool = tmp_path / "run.qmt" / "spool" / "a.qms"
    spool.parent.mkdir(parents=True)
    spool.write_bytes(b"x")
    with pytest.raises(DamagedCaptureError, match="never finished"):
        read_capture(tmp_path / "run.qmt")
    write_capture(capture_of_intervals([(0, 5, 7)]), tmp_path / "run.qmt")
    assert len(read_capture(tmp_path / "run.qmt").kernels) == 1
    assert spool.exists()


def test_an_existing_capture_is_not_overwritten(written: Path) -> None:
    with pytest.raises(CaptureError, match="already holds"):
        write_capture(synthetic_capture(400), written)


def test_a_full_disk_leaves_no_half_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qmeter_native.storage.table_files.write_table", full)
    with pytest.raises(CaptureError, match="No space left") as caught:
        write_capture(synthetic_capture(400), tmp_path / "run.qmt")
    assert caught.value.hint is not None
    assert not list((tmp_path / "run.qmt").iterdir())


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureNotFoundError, match=r"nothing\.qmt"):
        read_capture(tmp_path / "nothing.qmt")


def test_a_file_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "run.nsys-rep").write_bytes(b"x")
    with pytest.raises(ForeignCaptureError, match="is a file"):
        read_capture(tmp_path / "run.nsys-rep")
    with pytest.raises(ForeignCaptureError, match="is a file"):
        write_capture(synthetic_capture(400), tmp_path / "run.nsys-rep")


def test_a_folder_without_a_manifest_is_foreign(tmp_path: Path) -> None:
    with pytest.raises(ForeignCaptureError, match=r"no manifest\.json"):
        read_capture(tmp_path)


def test_another_programs_manifest_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(ForeignCaptureError):
        read_capture(tmp_path)


def test_a_newer_schema_says_to_update(written: Path) -> None:
    rewrite_manifest(written, schema_version=99)
    with pytest.raises(NewerSchemaError, match="99") as caught:
        read_capture(written)
    assert "Update" in str(caught.value)


@pytest.mark.parametrize("text", ['{"format": "qmeter-native ca', "", "[1, 2]x"])
def test_a_truncated_manifest_is_damaged(written: Path, text: str) -> None:
    (written / "manifest.json").write_text(text)
    with pytest.raises(DamagedCaptureError, match=r"manifest\.json"):
        read_capture(written)


def test_a_manifest_without_devices_is_damaged(written: Path) -> None:
    document = json.loads((written / "manifest.json").read_text())
    del document["devices"]
    (written / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(DamagedCaptureError, match="incomplete"):
        read_capture(written)


def test_a_truncated_table_is_named(written: Path) -> None:
    file = next(written.glob("kernels-*"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DamagedCaptureError, match=file.name):
        read_capture(written)


def test_a_flipped_bit_is_seen(written: Path) -> None:
    file = next(written.glob("kernels-*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedCaptureError, match="checksum"):
        read_capture(written)


def test_a_missing_table_is_named(written: Path) -> None:
    next(written.glob("requests*")).unlink()
    with pytest.raises(DamagedCaptureError, match=r"requests\.parquet is missing"):
        read_capture(written)


def test_a_wrong_row_count_is_damaged(written: Path) -> None:
    document = json.loads((written / "manifest.json").read_text())
    for entry in document["tables"]:
        entry["rows"] += 1
    rewrite_manifest(written, tables=document["tables"])
    with pytest.raises(DamagedCaptureError, match="rows instead of"):
        read_capture(written)
