"""Benchmarks as files, and several of them put together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qmeter_native.benchmark.metrics import benchmark_metrics
from qmeter_native.errors import BenchmarkError
from qmeter_native.model.kernel_benchmark import (
    AbsentKernel,
    BenchmarkRow,
    KernelBenchmark,
    benchmark_from_dict,
    benchmark_to_dict,
)

__all__ = ["joined", "load_benchmark", "save_benchmark"]


def save_benchmark(benchmark: KernelBenchmark, path: Path) -> None:
    """Write a document, a row a line.

    Raises:
        BenchmarkError: The file cannot be written.
    """
    document = benchmark_to_dict(benchmark)
    rows = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in document.pop("rows")]
    head = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    lines = ",\n  ".join(rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{head[:-2]},\n "rows": [\n  {lines}\n ]\n}}\n', encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be written: {error.strerror}", "Choose another file.") from error


def load_benchmark(path: Path) -> KernelBenchmark:
    """Read a document.

    Raises:
        BenchmarkError: There is none, or it is foreign, damaged or too new.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "`qmeter-native kernels bench -o FILE.json` makes one."
        raise BenchmarkError(f"{path} cannot be read: {error.strerror}", hint) from error
    except ValueError as error:
        raise BenchmarkError(f"{path} is no JSON: {error}", "Run `qmeter-native kernels bench` again.") from error
    return benchmark_from_dict(document, str(path))


def joined(benchmarks: Sequence[KernelBenchmark]) -> KernelBenchmark:
    """Runs on one kind of GPU as one; metrics are computed anew.

    Of rows of the same kernel and point the first that was timed counts, with the first joules that were measured.

    Raises:
        BenchmarkError: They are of different GPUs, or there are none.
    """
    if not benchmarks:
        raise BenchmarkError("there is no benchmark to show", "Give files of `qmeter-native kernels bench -o`.")
    names = {one.device.name for one in benchmarks}
    if len(names) > 1:
        raise BenchmarkError(f"the benchmarks are of {' and '.join(sorted(names))}", "Give those of one kind of GPU.")
    rows: dict[tuple[object, ...], BenchmarkRow] = {}
    absent: dict[str, AbsentKernel] = {}
    for benchmark in benchmarks:
        for row in benchmark.rows:
            key = (*row.point, row.kernel, row.dtype)
            rows[key] = _merged(rows[key], row) if key in rows else row
        for entry in benchmark.absent:
            absent.setdefault(entry.kernel, entry)
    return replace(
        benchmarks[0],
        rows=tuple(rows.values()),
        absent=tuple(absent.values()),
        num_points=max(sum(one.num_points for one in benchmarks), len({row.point for row in rows.values()})),
        metrics=benchmark_metrics(tuple(rows.values())),
        notes=tuple(dict.fromkeys(note for one in benchmarks for note in one.notes)),
    )


def _merged(first: BenchmarkRow, later: BenchmarkRow) -> BenchmarkRow:
    chosen = later if first.time_s.value is None and later.time_s.value is not None else first
    if chosen.energy_j.value is not None or later.energy_j.value is None:
        return chosen
    return replace(chosen, energy_j=later.energy_j, dynamic_j=later.dynamic_j)
