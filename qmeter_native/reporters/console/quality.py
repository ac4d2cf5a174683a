"""Qualities of methods on a terminal: a row a method, then the layers that hurt. Formatting only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.trial import Trial
from qmeter_native.reporters.console.footnotes import MISSING, Footnotes
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented, plain
from qmeter_native.reporters.console.terminal import write
from qmeter_native.reporters.quantity import percent, quantity

__all__ = ["print_quality"]

_LAYERS_SHOWN: Final = 5


def print_quality(trials: Sequence[Trial], console: Console, next_command: str | None = None) -> None:
    """Print ``trials`` of one model at the console's width, ending with the natural next command."""
    width = console.width
    sections = [_methods(trials, width), _tasks(trials, width)]
    sections += [_layers(trial, width) for trial in trials if trial.quality.layers]
    notes = dict.fromkeys(note for trial in trials for note in trial.notes)
    sections.append(Section("Notes", [indented(f"! {note}", "yellow") for note in notes]))
    write(console, [part for section in sections for part in section.parts()])
    if next_command:
        console.print(Text(f"\nNext: {next_command}", "dim"), soft_wrap=True)  # a command is copied as one line


def _methods(trials: Sequence[Trial], width: int) -> Section:
    footnotes = Footnotes()

    def column(title: str, of: Callable[[Trial], str], rank: int = 0, style: str = "") -> Column:
        return Column(title, [of(trial) for trial in trials], rank, style=style)

    columns = [
        Column("method", [plain(trial.method) for trial in trials], justify="left"),
        Column("format", [plain(trial.scheme) for trial in trials], 5, "left", "dim"),
        column("bits/weight", lambda trial: _figure(trial.size.bits_per_weight, 2, footnotes)),
        column("bits/byte", lambda trial: _figure(trial.quality.bits_per_byte, 4, footnotes)),
        column("change", lambda trial: _figure(trial.quality.bits_per_byte_change, 4, footnotes, "+")),
        column("95 %", lambda trial: _ends(trial.quality.bits_per_byte_change), 2, "dim"),
        column("KL", lambda trial: _figure(trial.quality.kl_nats_per_token, 5, footnotes)),
        column("top-1 %", lambda trial: _percent(trial.quality.top1_agreement, footnotes), 1),
        column("Python %", lambda trial: _percent(trial.quality.parse_share, footnotes), 3),
        column("how", lambda trial: trial.provenance.how, 4, "dim"),
    ]
    table, dropped = fitted_table(columns, width)
    remarks = [f"no room for: {', '.join(dropped)}"] if dropped else []
    remarks.append("change: bits per byte less the baseline's, paired · KL: nats a token, from the baseline")
    if any(trial.provenance.how == "torch reference" for trial in trials):
        remarks.append("torch reference: rounded as the method rounds, multiplied in floating point on a CPU")
    return Section(_title(trials[0]), [table], _subtitle(trials[0]), footnotes, remarks)


def _title(trial: Trial) -> str:
    return f"Quality of {plain(trial.model)} on {trial.provenance.device}"


def _subtitle(trial: Trial) -> str:
    provenance = trial.provenance
    size = "" if provenance.num_bytes is None else f", {quantity(float(provenance.num_bytes), 'B')}"
    return f"{plain(provenance.text or '')}{size}; {provenance.dtype}"


def _figure(estimate: Estimate, decimals: int, footnotes: Footnotes, sign: str = "") -> str:
    if estimate.value is None:
        return footnotes.missing(estimate.reason)
    return f"{estimate.value:{sign}.{decimals}f}{footnotes.mark(estimate.reason)}"


def _percent(estimate: Estimate, footnotes: Footnotes) -> str:
    if estimate.value is None:
        return footnotes.missing(estimate.reason)
    return percent(estimate.value) + footnotes.mark(estimate.reason)


def _ends(estimate: Estimate) -> str:
    return MISSING if estimate.low is None else f"{estimate.low:+.4f} to {estimate.high:+.4f}"


def _tasks(trials: Sequence[Trial], width: int) -> Section:
    names = list(dict.fromkeys(name for trial in trials for name in trial.quality.tasks))
    if not names:
        return Section("Tasks")
    footnotes, absent = Footnotes(), Estimate.missing("the task was not run")
    columns = [Column("", names, justify="left")]
    for trial in trials:
        cells = [_figure(trial.quality.tasks.get(name, absent), 4, footnotes) for name in names]
        columns.append(Column(plain(trial.method), cells, rank=len(columns)))
    return Section("Tasks", [fitted_table(columns, width)[0]], "of the evaluation harness", footnotes)


def _layers(trial: Trial, width: int) -> Section:
    shown, footnotes = trial.quality.layers[:_LAYERS_SHOWN], Footnotes()
    columns = [
        Column("", [plain(layer.layer) for layer in shown], justify="left", flexible="cut"),
        Column("output error, %", [percent(layer.output_error) for layer in shown]),
        Column("change alone", [_figure(layer.bits_per_byte_change, 4, footnotes, "+") for layer in shown]),
        Column("95 %", [_ends(layer.bits_per_byte_change) for layer in shown], 1, style="dim"),
    ]
    rest = len(trial.quality.layers) - len(shown)
    remarks = [f"{rest} more layers have smaller errors"] if rest else []
    subtitle = "rounded to nearest, one at a time"
    return Section(
        f"Layers that {plain(trial.method)} hurts", [fitted_table(columns, width)[0]], subtitle, footnotes, remarks
    )
