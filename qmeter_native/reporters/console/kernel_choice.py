"""Kernels asked for beside kernels that ran."""

from __future__ import annotations

from typing import Final

from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.footnotes import MISSING
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented, plain
from qmeter_native.reporters.quantity import bar, count, percent, scale_of

__all__ = ["kernel_choice_section"]

_BAR_WIDTH: Final = 20
_MARKS: Final = {True: ("✗ ", "bold red"), False: ("", ""), None: ("– ", "yellow")}


def kernel_choice_section(report: AttributionReport, width: int) -> Section:
    """The verdict, and one row for each implementation that multiplied matrices; empty if none did."""
    choice = report.kernel_choice
    if choice is None:
        return Section("GEMM kernels")
    rows = choice.observed
    time = scale_of([row.time_s for row in rows], "s")
    columns = [
        Column("implementation", [row.implementation for row in rows], justify="left"),
        Column("scheme", [plain(row.scheme) if row.scheme else MISSING for row in rows], justify="left"),
        Column("calls", [count(row.calls) for row in rows], 1),
        Column(f"time {time.unit}", [time.text(row.time_s) for row in rows]),
        Column("share %", [percent(row.time_share) for row in rows]),
        Column("", [bar(row.time_share, _BAR_WIDTH) for row in rows], 2, "left", "cyan"),
    ]
    table, _ = fitted_table(columns, width)
    mark, style = _MARKS[choice.is_fallback]
    verdict = indented(f"{mark}{choice.message}", style)
    is_doubtful = choice.expected and choice.is_fallback is not False
    wanted = [indented(f"it is carried out by {', '.join(choice.expected)}", "dim")] if is_doubtful else []
    return Section("GEMM kernels", [verdict, *wanted, table], "asked for, and ran")
