"""A kernel benchmark on a terminal: times by tokens, energy, ratios, what is missing. Formatting only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console, RenderableType
from rich.text import Text

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.kernel_benchmark import BenchmarkRow, KernelBenchmark
from qmeter_native.reporters.console.footnotes import MISSING, Footnotes
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented, plain
from qmeter_native.reporters.console.terminal import write
from qmeter_native.reporters.quantity import percent, quantity

__all__ = ["print_benchmark"]

_MICRO: Final = 1e6
_FIRST_M: Final = (1, 16, 64, 256, 1024, 4096)
"""Columns that stay longest where not all have room."""


def print_benchmark(benchmark: KernelBenchmark, console: Console, next_command: str | None = None) -> None:
    """Print ``benchmark`` at the console's width, ending with the natural next command."""
    width = console.width
    sections = [
        _header(benchmark),
        *(_times(rows, width) for rows in _groups(benchmark.rows)),
        _energy(benchmark, width),
        _ratios(benchmark, width),
        Section("Not compared with", [indented(f"{one.kernel}: {one.reason}") for one in benchmark.absent]),
        Section("Notes", [indented(f"! {note}", "yellow") for note in benchmark.notes]),
    ]
    write(console, [part for section in sections for part in section.parts()])
    if next_command:
        console.print(Text(f"\nNext: {next_command}", "dim"), soft_wrap=True)  # a command is copied as one line


def _header(benchmark: KernelBenchmark) -> Section:
    device, protocol = benchmark.device, benchmark.protocol
    software = ", ".join(f"{name} {version}" for name, version in benchmark.software.items())
    lines = [
        f"compute capability {device.compute_capability} · {benchmark.date} · {software}",
        f"median of {protocol.num_repeats} bursts of {quantity(protocol.burst_s, 's')}, in turn, "
        f"over {quantity(float(protocol.working_set_bytes), 'B')} of weights",
    ]
    if benchmark.roof.read_bytes_s is not None:
        lines.append(f"roof {benchmark.roof.source}: reads {quantity(benchmark.roof.read_bytes_s, 'B/s')}")
    clocks = [row.clock_mhz for row in benchmark.rows if row.clock_mhz is not None]
    if clocks:
        lines.append(f"SM clock {min(clocks):,.0f} to {max(clocks):,.0f} MHz")
    return Section(f"Kernels on {plain(device.name)}", [indented(line) for line in lines])


def _groups(rows: Sequence[BenchmarkRow]) -> list[list[BenchmarkRow]]:
    """Rows of one table each."""
    groups: dict[tuple[object, ...], list[BenchmarkRow]] = {}
    for row in rows:
        groups.setdefault((row.format, row.n, row.k, row.dtype), []).append(row)
    return list(groups.values())


def _times(rows: Sequence[BenchmarkRow], width: int) -> Section:
    """Microseconds of each kernel by number of tokens, and the fraction of the roof of the best of ours."""
    first, footnotes = rows[0], Footnotes()
    kernels = list(dict.fromkeys(row.kernel for row in rows))
    cells = {(row.kernel, row.m): _time(row, footnotes) for row in rows}
    columns = [Column("µs at M =", [*map(plain, kernels), "of the roof, %"], justify="left")]
    for number, m in enumerate(sorted({row.m for row in rows})):
        roof = _best_fraction([row for row in rows if row.m == m])
        texts = [cells.get((kernel, m), MISSING) for kernel in kernels]
        columns.append(Column(str(m), [*texts, roof], rank=0 if m in _FIRST_M else 1 + number))
    table, dropped = fitted_table(columns, width)
    remarks = [f"no room for M = {', '.join(dropped)}"] if dropped else []
    title = f"{first.format}, N {first.n:,}, K {first.k:,}"
    return Section(title, [table], first.dtype, footnotes, remarks)


def _time(row: BenchmarkRow, footnotes: Footnotes) -> str:
    if row.time_s.value is None:
        return footnotes.missing(row.time_s.reason)
    micro = row.time_s.value * _MICRO
    return f"{micro:,.1f}" if micro < 1000 else f"{micro:,.0f}"


def _best_fraction(rows: Sequence[BenchmarkRow]) -> str:
    fractions = [row.roof_fraction for row in rows if row.is_ours and row.roof_fraction is not None]
    return percent(max(fractions)) if fractions else MISSING


def _energy(benchmark: KernelBenchmark, width: int) -> Section:
    rows = [row for row in benchmark.rows if row.energy_j.value is not None]
    if not rows:
        return Section("Energy of a call")
    columns = [
        Column("format", [row.format for row in rows], 2, "left"),
        Column("M", [str(row.m) for row in rows]),
        Column("N x K", [f"{row.n} x {row.k}" for row in rows], 3, "left"),
        Column("kernel", [plain(row.kernel) for row in rows], justify="left", flexible="cut"),
        Column("all", [_joules(row.energy_j) for row in rows]),
        Column("above idle", [_joules(row.dynamic_j) for row in rows]),
        Column("± %", [_half_width(row.dynamic_j) for row in rows], 1, style="dim"),
    ]
    idle = "" if benchmark.idle_w.value is None else f"idle {quantity(benchmark.idle_w.value, 'W')}"
    return Section("Energy of a call", [fitted_table(columns, width)[0]], idle)


def _joules(estimate: Estimate) -> str:
    return MISSING if estimate.value is None else quantity(estimate.value, "J")


def _half_width(estimate: Estimate) -> str:
    if not estimate.value or estimate.low is None or estimate.high is None:
        return MISSING
    return percent((estimate.high - estimate.low) / 2 / abs(estimate.value))


def _ratios(benchmark: KernelBenchmark, width: int) -> Section:
    found = {name: one for name, one in benchmark.metrics.items() if one.value is not None}
    if not found:
        return Section("Ratios")
    columns = [
        Column("", list(found), justify="left"),
        Column("ratio", [f"{one.value:.3f}" for one in found.values()]),
        Column("95 %", [_interval(one) for one in found.values()], 1, style="dim"),
        Column("", [one.method.removeprefix("measured: ") for one in found.values()], 2, "left", "dim", "cut"),
    ]
    body: list[RenderableType] = [fitted_table(columns, width)[0]]
    return Section("Ratios", body, "above 1: ours is faster; the smallest of the points")


def _interval(estimate: Estimate) -> str:
    return MISSING if estimate.low is None else f"{estimate.low:.3f} to {estimate.high:.3f}"
