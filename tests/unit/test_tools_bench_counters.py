"""Our counters against Nsight Compute's: what is read from its table, and how loops are compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.tables import RangeTable
from tests.counters import chain, counted
from tools.bench_counters import LAUNCHES, LoopBytes, compare, loop_bytes, metrics_of, ncu_bytes
from tools.ncu_table import ncu_command, parse_ncu

HEADER = '"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'


def ncu_text(kernels: list[tuple[str, float, float]]) -> str:
    """What ``ncu --csv`` prints of kernels with their bytes read and written, a program's words before it."""
    lines = ["==PROF== Connected to process 7", "negate_8mib", HEADER]
    for number, (name, read, write) in enumerate(kernels):
        lines.append(f'"{number}","7","{name}","dram__bytes_read.sum","byte","{read:,.0f}"')
        lines.append(f'"{number}","7","{name}","dram__bytes_write.sum","byte","{write:,.0f}"')
    return "\n".join(lines)


def capture_of_loops() -> Capture:
    """One kernel class of 8 us that reads 1 TB/s and writes half of that, in the range of the first loop."""
    kernels = chain(np.random.default_rng(0), [8_000], 20_000, gap_ns=3_000)
    rates = {CounterQuantity.DRAM_READ_BYTES: [1e12], CounterQuantity.DRAM_WRITE_BYTES: [0.5e12]}
    capture = counted(kernels, rates, interval_ns=20_000, noise=0.01)
    ranges = RangeTable.from_columns(
        start_ns=[capture.manifest.start_ns],
        end_ns=[capture.manifest.end_ns],
        name=["loop:0"],
        thread=[1],
        depth=[0],
        process=[0],
    )
    return replace(capture, ranges=ranges)


def test_the_table_of_nsight_compute_is_found_among_other_words() -> None:
    kernels = parse_ncu(ncu_text([("copy", 12_345_678, 8), ("gemm", 5, 6)]))
    assert [kernel["name"] for kernel in kernels] == ["copy", "gemm"]
    assert kernels[0]["dram__bytes_read.sum"] == 12_345_678
    with pytest.raises(SystemExit, match="no table"):
        parse_ncu("==ERROR== no permission")


def test_launches_under_nsight_compute_are_averaged_loop_by_loop() -> None:
    kernels = [("a", 100.0 + launch, 10.0) for launch in range(LAUNCHES)] + [("b", 7.0, 3.0)] * LAUNCHES
    means = ncu_bytes(json.dumps([4, 0]) + "\n" + ncu_text(kernels))
    assert means == {4: (pytest.approx(100 + (LAUNCHES - 1) / 2), 10.0), 0: (7.0, 3.0)}
    with pytest.raises(SystemExit, match="not 12 of each"):
        ncu_bytes(json.dumps([4]) + "\n" + ncu_text(kernels))


def test_bytes_of_a_loop_come_from_the_samples_of_its_range() -> None:
    (one,) = loop_bytes(capture_of_loops()).values()
    assert one.name == "negate_8mib"
    assert one.duration_s == pytest.approx(8e-6, rel=0.02)
    assert one.read_bytes == pytest.approx(1e12 * one.duration_s, rel=0.01)
    assert one.write_bytes == pytest.approx(0.5e12 * one.duration_s, rel=0.01)
    assert one.all_bytes == pytest.approx(one.read_bytes + one.write_bytes, rel=0.01)


def test_errors_are_kept_apart_by_the_length_of_the_kernel() -> None:
    def one(name: str, duration_s: float) -> LoopBytes:
        return LoopBytes(name, name, duration_s, 100, 90.0, 10.0, 1.0, 100.0, None)

    ours = {0: one("long", 50e-6), 1: one("longer", 1e-3), 2: one("short", 8e-6), 3: one("shortest", 4e-6)}
    theirs = dict.fromkeys(ours, (100.0, 0.0)) | {1: (99.0, 0.0), 2: (80.0, 0.0)}
    metrics = metrics_of(compare(ours, theirs))
    assert metrics["dram_error_20us"].value == pytest.approx(100 / 99 - 1)
    assert metrics["dram_error_20us_median"].value == pytest.approx((100 / 99 - 1) / 2)
    assert metrics["dram_error_5us"].value == pytest.approx(0.25)
    assert metrics["dram_error_5us"].n == 1


def test_nsight_compute_leaves_caches_and_clocks_alone() -> None:
    command = ncu_command(Path("ncu"), ["python", "x.py"])
    assert command[command.index("--cache-control") + 1] == "none"
    assert command[command.index("--clock-control") + 1] == "none"
    assert command[-2:] == ["python", "x.py"]
