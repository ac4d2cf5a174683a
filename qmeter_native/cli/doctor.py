"""``qmeter-native doctor``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from qmeter_native.capture.checkup import Checkup, Finding

__all__ = ["doctor"]

_EPILOG: Final = """\b
Examples:
  qmeter-native doctor
  qmeter-native doctor --json | jq '.findings[] | select(.state == "broken")'

Next: qmeter-native trace --model builtin:stdlib-lm
"""
_NEXT: Final = "\nNext: qmeter-native trace --model builtin:stdlib-lm"
_SCHEMA_VERSION: Final = 1
_MARKS: Final = {"ok": ("✓", "green"), "absent": ("–", "dim"), "broken": ("✗", "bold red")}


@click.command(epilog=_EPILOG)
@click.option("--json", "is_json", is_flag=True, help="Print the findings as JSON.")
def doctor(is_json: bool) -> None:
    """Say what this machine can measure, what not, and what to do about it.

    ✓ works, – is not here, ✗ is here but needs your hand. Changes nothing, and exits with 0 whatever it finds.
    """
    from qmeter_native.capture.checkup import check_up

    checkup = check_up(Path.cwd())
    if is_json:
        click.echo(json.dumps(_document(checkup), indent=2, ensure_ascii=False))
        return
    from qmeter_native.reporters.console import make_console, write

    write(make_console(sys.stdout), [part for topic in _topics(checkup) for part in topic])
    click.echo(_NEXT)


def _document(checkup: Checkup) -> dict[str, Any]:
    return {
        "schema_version": _SCHEMA_VERSION,
        "can_measure": [_record(verdict) for verdict in checkup.verdicts],
        "findings": [_record(finding) for finding in checkup.findings],
    }


def _record(finding: Finding) -> dict[str, Any]:
    return {
        "topic": finding.topic,
        "name": finding.name,
        "state": finding.state.value,
        "detail": finding.detail,
        "advice": finding.advice,
    }


def _topics(checkup: Checkup) -> Iterator[list[RenderableType]]:
    """Verdicts first, then the findings: a heading and a table for each topic."""
    from rich.padding import Padding
    from rich.text import Text

    lines = [*checkup.verdicts, *checkup.findings]
    width = max(len(finding.name) for finding in lines)
    for topic in dict.fromkeys(finding.topic for finding in lines):
        table = _table([finding for finding in lines if finding.topic == topic], width)
        yield [Text(f"\n{topic}", "bold"), Padding(table, (0, 0, 0, 2))]


def _table(findings: list[Finding], width: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for column in (1, width, None):
        grid.add_column(width=column)
    for finding in findings:
        mark, style = _MARKS[finding.state.value]
        detail = Text(finding.detail)
        if finding.advice:
            detail.append(f"\n→ {finding.advice}", "yellow" if finding.state.value == "broken" else "dim")
        grid.add_row(Text(mark, style), Text(finding.name), detail)
    return grid
