"""The command line's top: commands in the order of a user's day, each loaded when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final, NoReturn

import click

from qmeter_native import __version__
from qmeter_native.cli.rim import PROGRAM, run

__all__ = ["SECTIONS", "CommandEntry", "cli", "main"]


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A command by name. Its module in this package has the same name, and so has the function in it.

    ``summary`` stands in the list of commands, which is printed without loading them.
    """

    name: str
    summary: str


SECTIONS: Final[dict[str, tuple[CommandEntry, ...]]] = {
    "Prepare": (
        CommandEntry("doctor", "Say what this machine can measure, what not, and what to do."),
        CommandEntry("methods", "List quantization methods: who serves each, and whether this GPU runs it natively."),
        CommandEntry("calibrate", "Measure a GPU: its energy sensor, its ceilings, what a byte and a FLOP cost."),
        CommandEntry("quantize", "Write a quantized checkpoint of a model that engines load."),
    ),
    "Measure": (
        CommandEntry("trace", "Record kernels, requests and energy of an engine, a server or any CUDA command."),
        CommandEntry("ctl", "Switch the tracing of a launched command on and off while it runs."),
        CommandEntry("kernels", "Time this project's quantized kernels beside their peers, and say what runs here."),
        CommandEntry("quality", "Say how much worse a model becomes by quantization."),
    ),
    "Look": (
        CommandEntry("report", "Say which kernel spent the time and the joules, for which request."),
        CommandEntry("roofline", "Say how far kernels are from what their GPU allows, and what another would allow."),
        CommandEntry("export", "Write a capture in the format of another tool."),
    ),
}
"""Commands by section, in the order of a user's day."""

_EPILOG: Final = """\b
A first run:
  qmeter-native doctor
  qmeter-native trace --model builtin:stdlib-lm --output first.qmt
  qmeter-native report first.qmt

\b
Exit codes: 0 ok, 1 an error, 2 usage, 3 a check found a regression.
Completion: eval "$(_QMETER_NATIVE_COMPLETE=bash_source qmeter-native)"
            (zsh_source and fish_source likewise)
"""


class DayGroup(click.Group):
    """A group whose help has a section for each part of the day and loads no command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in order."""
        return [entry.name for entries in SECTIONS.values() for entry in entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; None if there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(import_module(f"qmeter_native.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(entry.name, entry.summary) for entry in entries])


@click.group(cls=DayGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """Which quantized kernel spent the milliseconds and joules of an LLM server, for which request, in which phase."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the program; ends the process."""
    sys.exit(run(cli, arguments))
