"""Captures on disk: what is written is read again, and whatever is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qmeter_native.errors import (
    CaptureError,
    CaptureNotFoundError,
    DamagedCaptureError,
    ForeignCaptureError,
    NewerSchemaError,
)
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import EngineInfo, LossReport, ProcessInfo, Validity
from qmeter_native.model.tables import TABLES, RangeTable
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
