"""Spools of living and killed processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmeter_native.errors import CaptureNotFoundError, ForeignCaptureError, NewerSchemaError
from qmeter_native.model.tables import TABLES, RequestIdTable
from qmeter_native.storage import join_spools, read_spool, scan_spool
from qmeter_native.storage.spool_records import BLOCK_MAGIC, RECORD_DTYPES, RECORD_TABLES, RecordKind
from tests.spools import SpoolFile


def three_kernel_blocks() -> SpoolFile:
    spool = SpoolFile().block(RecordKind.IDENTITY, json.dumps({"format": "qmeter-spool", "pid": 7}).encode())
    spool.strings(s1="gemm").records(RecordKind.CLASS, {"class_id": 0, "name": 1, "grid_x": 4})
    return spool.kernels(10, 20).kernels(30).kernels(40, 50)


def starts(contents: Any) -> list[int]:
    return contents.tables["kernels"].start_ns.tolist()


def test_a_whole_spool_is_read(tmp_path: Path) -> None:
    contents = read_spool(three_kernel_blocks().write(tmp_path / "a.qms"))
    assert contents.identity["pid"] == 7
    assert starts(contents) == [10, 20, 30, 40, 50]
    assert contents.tables["kernel_classes"].name.tolist() == ["gemm"]
    assert contents.tables["kernel_classes"].grid_x.tolist() == [4]
    assert (contents.num_blocks, contents.blocks_lost) == (6, 0)


def test_a_torn_tail_loses_one_block(tmp_path: Path) -> None:
    path = three_kernel_blocks().write(tmp_path / "a.qms")
    path.write_bytes(path.read_bytes()[:-7])
    contents = read_spool(path)
    assert starts(contents) == [10, 20, 30]
    assert contents.blocks_lost == 1


def test_a_damaged_block_is_skipped_and_counted(tmp_path: Path) -> None:
    spool = three_kernel_blocks()
    spool.blocks[4] = spool.blocks[4][:-1] + b"\xff"
    contents = read_spool(spool.write(tmp_path / "a.qms"))
    assert starts(contents) == [10, 20, 40, 50]
    assert contents.blocks_lost == 1


def test_a_truncated_block_in_the_middle_is_skipped_and_counted(tmp_path: Path) -> None:
    spool = three_kernel_blocks()
    spool.blocks[3] = spool.blocks[3][:40]
    contents = read_spool(spool.write(tmp_path / "a.qms"))
    assert starts(contents) == [30, 40, 50]
    assert contents.blocks_lost == 1


def test_a_magic_number_inside_a_payload_misleads_nobody(tmp_path: Path) -> None:
    magic = int.from_bytes(BLOCK_MAGIC * 2, "little")
    spool = three_kernel_blocks().records(RecordKind.KERNEL, {"start_ns": magic, "end_ns": magic}).kernels(60)
    spool.blocks[6] = spool.blocks[6][:-1] + b"\xff"
    contents = read_spool(spool.write(tmp_path / "a.qms"))
    assert starts(contents) == [10, 20, 30, 40, 50, 60]
    assert contents.blocks_lost == 1


def test_lost_strings_and_classes_are_named_as_lost(tmp_path: Path) -> None:
    spool = SpoolFile().records(RecordKind.CLASS, {"class_id": 1, "name": 9})
    spool.kernels(1, class_id=2).kernels(2, class_id=1)
    classes = read_spool(spool.write(tmp_path / "a.qms")).tables["kernel_classes"]
    assert classes.name.tolist() == ["<lost kernel class>", "<lost string 9>", "<lost kernel class>"]


def test_the_last_statistics_of_a_collector_win(tmp_path: Path) -> None:
    spool = three_kernel_blocks()
    for samples in (1, 2):
        spool.block(RecordKind.STATS, json.dumps({"name": "sampler", "samples": samples}).encode())
    assert read_spool(spool.write(tmp_path / "a.qms")).stats["sampler"]["samples"] == 2


def test_records_of_an_unknown_kind_are_counted(tmp_path: Path) -> None:
    contents = read_spool(three_kernel_blocks().block(99, b"abc", count=3).write(tmp_path / "a.qms"))
    assert contents.records_unknown == 3
    assert contents.blocks_lost == 0


def test_every_kind_of_record_becomes_rows_of_its_table(tmp_path: Path) -> None:
    spool = SpoolFile().strings(s1="text")
    for kind, dtype in RECORD_DTYPES.items():
        spool.records(kind, {name: 1 for name in dtype.names or () if name != "class_id"})
    tables = read_spool(spool.write(tmp_path / "a.qms")).tables
    assert set(tables) == {table.NAME for table in (*TABLES, RequestIdTable)}
    for kind, table in RECORD_TABLES.items():
        columns = tables[table.NAME]
        assert len(columns) == 1
        for spec in table.columns():
            value = getattr(columns, spec.name)[0]
            if spec.name not in ("class_id", "process", "range_id"):
                assert value == ("text" if spec.metadata["dtype"].hasobject else 1), (kind, spec.name)


def test_an_empty_file_is_an_empty_spool(tmp_path: Path) -> None:
    (tmp_path / "a.qms").touch()
    contents = read_spool(tmp_path / "a.qms")
    assert starts(contents) == []
    assert contents.identity == {}


def test_a_missing_spool_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureNotFoundError, match=r"a\.qms"):
        read_spool(tmp_path / "a.qms")


def test_a_file_without_blocks_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "a.qms").write_bytes(b"something else, QMSB and all" * 9)
    with pytest.raises(ForeignCaptureError):
        read_spool(tmp_path / "a.qms")


def test_a_newer_spool_says_to_update(tmp_path: Path) -> None:
    with pytest.raises(NewerSchemaError):
        read_spool(SpoolFile().block(RecordKind.IDENTITY, b"{}", version=2).write(tmp_path / "a.qms"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000), noise=st.binary(max_size=40))
def test_wherever_a_spool_ends_every_whole_block_is_read(tmp_path: Path, cut: int, noise: bytes) -> None:
    spool = three_kernel_blocks()
    content = b"".join(spool.blocks)
    cut = len(spool.blocks[0]) + cut % (len(content) - len(spool.blocks[0]))
    (tmp_path / "a.qms").write_bytes(content[:cut] + noise)
    ends = np.cumsum([len(block) for block in spool.blocks])
    assert read_spool(tmp_path / "a.qms").num_blocks == int((ends <= cut).sum())


def test_spools_of_two_processes_are_joined(tmp_path: Path) -> None:
    classes = ({"class_id": 0, "name": 1}, {"class_id": 1, "name": 2})
    first = SpoolFile().strings(s1="gemm", s2="norm").records(RecordKind.CLASS, *classes)
    first.kernels(30, class_id=1).kernels(10)
    second = SpoolFile().strings(s1="norm", s2="rope").records(RecordKind.CLASS, *classes)
    second.kernels(20).kernels(40, class_id=1)
    second.records(RecordKind.STEP, {"step": 2}, {"step": 1})
    tables: dict[str, Any] = join_spools(
        [read_spool(spool.write(tmp_path / f"{number}.qms")) for number, spool in enumerate((first, second))]
    )
    kernels = tables["kernels"]
    assert kernels.start_ns.tolist() == [10, 20, 30, 40]
    assert kernels.process.tolist() == [0, 1, 0, 1]
    assert tables["kernel_classes"].name[kernels.class_id].tolist() == ["gemm", "norm", "norm", "rope"]
    assert tables["steps"].step.tolist() == [1, 2]
    assert tables["steps"].process.tolist() == [1, 1]


def test_no_spools_join_to_empty_tables() -> None:
    assert all(len(table) == 0 for table in join_spools([]).values())


def test_two_spools_of_one_process_are_joined_as_one(tmp_path: Path) -> None:
    spools = [read_spool(SpoolFile().kernels(start).write(tmp_path / f"{start}.qms")) for start in (30, 10, 20)]
    kernels: Any = join_spools(spools, [0, 1, 0])["kernels"]
    assert kernels.start_ns.tolist() == [10, 20, 30]
    assert kernels.process.tolist() == [1, 0, 0]


def test_kernels_are_found_without_being_read(tmp_path: Path) -> None:
    contents, kernels = scan_spool(three_kernel_blocks().kernels(5, 60).write(tmp_path / "a.qms"))
    assert len(contents.tables["kernels"]) == 0
    assert kernels.num_rows == 7
    assert [block.first_start_ns for block in kernels.blocks] == [10, 30, 40, 5]
    assert kernels.table().start_ns.tolist() == [10, 20, 30, 40, 50, 5, 60]
