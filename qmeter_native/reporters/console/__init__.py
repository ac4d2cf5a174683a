"""The report on a terminal: balances first, then totals, kernels, phases, requests, notes. Formatting only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TextIO

from rich.console import Console
from rich.text import Text

from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.balance import balance_section
from qmeter_native.reporters.console.header import header_section
from qmeter_native.reporters.console.kernels import kernel_section
from qmeter_native.reporters.console.notes import notes_section
from qmeter_native.reporters.console.phases import phase_section
from qmeter_native.reporters.console.requests import request_sections
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.totals import totals_sections

__all__ = ["ReportOptions", "make_console", "print_report"]

PIPE_WIDTH = 100
"""Characters a line where the output is no terminal and COLUMNS is not set."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What to show.

    Attributes:
        sort: Rank kernels by ``time`` or ``energy``; None shows both rankings.
        num_kernels: Kernels a ranking.
        num_requests: Requests shown, slowest first; 0 for none.
    """

    sort: Literal["time", "energy"] | None = None
    num_kernels: int = 12
    num_requests: int = 5


def make_console(stream: TextIO, width: int | None = None) -> Console:
    """A console on ``stream``: no escape sequences unless it is a terminal and NO_COLOR is unset or empty."""
    is_coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    if width is None and not stream.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        width = PIPE_WIDTH
    return Console(
        file=stream,
        width=width,
        force_terminal=is_coloured,
        color_system="auto" if is_coloured else None,
        markup=False,
        highlight=False,
        emoji=False,
    )


def print_report(
    report: AttributionReport, console: Console, options: ReportOptions | None = None, next_command: str | None = None
) -> None:
    """Print ``report`` at the console's width, ending with the natural next command."""
    options = options or ReportOptions()
    width = console.width
    sections: list[Section] = [header_section(report), balance_section(report), *totals_sections(report, width)]
    rankings = [options.sort] if options.sort else ["time", "energy"]
    sections += [kernel_section(report, ranking, options.num_kernels, width) for ranking in rankings]
    sections += [phase_section(report, width), *request_sections(report, options.num_requests, width)]
    sections.append(notes_section(report))
    with console.capture() as captured:
        for section in sections:
            section.print(console)
        if next_command:
            console.print(Text(f"\nNext: {next_command}", "dim"), soft_wrap=True)
    # Tables are padded to the width of the console; nobody wants those spaces in a file.
    console.file.write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")
