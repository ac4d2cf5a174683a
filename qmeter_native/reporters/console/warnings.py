"""What a reader must know before the first figure."""

from __future__ import annotations

from typing import Final

from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import indented

__all__ = ["warning_section"]

_LOUD: Final = ("quantization_fallback", "dummy_weights_energy")


def warning_section(report: AttributionReport) -> Section:
    """One line for each thing that makes figures those of something else; empty if there is none."""
    messages = [entry.message for entry in report.validity if entry.code in _LOUD]
    return Section("WARNING", [indented(f"✗ {message}", "bold red") for message in messages])
