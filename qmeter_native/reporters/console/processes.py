"""Which process ran what where."""

from __future__ import annotations

from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.footnotes import MISSING
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, plain
from qmeter_native.reporters.quantity import count

__all__ = ["process_section"]


def process_section(report: AttributionReport, width: int) -> Section:
    """One row a process; empty if there is only one."""
    rows = report.processes
    if len(rows) < 2:
        return Section("Processes")
    offsets = [MISSING if row.clock_offset_ns is None else f"{count(row.clock_offset_ns)} ns" for row in rows]
    columns = [
        Column("process", [str(row.process) for row in rows]),
        Column("pid", [str(row.pid) for row in rows]),
        Column("rank", [MISSING if row.rank is None else str(row.rank) for row in rows]),
        Column("devices", [", ".join(map(str, row.devices)) or MISSING for row in rows]),
        Column("kernels", [count(row.num_kernels) for row in rows]),
        Column("clock offset", offsets, 1),
        Column("command", [plain(row.command) or MISSING for row in rows], 2, "left", flexible="cut"),
    ]
    table, _ = fitted_table(columns, width)
    return Section("Processes", [table])
