"""The decoder on a buffer that CUPTI 13.0.1 filled on an H200; ``tests/data/README.md`` says how it was recorded."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from qmeter_native import _native
from qmeter_native.model.tables import KernelClassTable, KernelTable
from qmeter_native.storage.spool import read_spool
from tests.fakes.fake_cupti import CONCURRENT_KERNEL, MEMCPY, FakeCupti
from tests.native.recorded_buffer import RecordedBuffer
from tools.cupti_buffer import save_buffer

NUM_KERNELS, NUM_COPIES, NUM_GRAPH_NODES = 19329, 199, 18291
NODES_PER_REPLAY = 195

READABLE_NAMES = [
    "void at::native::(anonymous namespace)::distribution_elementwise_grid_stride_kernel<float, 4, ",
    "void at::native::vectorized_elementwise_kernel<8, at::native::FillFunctor<c10::Half>, ",
    "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::Half, float, true>(int, float, ",
    "nvjet_sm90_hsh_64x8_64x16_4x2_h_bz_NNT",
    "void at::native::vectorized_elementwise_kernel<8, at::native::(anonymous namespace)::silu_kernel(",
    "void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::Half>, ",
    "void at::native::vectorized_elementwise_kernel<8, at::native::(anonymous namespace)::launch_clamp_scalar(",
    "void at::native::vectorized_elementwise_kernel<2, at::native::FillFunctor<long>, ",
]
"""How the demangled name begins, by the file's index of the mangled one."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """A tracer that got the buffer, and what it wrote."""

    tracer: _native.KernelTracer
    rows: KernelTable
    classes: KernelClassTable


@pytest.fixture(scope="module")
def recorded() -> RecordedBuffer:
    return RecordedBuffer.load(Path(__file__).parents[1] / "data" / "h200-cupti-buffer.json.gz")


@pytest.fixture
def decoding(recorded: RecordedBuffer, fake_cupti: FakeCupti, tmp_path: Path) -> Iterator[Decoding]:
    spool = _native.Spool(str(tmp_path / "spool"), identity="{}")
    tracer = _native.KernelTracer(spool, cupti_path=fake_cupti.path, keep_raw_buffers=1)
    fake_cupti.emit_raw(recorded.live)
    tracer.flush()
    spool.close()
    tables = read_spool(tmp_path / "spool").tables
    rows, classes = tables[KernelTable.NAME], tables[KernelClassTable.NAME]
    assert isinstance(rows, KernelTable)
    assert isinstance(classes, KernelClassTable)
    yield Decoding(tracer, rows, classes)
    tracer.close()


def test_every_record_is_decoded_and_none_is_doubted(decoding: Decoding) -> None:
    stats = decoding.tracer.stats()
    assert (stats["kernels"], stats["memcpys"], stats["memsets"]) == (NUM_KERNELS, NUM_COPIES, 0)
    assert stats["graph_nodes"] == NUM_GRAPH_NODES
    doubts = ("zero_timestamps", "reversed_timestamps", "unknown_records", "dropped_records", "buffers_denied")
    assert {name: stats[name] for name in doubts} == dict.fromkeys(doubts, 0)
    assert stats["error"] is None
    assert decoding.tracer.info()["record_bytes"] == 216
    assert len(decoding.rows) == NUM_KERNELS + NUM_COPIES


@pytest.mark.parametrize(
    "column",
    ["start_ns", "end_ns", "device", "stream", "graph", "graph_node", "correlation", "copied_bytes"],
)
def test_a_column_is_what_numpy_reads_in_the_buffer(decoding: Decoding, recorded: RecordedBuffer, column: str) -> None:
    np.testing.assert_array_equal(getattr(decoding.rows, column), recorded.column(column))


