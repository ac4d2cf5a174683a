"""The step marker on a fake libcuda."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmeter_native import _native
from qmeter_native.model.tables import KernelClassTable, KernelTable
from qmeter_native.storage.spool import read_spool
from tests.fakes.build import build_fake
from tests.fakes.fake_cuda import FakeCuda
from tests.fakes.fake_cupti import FakeCupti


@pytest.fixture
def fake_cuda(tmp_path: Path) -> Iterator[FakeCuda]:
    copy = tmp_path / "libcuda.so.1"
    copy.write_bytes(build_fake("fake_cuda.cpp", "libcuda.so.1").read_bytes())
    fake = FakeCuda(copy)
    fake.make_current(True)
    yield fake
    fake.make_current(False)


def test_a_marker_is_a_kernel_whose_block_counts_the_sequence(
    fake_cuda: FakeCuda, fake_cupti: FakeCupti, tmp_path: Path
) -> None:
    spool = _native.Spool(str(tmp_path / "spool"), identity="{}")
    tracer = _native.KernelTracer(spool, cupti_path=fake_cupti.path)
    marker = _native.StepMarker(cuda_path=fake_cuda.path)
    for sequence in (0, 1, 1023, 1024, 5000):
        marker.launch(12, sequence)
    tracer.close()
    marker.close()
    spool.close()
    tables = read_spool(tmp_path / "spool").tables
    rows, classes = tables[KernelTable.NAME], tables[KernelClassTable.NAME]
    assert isinstance(rows, KernelTable)
    assert isinstance(classes, KernelClassTable)
    assert set(classes.name) == {"qmeter_step_marker"}
    assert classes.block_x[rows.class_id].tolist() == [1, 2, 1024, 1, 905]
    assert rows.stream.tolist() == [12] * 5


def test_a_thread_without_a_context_launches_too(fake_cuda: FakeCuda) -> None:
    marker = _native.StepMarker(cuda_path=fake_cuda.path)
    thread = threading.Thread(target=marker.launch, args=(0, 1))
    thread.start()
    thread.join()
    assert fake_cuda.get("launches") == 1
    assert fake_cuda.get("primary_retained") == 0


def test_without_a_context_the_primary_one_is_kept_and_given_back(fake_cuda: FakeCuda) -> None:
    fake_cuda.make_current(False)
    marker = _native.StepMarker(cuda_path=fake_cuda.path)
    marker.launch(0, 41)
    assert (fake_cuda.get("primary_retained"), fake_cuda.get("last_threads")) == (1, 42)
    marker.close()
    marker.close()
    assert (fake_cuda.get("primary_retained"), fake_cuda.get("modules")) == (0, 0)


def test_no_gpu_is_not_found(fake_cuda: FakeCuda) -> None:
    fake_cuda.set("init_result", 100)
    with pytest.raises(_native.NativeFault) as raised:
        _native.StepMarker(cuda_path=fake_cuda.path)
    message, code = raised.value.args
    assert (code, "CUDA_ERROR_NO_DEVICE" in message) == ("not_found", True)


def test_a_refused_module_is_unsupported_and_undone(fake_cuda: FakeCuda) -> None:
    fake_cuda.make_current(False)
    fake_cuda.set("load_result", 209)
    with pytest.raises(_native.NativeFault) as raised:
        _native.StepMarker(cuda_path=fake_cuda.path)
    assert raised.value.args[1] == "unsupported"
    assert fake_cuda.get("primary_retained") == 0


def test_a_refused_launch_is_invalid(fake_cuda: FakeCuda) -> None:
    marker = _native.StepMarker(cuda_path=fake_cuda.path)
    fake_cuda.set("launch_result", 400)
    with pytest.raises(_native.NativeFault) as raised:
        marker.launch(99, 0)
    assert raised.value.args[1] == "invalid"
    marker.close()
    with pytest.raises(_native.NativeFault, match="closed"):
        marker.launch(0, 0)


def test_a_missing_driver_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(_native.NativeFault) as raised:
        _native.StepMarker(cuda_path=str(tmp_path / "libcuda.so.1"))
    assert raised.value.args[1] == "not_found"
