"""What was lost and what limits the report."""

from __future__ import annotations

from dataclasses import fields

from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import indented
from qmeter_native.reporters.quantity import count

__all__ = ["notes_section"]


def notes_section(report: AttributionReport) -> Section:
    """Losses by kind, then one line for each thing that limits what the capture can prove."""
    counts = {spec.name: getattr(report.loss, spec.name) for spec in fields(report.loss)}
    lost = [f"{count(number)} {name.replace('_', ' ')}" for name, number in counts.items() if number]
    lines = [indented(f"✗ lost: {', '.join(lost)}", "red") if lost else indented("✓ nothing was lost")]
    for entry in report.validity:
        subject = f"{entry.subject}: " if entry.subject else ""
        lines.append(indented(f"! {subject}{entry.message} ({entry.code})", "yellow"))
    return Section("Loss and validity", lines)
