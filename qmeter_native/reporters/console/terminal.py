"""Where console output goes: how wide it is, and whether it may have colours."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TextIO

from rich.console import Console, RenderableType

__all__ = ["make_console", "write"]

_PIPE_WIDTH: Final = 100
"""Characters a line where the output is no terminal and COLUMNS is not set."""


def make_console(stream: TextIO, width: int | None = None) -> Console:
    """A console on ``stream``: no escape sequences unless it is a terminal and NO_COLOR is unset or empty."""
    is_coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    if width is None and not stream.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        width = _PIPE_WIDTH
    return Console(
        file=stream,
        width=width,
        force_terminal=is_coloured,
        color_system="auto" if is_coloured else None,
        markup=False,
        highlight=False,
        emoji=False,
    )


def write(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print ``parts`` without the spaces that pad tables to the console's width: nobody wants them in a file."""
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    console.file.write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")
