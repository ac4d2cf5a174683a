"""The report on a terminal: warnings, balances, totals, kernels, phases, requests, work, notes. Formatting only."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.balance import balance_section
from qmeter_native.reporters.console.components import component_section
from qmeter_native.reporters.console.coverage import coverage_sections
from qmeter_native.reporters.console.explanations import explanation_sections
from qmeter_native.reporters.console.header import header_section
from qmeter_native.reporters.console.kernel_choice import kernel_choice_section
from qmeter_native.reporters.console.kernels import kernel_section
from qmeter_native.reporters.console.notes import notes_section
from qmeter_native.reporters.console.phases import phase_section
from qmeter_native.reporters.console.processes import process_section
from qmeter_native.reporters.console.requests import request_sections
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.terminal import make_console, write
from qmeter_native.reporters.console.totals import totals_sections
from qmeter_native.reporters.console.warnings import warning_section
from qmeter_native.reporters.console.work import work_section
from qmeter_native.reporters.report_options import ReportOptions

__all__ = ["make_console", "print_report", "write"]


def print_report(
    report: AttributionReport, console: Console, options: ReportOptions | None = None, next_command: str | None = None
) -> None:
    """Print ``report`` at the console's width, ending with the natural next command."""
    options = options or ReportOptions()
    width = console.width
    sections: list[Section] = [header_section(report), warning_section(report), balance_section(report)]
    sections += [
        *coverage_sections(report, width),
        *totals_sections(report, width),
        component_section(report, width),
        kernel_choice_section(report, width),
    ]
    rankings = [options.sort] if options.sort else ["time", "energy"]
    sections += [kernel_section(report, ranking, options.num_kernels, width) for ranking in rankings]
    sections += [phase_section(report, width), *request_sections(report, options.num_requests, width)]
    sections += [*explanation_sections(report, width), work_section(report, width), process_section(report, width)]
    sections.append(notes_section(report))
    parts = [part for section in sections for part in section.parts()]
    write(console, parts)
    if next_command:
        console.print(Text(f"\nNext: {next_command}", "dim"), soft_wrap=True)  # a command is copied as one line
