"""Time and energy by phase."""

from __future__ import annotations

from typing import Final

from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.footnotes import Footnotes
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table
from qmeter_native.reporters.quantity import bar, count, percent, scale_of

__all__ = ["phase_section"]

_NAMES: Final = {"none": "no request"}
_BAR_WIDTH: Final = 20


def phase_section(report: AttributionReport, width: int) -> Section:
    """One row a phase; work of no request has its own."""
    rows = report.phases
    if not rows:
        return Section("Phases")
    footnotes = Footnotes()
    time = scale_of([row.time_s for row in rows], "s")
    energy = scale_of([row.energy_j.value for row in rows], "J")
    per_token = scale_of([row.j_per_token.value for row in rows], "J")
    columns = [
        Column("", [_NAMES.get(row.phase, row.phase) for row in rows], justify="left"),
        Column("tokens", [count(row.num_tokens) for row in rows]),
        Column(f"time {time.unit}", [time.text(row.time_s) for row in rows]),
        Column("share %", [percent(row.time_share) for row in rows]),
        Column(f"energy {energy.unit}", [footnotes.estimate(row.energy_j, energy) for row in rows]),
        Column(f"per token {per_token.unit}", [footnotes.estimate(row.j_per_token, per_token) for row in rows]),
        Column("", [bar(row.time_share, _BAR_WIDTH) for row in rows], 1, "left", "cyan"),
    ]
    table, _ = fitted_table(columns, width)
    return Section("Phases", [table], footnotes=footnotes)
