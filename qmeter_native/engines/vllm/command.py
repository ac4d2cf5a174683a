"""Command lines of vLLM servers: to write one, to recognise one, and to have one record its steps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from qmeter_native.errors import MissingExtraError

__all__ = ["SCHEDULER_CLS", "WORKER_CLS", "is_server", "serve_command", "vllm_program", "with_plugin"]

WORKER_CLS: Final = "qmeter_native.engines.vllm.worker.QmeterWorker"
SCHEDULER_CLS: Final = "qmeter_native.engines.vllm.scheduler.QmeterScheduler"

_CLI: Final = "vllm.entrypoints.cli.main"
_API_SERVER: Final = "vllm.entrypoints.openai.api_server"
_PROBE: Final = "import importlib.util as u; print(u.find_spec('qmeter_native._native') is not None)"
_PROBE_TIMEOUT_S: Final = 20.0


def serve_command(
    model: str,
    *,
    dtype: str = "auto",
    quantization: str | None = None,
    max_model_len: int | None = None,
    port: int = 8000,
    tensor_parallel: int = 1,
    cuda_graphs: bool = True,
    extra_args: Sequence[str] = (),
) -> list[str]:
    """A command that serves ``model`` on this host only.

    Args:
        model: A local directory or a hub id.
        dtype: vLLM's ``--dtype``.
        quantization: vLLM's ``--quantization``; None = as the checkpoint says.
        max_model_len: Longest sequence in tokens; None = the model's own.
        port: TCP port.
        tensor_parallel: GPUs to split the model over.
        cuda_graphs: False = every kernel is launched by itself.
        extra_args: Further arguments, last.

    Raises:
        MissingExtraError: vLLM is neither installed beside this package nor a program on the path.
    """
    command = [*vllm_program(), "serve", model, "--host", "127.0.0.1", "--port", str(port), "--dtype", dtype]
    if quantization is not None:
        command += ["--quantization", quantization]
    if max_model_len is not None:
        command += ["--max-model-len", str(max_model_len)]
    if tensor_parallel > 1:
        command += ["--tensor-parallel-size", str(tensor_parallel)]
    if not cuda_graphs:
        command.append("--enforce-eager")
    return [*command, *extra_args]


def is_server(command: Sequence[str]) -> bool:
    """Whether ``command`` starts a vLLM server, in one of the ways that `with_plugin` knows."""
    return _recognised(command) is not None


def with_plugin(command: Sequence[str]) -> tuple[list[str], str | None]:
    """The command with our worker and scheduler class, and why something will not be recorded, or None.

    A command that starts no vLLM server is returned as it is, without a reason: see `is_server`. Classes that the
    user chose stay.
    """
    server = _recognised(command)
    if server is None:
        return list(command), None
    refusal = _refusal([*command[: server.program], *server.interpreter])
    if refusal is not None:
        return list(command), refusal
    result, reasons = list(command), []
    for option, ours, unseen in (
        ("--worker-cls", WORKER_CLS, "steps"),
        ("--scheduler-cls", SCHEDULER_CLS, "requests as the scheduler sees them"),
    ):
        if (theirs := _value(command, option)) is None:
            result += [option, ours]
        elif theirs != ours:
            reasons.append(f"the command has {option} {theirs}: {unseen} will not be recorded")
    return result, "; ".join(reasons) or None


@dataclass(frozen=True, slots=True)
class _Server:
    """Where in a command the program is, and what runs Python code as it does."""

    program: int
    interpreter: tuple[str, ...]


def _recognised(command: Sequence[str]) -> _Server | None:
    for at, word in enumerate(command):
        after = list(command[at + 1 : at + 3])
        if Path(word).name == "vllm" and after[:1] == ["serve"]:
            if at and _is_python(command[at - 1]):
                return _Server(at - 1, (command[at - 1],))
            return _Server(at, _script_interpreter(word))
        if word == "-m" and (after == [_CLI, "serve"] or after[:1] == [_API_SERVER]):
            python = next((before for before in range(at - 1, -1, -1) if _is_python(command[before])), None)
            return None if python is None else _Server(python, (command[python],))
    return None


def _is_python(word: str) -> bool:
    return re.fullmatch(r"python[0-9.]*", Path(word).name) is not None


def _script_interpreter(script: str) -> tuple[str, ...]:
    """From the first lines of a console script; empty if it is none.

    Installers write ``#!/path/python``, or for a long path ``#!/bin/sh`` and ``'''exec' /path/python "$0" "$@"``.
    """
    path = shutil.which(script)
    if path is None:
        return ()
    try:
        with Path(path).open(errors="replace") as file:
            head = file.readline(4096) + file.readline(4096)
    except OSError:
        return ()
    found = re.match(r"#!/bin/sh\n'''exec' \"?([^\"\n]+?)\"? \"\$0\"", head) or re.match(r"#! *([^\n]+)\n", head)
    return () if found is None else tuple(found[1].split())


def _refusal(interpreter: Sequence[str]) -> str | None:
    """Why the server's interpreter cannot load the plugin; it is asked without importing vLLM or us."""
    hint = "install qmeter-native there to record steps and requests"
    if not interpreter or not _is_python(interpreter[-1]):
        return f"the Python that runs vLLM was not found; {hint}"
    try:
        answer = subprocess.run(
            [*interpreter, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{interpreter[-1]} does not answer ({type(error).__name__}); {hint}"
    if answer.stdout.strip().endswith("True"):
        return None
    return f"{interpreter[-1]} has no qmeter_native with its extension; {hint}"


def _value(command: Sequence[str], option: str) -> str | None:
    """What an option is set to, None if it is not; vLLM takes underscores for hyphens."""
    for word, after in zip(command, [*command[1:], ""], strict=True):
        name, is_joined, value = word.partition("=")
        if name.replace("_", "-") == option:
            return value if is_joined else after
    return None


def vllm_program() -> list[str]:
    """How vLLM's command line is started here.

    Raises:
        MissingExtraError: vLLM is neither installed beside this package nor a program on the path.
    """
    if find_spec("vllm") is not None:
        return [sys.executable, "-m", _CLI]
    if shutil.which("vllm"):
        return ["vllm"]
    raise MissingExtraError("vLLM is not installed", "pip install 'qmeter-native[vllm]', or put `vllm` on the path.")
