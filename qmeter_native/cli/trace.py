"""``qmeter-native trace``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from qmeter_native.cli.trace_options import collect_options, command_options, engine_options, workload_options
from qmeter_native.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from qmeter_native.cli.run_display import RunDisplay
    from qmeter_native.cli.trace_runs import TracedRun

__all__ = ["trace"]

_INTERRUPTED: Final = 130

_SERVER_OPTIONS: Final = ("requests", "rate", "input_len", "output_len", "warmup", "base_url", "port")
"""Any of these given with a command says that the command is a server to be driven."""

_OF_LAUNCHES: Final = ("start_after", "start_stopped", "duration", "duty", "grace", "plugin")
_OF_ENGINES: Final = ("quantization", "dtype", "cuda_graphs", "tensor_parallel", "engine_args", "concurrency")
_OF_SERVERS: Final = ("base_url", "port", "startup_timeout")
_OF_COUNTERS: Final = ("counters_after", "counter_interval")

_WITHOUT_EFFECT: Final[dict[str, tuple[str, ...]]] = {
    "a command": ("engine", "model", *_OF_ENGINES),
    "--engine transformers": (*_OF_LAUNCHES, *_OF_SERVERS, "tensor_parallel", "engine_args"),
    "--engine vllm": ("base_url",),
    "--engine openai": (*_OF_LAUNCHES, *_OF_ENGINES, "cupti_path", "counters", *_OF_COUNTERS),
}
"""Options that are refused with each kind of run: what the user asked for would silently not happen."""

_EPILOG: Final = """\b
Examples:
  qmeter-native trace --model builtin:stdlib-lm
  qmeter-native trace --model shape:llama-3.1-8b --device cuda --requests 64 --output llama.qmt
  qmeter-native trace --engine vllm --model shape:llama-3.1-8b --quantization gptq --requests 64
  qmeter-native trace -- python my_program.py
  qmeter-native trace --duty 0.2/2 -- vllm serve my-model
  qmeter-native trace --requests 100 --rate 5 --port 8000 -- vllm serve my-model
  qmeter-native trace --engine openai --base-url http://localhost:8000 --requests 100

\b
Ctrl-C ends the run and keeps what it has; a second one does not wait, and kills a command.
A command's exit code becomes that of `trace`; a server that was driven is ended, and 0.
Next: qmeter-native report NAME.qmt, or while it runs: qmeter-native ctl status NAME.qmt
"""


@click.command(epilog=_EPILOG, context_settings={"allow_interspersed_args": False})
@engine_options
@workload_options
@collect_options
@command_options
@click.option("--output", type=click.Path(path_type=Path), help="Capture to create.  [default: NAME-TIME.qmt]")
@click.option("--json", "is_json", is_flag=True, help="Print the report as JSON.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def trace(command: tuple[str, ...], output: Path | None, is_json: bool, **settings: Any) -> None:
    """Record who spent the time and the joules: in an engine of ours, in any CUDA command, or in a vLLM server.

    Writes a capture, a directory NAME.qmt, and prints its report. The embedded engine needs `pip install
    'qmeter-native[engine]'`, --engine vllm needs vLLM.
    """
    from qmeter_native.attribution.report import attribute
    from qmeter_native.cli.report_output import write_report
    from qmeter_native.cli.run_display import RunDisplay
    from qmeter_native.cli.trace_runs import default_output

    source = click.get_current_context().get_parameter_source
    given = {name for name in settings if source(name) is ParameterSource.COMMANDLINE}
    _check(command, settings, given)
    path = output or default_output(command[0] if command else settings["model"] or "server")
    with RunDisplay(is_live=not command) as display:
        run = _run(path, command, settings, given, display)
    report = attribute(run.capture, path.name)
    write_report(report, is_json=is_json, next_command=f"qmeter-native report {path}")
    _check_written(path, run)
    if run.failure is not None:
        raise run.failure
    sys.exit(_INTERRUPTED if display.is_interrupted and not command else run.exit_code)


def _check(command: tuple[str, ...], settings: dict[str, Any], given: set[str]) -> None:
    kind = "a command" if command else f"--engine {settings['engine']}"
    hint = "The command says itself what it serves and how." if command else "Leave it out."
    _refuse(given.intersection(_WITHOUT_EFFECT[kind]), f"with {kind}", hint)
    if not settings["counters"]:
        _refuse(given.intersection(_OF_COUNTERS), "without --counters", "Give --counters SECONDS.")
    elif settings["counters"] == "continuous":
        _refuse(given.intersection(["counters_after"]), "with --counters continuous", "Leave it out.")
    if not command and not settings["model"] and settings["engine"] != "openai":
        raise UsageError(
            "there is nothing to trace", "Give --model, or `-- COMMAND` at the end. `qmeter-native trace --help`."
        )
    if settings["engine"] == "openai" and not (settings["base_url"] or settings["port"]):
        raise UsageError("--engine openai needs a server", "Give --base-url http://HOST:PORT.")


def _refuse(names: set[str], when: str, hint: str) -> None:
    for parameter in click.get_current_context().command.params:
        if parameter.name in names:
            raise UsageError(f"{parameter.opts[0]} does nothing {when}", hint)


def _run(
    path: Path, command: tuple[str, ...], settings: dict[str, Any], given: set[str], display: RunDisplay
) -> TracedRun:
    from qmeter_native.cli import trace_runs

    if command:
        return trace_runs.launched_command(path, command, bool(given & set(_SERVER_OPTIONS)), settings, display)
    if settings["engine"] == "vllm":
        return trace_runs.launched_vllm(path, settings, display)
    if settings["engine"] == "openai":
        return trace_runs.external_run(path, settings, display)
    return trace_runs.embedded_run(path, settings, display)


def _check_written(path: Path, run: TracedRun) -> None:
    from qmeter_native.capture.finalize import WRITE_FAILED

    for entry in run.capture.manifest.validity:
        if entry.code == WRITE_FAILED:
            raise CaptureError(
                f"{path} is not complete. {entry.message}",
                "Free some space and trace again. What was captured until then can be read.",
            )
