"""The kinds of run that ``trace`` knows: embedded engine, launched command or vLLM server, server that runs already."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qmeter_native.cli.trace_options import session_options, trace_times, workload
from qmeter_native.errors import EngineError, QmeterError, UsageError

if TYPE_CHECKING:
    from qmeter_native.capture.launch import LaunchOptions
    from qmeter_native.cli.run_display import RunDisplay
    from qmeter_native.model.capture import Capture

__all__ = ["TracedRun", "default_output", "embedded_run", "external_run", "launched_command", "launched_vllm"]

_MAX_CONCURRENCY: Final = 256
"""Requests served at once unless the user says otherwise."""

_DEFAULT_PORT: Final = 8000


@dataclass(frozen=True, slots=True)
class TracedRun:
    """How a run ended: its capture, the exit code for the shell, and what went wrong."""

    capture: Capture
    exit_code: int = 0
    failure: QmeterError | None = None


def embedded_run(path: Path, settings: dict[str, Any], display: RunDisplay) -> TracedRun:
    """Serve the workload with the embedded engine."""
    from qmeter_native.capture.serving import ServingOptions, serve
    from qmeter_native.engines.device_choice import chosen_device
    from qmeter_native.engines.options import EngineOptions

    requests = workload(settings)
    device = chosen_device(settings["device"])
    engine = EngineOptions(
        model=settings["model"],
        device=device,
        dtype=settings["dtype"],
        quantization=settings["quantization"],
        max_concurrency=settings["concurrency"] or min(settings["requests"], _MAX_CONCURRENCY),
        max_context_len=requests.context_len,
        cuda_graphs=settings["cuda_graphs"],
        seed=settings["seed"],
    )
    options = ServingOptions(engine, requests, session_options(settings, device), settings["idle_s"])
    result = serve(path, options, stop=display.stop, observe=display.show)
    return TracedRun(result.capture, failure=_load_error(result.failure, path))


def external_run(path: Path, settings: dict[str, Any], display: RunDisplay) -> TracedRun:
    """Give a server that runs already the workload."""
    from qmeter_native.capture.serving import ExternalOptions, serve_external

    options = ExternalOptions(
        base_url=_base_url(settings),
        workload=workload(settings),
        model=settings["model"],
        session=session_options(settings, settings["device"]),
        idle_s=settings["idle_s"],
    )
    result = serve_external(path, options, stop=display.stop, observe=display.show)
    return TracedRun(result.capture, failure=_load_error(result.failure, path))


def launched_command(
    path: Path, command: tuple[str, ...], has_load: bool, settings: dict[str, Any], display: RunDisplay
) -> TracedRun:
    """Run a command, traced; with a load, it is a server to wait for."""
    command, notes = _with_plugin(command, settings)
    return _launch(path, replace(_launch_options(command, settings, has_load), notes=notes), display)


def launched_vllm(path: Path, settings: dict[str, Any], display: RunDisplay) -> TracedRun:
    """Start a vLLM server for a model, give it the workload, and end it."""
    from qmeter_native.engines.vllm.command import serve_command, vllm_program
    from qmeter_native.model.manifest import EngineInfo

    vllm_program()  # this and the arguments before a checkpoint of many GB is written for nobody
    quantization, flags = _vllm_quantization(settings)
    extra_args = [*flags, *_concurrency(settings), *_engine_args(settings)]
    folder, weights_source = _served_model(settings, display)
    length = settings["input_len"] + settings["output_len"]
    requested = {key: settings[key] for key in ("quantization", "dtype", "tensor_parallel", "cuda_graphs")}
    plain = serve_command(
        str(folder),
        dtype=settings["dtype"],
        quantization=quantization,
        max_model_len=max(2048, length + 1) if weights_source else None,
        port=settings["port"] or _DEFAULT_PORT,
        tensor_parallel=settings["tensor_parallel"],
        cuda_graphs=settings["cuda_graphs"],
        extra_args=extra_args,
    )
    command, notes = _with_plugin(plain, settings)
    options = replace(
        _launch_options(command, settings, has_load=True),
        engine=EngineInfo("vllm", "", settings["model"], {**requested, "command": list(command)}, {}, weights_source),
        log=True,
        notes=notes,
    )
    return _launch(path, options, display)


def _with_plugin(
    command: Sequence[str], settings: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The command with our classes in it if it is a vLLM server, and a note that says why if they are not."""
    from qmeter_native.engines.vllm.command import with_plugin

    completed, reason = with_plugin(command) if settings["plugin"] else (list(command), "--no-plugin was given")
    notes = () if reason is None else (("no_plugin", f"Engine steps and requests were not recorded: {reason}."),)
    return tuple(completed), notes


