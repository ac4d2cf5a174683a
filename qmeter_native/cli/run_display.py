"""Live progress of a run on standard error, and Ctrl-C as a request to stop."""

from __future__ import annotations

import signal
import sys
import time
from threading import Event
from types import FrameType, TracebackType
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from qmeter_native.capture.driving import RunPhase, RunStatus
from qmeter_native.reporters.quantity import quantity

__all__ = ["RunDisplay"]

_PLAIN_PERIOD_S: Final = 5.0
"""Seconds between lines where standard error is no terminal."""


class RunDisplay:
    """Context manager. While it is open, the first Ctrl-C sets ``stop``; the second ends the program as ever.

    Args:
        is_live: Draw a live line if standard error is a terminal; False where a command writes to it as well.

    Attributes:
        stop: Set when the user wants the run to end.
    """

    def __init__(self, *, is_live: bool = True) -> None:
        self.stop = Event()
        self._is_terminal = is_live and sys.stderr.isatty()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not self._is_terminal,
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("starting", total=None, figures="")
        self._phase: RunPhase | None = None
        self._serving_since = 0.0
        self._printed = 0.0
        self._old_handler: Any = None

    @property
    def is_interrupted(self) -> bool:
        """Whether the user pressed Ctrl-C."""
        return self.stop.is_set()

    def show(self, status: RunStatus) -> None:
        """Show where the run is."""
        if status.phase is not self._phase:
            self._enter(status.phase)
        progress = status.progress
        figures = self._figures(status)
        total = None if progress is None else progress.num_requests
        completed = 0 if progress is None else progress.num_finished
        self._bar.update(self._task, description=status.phase.value, total=total, completed=completed, figures=figures)
        if not self._is_terminal and figures and time.monotonic() - self._printed >= _PLAIN_PERIOD_S:
            self._printed = time.monotonic()
            click.echo(f"{status.phase.value}: {figures}", err=True)

    def show_checkpoint(self, done_bytes: int, total_bytes: int) -> None:
        """Show how far the writing of a shape's checkpoint is."""
        figures = f"{quantity(done_bytes, 'B')} of {quantity(total_bytes, 'B')}"
        self.show_step("writing a checkpoint", figures, done_bytes, total_bytes)

    def show_step(self, description: str, figures: str, done: float, total: float | None) -> None:
        """Show how far a step is that serves no requests; ``total`` is None where its end is not known."""
        self._bar.update(self._task, description=description, total=total, completed=done, figures=figures)
        if not self._is_terminal and time.monotonic() - self._printed >= _PLAIN_PERIOD_S:
            self._printed = time.monotonic()
            click.echo(f"{description}: {figures}", err=True)

    def _enter(self, phase: RunPhase) -> None:
        self._phase = phase
        self._printed = self._serving_since = time.monotonic()
        if not self._is_terminal:
            click.echo(f"{phase.value} …", err=True)

    def _figures(self, status: RunStatus) -> str:
        """Requests done, tokens a second, watts, joules so far."""
        progress = status.progress
        if progress is None:
            return ""
        seconds = max(time.monotonic() - self._serving_since, 1e-9)
        figures = [
            f"{progress.num_finished}/{progress.num_requests} requests",
            f"{progress.num_output_tokens / seconds:.0f} tokens/s",
        ]
        if status.power_w is not None:
            figures.append(quantity(status.power_w, "W"))
        if status.energy_j is not None:
            figures.append(quantity(status.energy_j, "J"))
        return " · ".join(figures)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            signal.signal(signal.SIGINT, self._old_handler)
            raise KeyboardInterrupt
        self.stop.set()
        click.echo("stopping; what was captured is kept (Ctrl-C again to quit at once)", err=True)

    def __enter__(self) -> RunDisplay:
        self._old_handler = signal.signal(signal.SIGINT, self._interrupt)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
        signal.signal(signal.SIGINT, self._old_handler)
