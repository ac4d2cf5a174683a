"""The truth test on a terminal: figures beside their targets. Formatting only."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, RenderableType

from qmeter_native.calibration.truth_targets import Verdict
from qmeter_native.calibration.verify import VerifyResult
from qmeter_native.reporters.console.footnotes import MISSING
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented, plain
from qmeter_native.reporters.console.terminal import write
from qmeter_native.reporters.quantity import count, percent

__all__ = ["print_truth"]


def print_truth(result: VerifyResult, console: Console) -> None:
    """Print what the test found and whether it is what it should be."""
    met = sum(verdict.is_met for verdict in result.verdicts)
    subtitle = f"{met} of {len(result.verdicts)} targets met"
    sections = [
        Section(f"Truth test, {plain(result.device)}", [_table(result.verdicts, console.width)], subtitle),
        Section("Notes", [indented(f"! {note}", "yellow") for note in result.notes]),
        Section("Written", [indented(str(path)) for path in result.written]),
    ]
    write(console, [part for section in sections for part in section.parts()])


def _table(verdicts: Sequence[Verdict], width: int) -> RenderableType:
    columns = [
        Column("", [verdict.target.label for verdict in verdicts], justify="left"),
        Column("found", [_value(verdict) for verdict in verdicts]),
        Column("95 %", [_interval(verdict) for verdict in verdicts], rank=2, style="dim"),
        Column("of", [_number(verdict) for verdict in verdicts], rank=1, style="dim"),
        Column("target", [verdict.target.wanted for verdict in verdicts]),
        Column("", ["met" if verdict.is_met else "missed" for verdict in verdicts], justify="left"),
    ]
    return fitted_table(columns, width)[0]


def _value(verdict: Verdict) -> str:
    if verdict.metric is None:
        return MISSING
    value = verdict.metric.value
    return count(round(value)) if verdict.target.is_count else f"{percent(value)} %"


def _interval(verdict: Verdict) -> str:
    metric = verdict.metric
    if metric is None or metric.low is None or metric.high is None or verdict.target.is_count:
        return ""
    return f"{percent(metric.low)} to {percent(metric.high)}"


def _number(verdict: Verdict) -> str:
    metric = verdict.metric
    return "" if metric is None or verdict.target.is_count else count(metric.n)
