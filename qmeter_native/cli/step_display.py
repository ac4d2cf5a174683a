"""Live progress of steps on standard error, where Ctrl-C ends the program as ever."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

__all__ = ["StepDisplay"]

_PLAIN_PERIOD_S: Final = 5.0
"""Seconds between lines where standard error is no terminal."""


class StepDisplay:
    """Context manager: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not self._is_terminal,
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("starting", total=None)
        self._printed = time.monotonic()

    def show(self, description: str, done: int, total: int) -> None:
        """Show how far a step is."""
        self._bar.update(self._task, description=description, completed=done, total=total)
        if not self._is_terminal and time.monotonic() - self._printed >= _PLAIN_PERIOD_S:
            self._printed = time.monotonic()
            click.echo(f"{description}: {done / max(total, 1):.0%}", err=True)

    def __enter__(self) -> StepDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
