"""Hardware counters of a real GPU. Skipped where the driver keeps them to administrators."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qmeter_native import _native
from qmeter_native.devices import chip_info
from qmeter_native.devices.metric_sets import metric_set
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.tables import CounterTable, CounterWindowTable
from qmeter_native.storage.spool import SpoolContents, read_spool

torch = pytest.importorskip("torch")

GIB = 2**30
INTERVAL_NS = 100_000


class Sampling:
    """One session and its spool."""

    def __init__(self, path: Path, name: str, **options: Any) -> None:
        self.path = path
        self.spool = _native.Spool(str(path), identity="{}")
        properties = torch.cuda.get_device_properties(0)
        chip = chip_info(properties.name)
        if chip is None:
            pytest.skip(f"{properties.name} has no metric sets")
        metrics = [
            (int(entry.quantity), entry.metric, entry.factor(properties.multi_processor_count))
            for entry in metric_set(chip.chip, name)
        ]
        uuid = f"GPU-{properties.uuid}"
        try:
            self.sampler = _native.PmSampler(
                self.spool, device=0, uuid=uuid, metrics=metrics, interval_ns=INTERVAL_NS, **options
            )
        except _native.NativeFault as fault:
            self.spool.close()
            if fault.args[1] == "forbidden":
                pytest.skip(fault.args[0])
            raise

    def stream(self, count: int) -> None:
        """A burst in which a GiB is read and one is written, ``count`` times."""
        source = torch.randint(0, 255, (GIB,), dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        torch.cuda.synchronize()
        self.sampler.start()
        time.sleep(20 * INTERVAL_NS / 1e9)  # the first sample is dropped
        for _ in range(count):
            torch.add(source, 1, out=target)  # a kernel; a copy may be a copy engine's
        torch.cuda.synchronize()
        time.sleep(20 * INTERVAL_NS / 1e9)
        self.sampler.stop()

    def read(self) -> SpoolContents:
        self.sampler.close()
        self.spool.close()
        return read_spool(self.path)


@pytest.fixture
def sampling(tmp_path: Path) -> Iterator[Sampling]:
    session = Sampling(tmp_path / "pm.spool", "energy", image_samples=2048)
    yield session
    session.sampler.close()


def sums(contents: SpoolContents) -> dict[CounterQuantity, float]:
    table = contents.tables[CounterTable.NAME]
    assert isinstance(table, CounterTable)
    return {CounterQuantity(kind): float(table.value[table.quantity == kind].sum()) for kind in set(table.quantity)}


def test_dram_traffic_is_what_a_streaming_kernel_reads_and_writes(sampling: Sampling) -> None:
    sampling.stream(50)
    stats = sampling.sampler.stats()
    assert (stats["error"], stats["lost_samples"], stats["overflows"]) == (None, 0, 0)
    total = sums(sampling.read())
    assert total[CounterQuantity.DRAM_READ_BYTES] == pytest.approx(50 * GIB, rel=0.1)
    assert total[CounterQuantity.DRAM_WRITE_BYTES] == pytest.approx(50 * GIB, rel=0.1)
    assert 0 < total[CounterQuantity.SM_ACTIVE_CYCLES] <= total[CounterQuantity.SM_ELAPSED_CYCLES]
    assert total[CounterQuantity.TENSOR_CYCLES] == pytest.approx(0, abs=1e6)


def test_samples_are_contiguous_and_on_the_clock_of_the_host(sampling: Sampling) -> None:
    for _ in range(3):
        sampling.stream(10)
    contents = sampling.read()
    table, window = contents.tables[CounterTable.NAME], contents.tables[CounterWindowTable.NAME]
    assert isinstance(table, CounterTable)
    assert isinstance(window, CounterWindowTable)
    one = table.quantity == table.quantity[0]
    start_ns, end_ns = table.start_ns[one], table.end_ns[one]
    holes = start_ns[1:] - end_ns[:-1]
    assert np.count_nonzero(np.abs(holes) > INTERVAL_NS / 2) == 2  # between the bursts
    assert window.enable_ns[0] < start_ns[0]
    assert start_ns[0] > window.start_ns[0] - 10 * INTERVAL_NS
    assert end_ns[-1] < window.stop_ns[0] + 10 * INTERVAL_NS
    assert window.num_samples[0] == len(start_ns)


def test_a_session_is_reused_and_made_again(tmp_path: Path) -> None:
    for repeat in range(3):
        session = Sampling(tmp_path / f"pm-{repeat}.spool", "memory")
        session.stream(5)
        session.stream(5)
        assert sums(session.read())[CounterQuantity.DRAM_READ_BYTES] == pytest.approx(10 * GIB, rel=0.1)
