"""Printing a report on standard output, for people or for machines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from qmeter_native.model.report import AttributionReport
    from qmeter_native.reporters.report_options import ReportOptions

__all__ = ["write_report"]


def write_report(
    report: AttributionReport,
    *,
    is_json: bool,
    next_command: str,
    options: ReportOptions | None = None,
    width: int | None = None,
) -> None:
    """Print ``report``.

    Args:
        report: What to print.
        is_json: As the JSON document, else as tables.
        next_command: The natural next one, at the end of the tables.
        options: What the tables show.
        width: Characters a line; the terminal's if None.
    """
    if is_json:
        from qmeter_native.reporters.json_report import report_json

        click.echo(report_json(report))
        return
    from qmeter_native.reporters.console import make_console, print_report

    print_report(report, make_console(sys.stdout, width), options, next_command)
