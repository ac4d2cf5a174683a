"""The single place where errors become messages and exit codes.

0 ok · 1 an error · 2 usage · 3 a comparison or check found a regression · 130 Ctrl-C
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click

from qmeter_native.errors import QmeterError

__all__ = ["PROGRAM", "run"]

PROGRAM: Final = "qmeter-native"
_INTERRUPTED: Final = 130
"""What shells report of a program that SIGINT ended."""
_DEBUG_VARIABLE: Final = "QMETER_DEBUG"


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run ``command`` with ``arguments`` (None: the process's own) and return the exit code.

    Nothing raised inside gets out. Errors of our tree print what happened and a hint; a traceback is printed only where
    ``QMETER_DEBUG`` is set.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show µ is no reason to fail
    try:
        code = command.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    """Print what ``error`` is to standard error; the exit code."""
    if os.environ.get(_DEBUG_VARIABLE) and not isinstance(error, (click.exceptions.Exit, SystemExit)):
        traceback.print_exception(error)
    if isinstance(error, QmeterError):
        _print(error.what, error.hint)
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        _print("interrupted")
        return _INTERRUPTED
    if isinstance(error, SystemExit):  # click's way out when the reader of a pipe has gone
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, OSError):
        return _report_os_error(error)
    _print(f"internal error: {type(error).__name__}: {error}", f"Set {_DEBUG_VARIABLE}=1 to see the traceback.")
    return 1


def _report_os_error(error: OSError) -> int:
    """Standard output cannot be written: quiet if the reader of a pipe has gone, else said."""
    if not isinstance(error, BrokenPipeError):
        where = f": {error.filename}" if error.filename else ""
        _print(f"{error.strerror or error}{where}", f"Set {_DEBUG_VARIABLE}=1 to see where.")
    _discard_output()
    return 1


def _discard_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush cannot fail again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def _print(what: str, hint: str | None = None) -> None:
    is_coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    program = click.style(PROGRAM, fg="red", bold=True) if is_coloured else PROGRAM
    click.echo(f"{program}: {what}", err=True, color=is_coloured)
    if hint:
        click.echo("\n".join(f"  {line}" for line in hint.splitlines()), err=True)