def _launch(path: Path, options: LaunchOptions, display: RunDisplay) -> TracedRun:
    from qmeter_native.capture.launch import LOG_FILE, launch

    result = launch(path, options, stop=display.stop, observe=display.show)
    failure = result.failure
    if failure is not None and options.log:
        failure = EngineError(failure.what, f"What the server said is in {path / LOG_FILE}.")
    is_wanted_end = options.load is not None and failure is None  # we ended the server ourselves
    return TracedRun(result.capture, 0 if is_wanted_end else result.exit_code, failure)


def _launch_options(command: tuple[str, ...], settings: dict[str, Any], has_load: bool) -> LaunchOptions:
    from qmeter_native.capture.launch import LaunchOptions
    from qmeter_native.capture.server_load import ServerLoad

    load = ServerLoad(_base_url(settings), workload(settings), settings["startup_timeout"]) if has_load else None
    return LaunchOptions(
        command=command,
        session=session_options(settings, settings["device"]),
        times=trace_times(settings),
        load=load,
        idle_s=settings["idle_s"],
        grace_s=settings["grace"],
    )


def _served_model(settings: dict[str, Any], display: RunDisplay) -> tuple[str | Path, str | None]:
    """What vLLM is told to serve, and where its weights come from if we know: a shape's are written first."""
    if not settings["model"].startswith("shape:"):
        return settings["model"], None
    from qmeter_native.quantization.checkpoint_cache import shape_checkpoint
    from qmeter_native.quantization.checkpoint_writer import WEIGHTS_SOURCE

    folder = shape_checkpoint(
        settings["model"],
        settings["quantization"],
        dtype=settings["dtype"],
        seed=settings["seed"],
        progress=display.show_checkpoint,
    )
    return folder, WEIGHTS_SOURCE


def _vllm_quantization(settings: dict[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """VLLM's ``--quantization``, None where the checkpoint tells it, and the flags of one of our methods.

    Raises:
        UsageError: A shape is to be served by a method that vLLM does not have.
    """
    from qmeter_native.quantization.methods import METHODS, method_named

    name, is_shape = settings["quantization"], settings["model"].startswith("shape:")
    if not is_shape and (name not in METHODS or METHODS[name].config):
        return name, ()  # vLLM's own name
    method = method_named(name)
    if method.vllm is None:
        raise UsageError(
            f"vLLM does not serve {name}: {method.why_not_vllm}", f"`qmeter-native methods show {method.name}`"
        )
    return None, method.vllm.flags


def _concurrency(settings: dict[str, Any]) -> list[str]:
    return ["--max-num-seqs", str(settings["concurrency"])] if settings["concurrency"] else []


def _engine_args(settings: dict[str, Any]) -> list[str]:
    try:
        return shlex.split(settings["engine_args"])
    except ValueError as error:
        raise UsageError(f"--engine-args {settings['engine_args']!r}: {error}", "Quote it as for a shell.") from None


def _base_url(settings: dict[str, Any]) -> str:
    return settings["base_url"] or f"http://localhost:{settings['port'] or _DEFAULT_PORT}"


def _load_error(failure: str | None, path: Path) -> QmeterError | None:
    if failure is None:
        return None
    return EngineError(f"the workload was not done: {failure}", f"What was captured until then is in {path}.")


def default_output(name: str) -> Path:
    """``NAME-YYYYMMDD-HHMMSS.qmt``, with a model's or command's name reduced to what file systems like."""
    short = re.sub(r"[^\w.-]+", "-", name.rpartition(":")[2].rstrip("/").rpartition("/")[2]) or "capture"
    return Path(f"{short}-{time.strftime('%Y%m%d-%H%M%S')}.qmt")