def test_launch_configurations_are_what_numpy_reads_in_the_buffer(decoding: Decoding, recorded: RecordedBuffer) -> None:
    assert len(decoding.classes) == len(READABLE_NAMES) + 2  # copies to the device and within it
    launch = [f"{shape}_{axis}" for shape in ("grid", "block") for axis in "xyz"]
    for column in (*launch, "static_shared_bytes", "dynamic_shared_bytes", "registers"):
        of_each_row = getattr(decoding.classes, column)[decoding.rows.class_id]
        np.testing.assert_array_equal(of_each_row, recorded.column(column), err_msg=column)


def test_names_are_demangled_and_directions_named(decoding: Decoding, recorded: RecordedBuffer) -> None:
    names = decoding.classes.name[decoding.rows.class_id]
    is_kernel = recorded.kinds == CONCURRENT_KERNEL
    kernels = set(zip(names[is_kernel], recorded.records[CONCURRENT_KERNEL]["name"].tolist(), strict=True))
    assert len(kernels) == len(READABLE_NAMES)
    for name, index in kernels:
        assert name.startswith(READABLE_NAMES[index])
    copies = set(zip(names[~is_kernel], recorded.records[MEMCPY]["copy_kind"].tolist(), strict=True))
    assert copies == {("Memcpy HtoD", 1), ("Memcpy DtoD", 8)}


def test_stamps_are_times_of_the_recording_and_no_activity_ends_before_it_starts(decoding: Decoding) -> None:
    rows = decoding.rows
    assert (rows.end_ns >= rows.start_ns).all()
    first, last = np.datetime64(int(rows.start_ns.min()), "ns"), np.datetime64(int(rows.end_ns.max()), "ns")
    assert np.datetime64("2026-11-24T08:00:03") < first < last < np.datetime64("2026-11-24T08:00:04")


def test_kernels_of_a_stream_outside_graphs_follow_each_other(decoding: Decoding, recorded: RecordedBuffer) -> None:
    rows = decoding.rows
    is_eager = (recorded.kinds == CONCURRENT_KERNEL) & (rows.graph_node == 0)
    assert set(rows.stream[is_eager]) == {7, 13, 17}
    for stream in (7, 13, 17):
        of_stream = is_eager & (rows.stream == stream)
        assert (rows.start_ns[of_stream][1:] >= rows.end_ns[of_stream][:-1]).all()
        assert (np.diff(rows.correlation[of_stream].astype(np.int64)) > 0).all()


def test_a_replay_of_a_graph_has_one_correlation_and_each_node_once(decoding: Decoding) -> None:
    rows = decoding.rows
    in_graph = rows.graph_node != 0
    assert set(rows.graph[in_graph]) == {2}
    assert set(rows.graph[~in_graph]) == {0}
    nodes = {
        correlation: rows.graph_node[in_graph & (rows.correlation == correlation)] & 0xFFFFFFFF
        for correlation in np.unique(rows.correlation[in_graph])
    }
    whole = [sorted(numbers) for numbers in nodes.values() if len(numbers) == NODES_PER_REPLAY]
    assert whole == [list(range(NODES_PER_REPLAY))] * (len(nodes) - 1)  # the buffer ended within the last replay


def test_decoding_again_finds_the_same_number_of_records(decoding: Decoding, recorded: RecordedBuffer) -> None:
    result = decoding.tracer.benchmark_decode(2)
    assert result["records"] == NUM_KERNELS + NUM_COPIES
    assert result["raw_bytes"] == len(recorded.live) == 216 * NUM_KERNELS + 96 * NUM_COPIES


def test_a_kept_buffer_is_saved_as_it_was_recorded(
    decoding: Decoding, recorded: RecordedBuffer, tmp_path: Path
) -> None:
    (buffer,) = decoding.tracer.raw_buffers()
    assert buffer == recorded.live
    save_buffer(buffer, decoding.tracer.info(), tmp_path / "buffer.json.gz")
    with gzip.open(tmp_path / "buffer.json.gz") as file:
        assert json.load(file) == recorded.document
