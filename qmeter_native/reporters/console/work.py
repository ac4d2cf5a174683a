"""What the kernels had to do, beside what they took."""

from __future__ import annotations

from collections.abc import Sequence

from qmeter_native.model.report import AttributionReport
from qmeter_native.model.work import WorkRow, WorkSummary
from qmeter_native.reporters.console.footnotes import MISSING
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented, plain
from qmeter_native.reporters.quantity import Scale, count, percent, scale_of

__all__ = ["work_section"]


def work_section(report: AttributionReport, width: int) -> Section:
    """One row a role in the model; empty if no work model was made."""
    work = report.work
    if work is None:
        return Section("Work")
    body = [indented(_known(work)), *(indented(note, "dim") for note in work.notes)]
    if not work.rows:
        return Section("Work", [*body, indented(f"{MISSING} {plain(work.reason or 'no reason was recorded')}")])
    table, _ = fitted_table(_columns(work.rows), width)
    return Section("Work", [table, *body], "by the model's arithmetic, padding left out")


def _columns(rows: Sequence[WorkRow]) -> list[Column]:
    time = scale_of([row.time_s for row in rows], "s")
    columns = [
        Column("role", [plain(row.role) for row in rows], justify="left"),
        Column("by", [plain(row.implementation) if row.implementation else MISSING for row in rows], 2, "left"),
        Column("layers", [count(row.num_layers) if row.num_layers else MISSING for row in rows], 4),
        Column("kernels", [count(row.calls) for row in rows], 3),
        Column(f"time {time.unit}", [time.text(row.time_s) for row in rows]),
        Column("share %", [percent(row.time_share) for row in rows]),
        Column("TFLOP/s", [_figure(row.flops_per_s, Scale(1e12, "", 1)) for row in rows]),
        Column("TB/s", [_figure(row.bytes_per_s, Scale(1e12, "", 3)) for row in rows]),
    ]
    if any(row.energy_j.value is not None for row in rows):
        joules = scale_of([row.energy_j.value for row in rows], "J")
        columns.append(Column(f"energy {joules.unit}", [_figure(row.energy_j.value, joules) for row in rows], 1))
    if any(row.padding_flops for row in rows):
        columns.append(Column("padding %", [_padding(row) for row in rows], 1))
    return columns


def _figure(value: float | None, scale: Scale) -> str:
    return MISSING if value is None else scale.text(value)


def _padding(row: WorkRow) -> str:
    """Operations on padding over all operations."""
    if row.flops is None:
        return MISSING
    total = row.flops + row.padding_flops
    return percent(row.padding_flops / total) if total else MISSING


def _known(work: WorkSummary) -> str:
    shares = {"family": work.family_known, "step": work.step_known, "layer": work.layer_known}
    told = [f"{name} {percent(share)} %" for name, share in shares.items() if share is not None]
    parts = ["known of kernel time: " + " · ".join(told) if told else "no kernel ran"]
    if work.padding_share is not None:
        parts.append(f"padding {percent(work.padding_share)} % of token places")
    return " · ".join(parts)
