"""Energy by part of the machine."""

from __future__ import annotations

from typing import Final

from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table
from qmeter_native.reporters.quantity import bar, percent, scale_of

__all__ = ["component_section"]

_BAR_WIDTH: Final = 20
_LABELS: Final = {
    "dram": "DRAM",
    "l2": "L2",
    "tensor": "tensor pipes",
    "sm": "rest of the SMs",
    "unknown": "kernels known by time only",
    "static": "static, while busy",
    "idle": "idle",
}


def component_section(report: AttributionReport, width: int) -> Section:
    """One row a component; empty without an energy source."""
    rows = [row for row in report.components if row.energy_j.value is not None]
    if not rows:
        return Section("Energy by component")
    scale = scale_of([row.energy_j.value for row in rows], "J")
    shares = [row.share or 0.0 for row in rows]
    columns = [
        Column("", [_LABELS[row.component] for row in rows], justify="left"),
        Column(f"energy {scale.unit}", [scale.text(row.energy_j.value or 0.0) for row in rows]),
        Column("share %", [percent(share) for share in shares]),
        Column("", [bar(share, _BAR_WIDTH) for share in shares], 1, "left", "cyan"),
    ]
    table, _ = fitted_table(columns, width)
    return Section("Energy by component", [table], "kernels' dynamic joules are modelled")
