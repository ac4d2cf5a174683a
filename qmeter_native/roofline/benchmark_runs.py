"""Rows of a kernel benchmark as points."""

from __future__ import annotations

from qmeter_native.errors import UsageError
from qmeter_native.kernels.catalog import format_named
from qmeter_native.model.kernel_benchmark import BenchmarkRow, KernelBenchmark
from qmeter_native.model.op_family import OpFamily
from qmeter_native.roofline.point import Demand, KernelRun

__all__ = ["benchmark_runs"]


def benchmark_runs(benchmark: KernelBenchmark) -> tuple[KernelRun, ...]:
    """One point a row that was timed, in the document's order; a row's format says what it had to do at least."""
    timed = [row for row in benchmark.rows if row.time_s.value is not None]
    total_s = sum(row.time_s.value or 0.0 for row in timed)
    return tuple(_run(row, total_s) for row in timed)


def _run(row: BenchmarkRow, total_s: float) -> KernelRun:
    demand, unknown = _demand(row)
    return KernelRun(
        name=row.kernel,
        label=f"{row.kernel} {row.m}×{row.n}×{row.k}",
        role=None,
        op_family=OpFamily.GEMM,
        scheme=row.format,
        launches=1,
        blocks=None,
        time_s=row.time_s,
        time_share=(row.time_s.value or 0.0) / total_s,
        demand=demand,
        unknown=unknown,
        energy_j=row.dynamic_j,
    )


def _demand(row: BenchmarkRow) -> tuple[Demand | None, str | None]:
    try:
        form = format_named(row.format)
    except UsageError as error:
        return None, error.what
    work = form.work(row.m, row.n, row.k)
    operand = "bf16" if form.ceiling == "fp16" and row.dtype == "bfloat16" else form.ceiling
    write_share = work.write_bytes / work.bytes
    return Demand(work.flops, operand, work.bytes, "work model", write_share, least_bytes=work.bytes), None
