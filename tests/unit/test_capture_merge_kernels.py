"""The kernels of one process come out in order, each once, however its spools hold them and small the chunks are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.capture.kernel_merge import KernelMerge, KernelSource
from qmeter_native.capture.stamps import judge_stamps
from qmeter_native.model.tables import KernelTable
from qmeter_native.storage import scan_spool
from qmeter_native.storage.spool_records import RecordKind
from tests.spools import SpoolFile

MS = 1_000_000


def source(path: Path, blocks: list[list[dict[str, int]]], devices: tuple[int, ...] | None = None) -> KernelSource:
    spool = SpoolFile().records(RecordKind.CLASS, {"class_id": 0}, {"class_id": 1})
    for block in blocks:
        spool.records(RecordKind.KERNEL, *block)
    _, kernels = scan_spool(spool.write(path))
    return KernelSource(kernels, np.array([5, 3], "i4"), None if devices is None else np.array(devices, "i2"))


def kernel(start: int, length: int = 1, **values: int) -> dict[str, int]:
    return {"start_ns": start, "end_ns": start + length, **values}


def merged(merge: KernelMerge) -> KernelTable:
    return KernelTable.concat(list(merge))


def test_classes_and_devices_get_the_captures_numbers(tmp_path: Path) -> None:
    rows = [kernel(1, class_id=1, device=1), kernel(2, class_id=0), kernel(3, device=9)]
    kernels = merged(KernelMerge([source(tmp_path / "a", [rows], (4, 2, -1))], process=6))
    assert kernels.class_id.tolist() == [3, 5, 5]
    assert kernels.device.tolist() == [2, 4, -1]
    assert set(kernels.process.tolist()) == {6}


def test_blocks_of_several_spools_are_put_in_order(tmp_path: Path) -> None:
    first = source(tmp_path / "a", [[kernel(10), kernel(40)], [kernel(20)]])
    second = source(tmp_path / "b", [[kernel(15), kernel(5)]])
    merge = KernelMerge([first, second], 0, chunk_rows=1)
    assert merged(merge).start_ns.tolist() == [5, 10, 15, 20, 40]
    assert (merge.last_end_ns, merge.num_implausible) == (41, 0)


def test_a_process_without_kernels_has_no_chunk() -> None:
    merge = KernelMerge([], 0)
    assert list(merge) == []
    assert merge.last_end_ns == 0


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_a_stamp_is_judged_by_kernels_of_later_chunks(tmp_path: Path, chunk_rows: int) -> None:
    blocks = [[kernel(0, 40 * MS, stream=7)], [kernel(1 * MS, stream=8)], [kernel(2 * MS, stream=8)]]
    blocks += [[kernel(3 * MS, stream=7)]]
    merge = KernelMerge([source(tmp_path / "a", blocks)], 0, chunk_rows)
    assert merged(merge).start_ns.tolist() == [1 * MS, 2 * MS, 3 * MS]
    assert merge.num_implausible == 1


def test_a_long_kernel_of_a_quiet_stream_is_kept(tmp_path: Path) -> None:
    blocks = [[kernel(0, 40 * MS, stream=7)], [kernel(1 * MS, stream=8)], [kernel(50 * MS, stream=7)]]
    merge = KernelMerge([source(tmp_path / "a", blocks)], 0, chunk_rows=1)
    assert sorted(merged(merge).start_ns.tolist()) == [0, 1 * MS, 50 * MS]
    assert merge.num_implausible == 0


ROW = st.builds(
    kernel,
    start=st.integers(0, 40).map(lambda tenth_ms: tenth_ms * MS // 10),
    length=st.sampled_from([0, 1, MS // 5, MS, 3 * MS]),
    stream=st.integers(0, 2),
    graph=st.integers(0, 1),
    device=st.integers(0, 1),
    class_id=st.integers(0, 1),
    correlation=st.integers(0, 2**32 - 1),
)
SPOOLS = st.lists(st.lists(st.lists(ROW, min_size=1, max_size=5), max_size=6), min_size=1, max_size=3)


@settings(deadline=None)
@given(spools=SPOOLS, chunk_rows=st.integers(1, 12))
def test_every_kernel_comes_out_once_or_is_counted_as_implausible(
    tmp_path_factory: pytest.TempPathFactory, spools: list[Any], chunk_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("spools")
    sources = [source(folder / str(number), blocks) for number, blocks in enumerate(spools)]
    merge = KernelMerge(sources, 0, chunk_rows)
    chunks = list(merge)
    rows = [row for blocks in spools for block in blocks for row in block]
    whole = merged(KernelMerge(sources, 0))
    assert all(np.all(np.diff(chunk.start_ns) >= 0) for chunk in chunks)
    assert sum(map(len, chunks)) + merge.num_implausible == len(rows)
    found = Counter(zip(*columns(KernelTable.concat(chunks)), strict=True))
    assert found <= Counter((row["start_ns"], row["end_ns"], row["correlation"]) for row in rows)
    assert found == Counter(zip(*columns(whole), strict=True))
    assert merge.last_end_ns == whole.end_ns.max(initial=0)


@given(st.lists(ROW, max_size=12))
def test_what_is_left_open_is_all_that_later_kernels_could_change(rows: list[dict[str, int]]) -> None:
    table = sorted_table(rows)
    for cut in range(len(rows)):
        known = judge_stamps(table.slice(0, cut), int(table.start_ns[cut]))
        final = judge_stamps(table)
        settled = ~known.is_open
        np.testing.assert_array_equal(known.is_implausible[settled], final.is_implausible[:cut][settled])


def sorted_table(rows: list[dict[str, int]]) -> KernelTable:
    rows = sorted(rows, key=lambda row: row["start_ns"])
    names = [spec.name for spec in KernelTable.columns()]
    return KernelTable.from_columns(**{name: [row.get(name, 0) for row in rows] for name in names})


def columns(kernels: KernelTable) -> list[list[int]]:
    return [getattr(kernels, name).tolist() for name in ("start_ns", "end_ns", "correlation")]
