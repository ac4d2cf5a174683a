"""Command lines of vLLM servers: written, recognised, and made to record."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path

import pytest

from qmeter_native.engines.vllm import command as commands
from qmeter_native.engines.vllm.command import SCHEDULER_CLS, WORKER_CLS, is_server, serve_command, with_plugin
from qmeter_native.errors import MissingExtraError

OURS = ["--worker-cls", WORKER_CLS, "--scheduler-cls", SCHEDULER_CLS]
ROOT = str(Path(commands.__file__).parents[3])


def script(folder: Path, head: str, name: str = "vllm") -> str:
    """An executable file that begins with ``head``."""
    path = folder / name
    path.write_text(f"{head}\nraise SystemExit('it was run')\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def vllm_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ``vllm`` whose interpreter can import this package."""
    monkeypatch.setenv("PYTHONPATH", ROOT)
    return script(tmp_path, f"#!{sys.executable}")


def test_a_vllm_script_gets_both_classes(vllm_script: str) -> None:
    assert with_plugin([vllm_script, "serve", "m"]) == ([vllm_script, "serve", "m", *OURS], None)


@pytest.mark.parametrize(
    "tail",
    [
        ["-m", "vllm.entrypoints.cli.main", "serve", "m"],
        ["-m", "vllm.entrypoints.openai.api_server", "--model", "m"],
        ["-u", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"],
    ],
)
def test_modules_of_vllm_get_both_classes(monkeypatch: pytest.MonkeyPatch, tail: list[str]) -> None:
    monkeypatch.setenv("PYTHONPATH", ROOT)
    command = [sys.executable, *tail]
    assert with_plugin(command) == ([*command, *OURS], None)


def test_what_comes_before_the_program_is_kept_and_heeded(vllm_script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    command = ["env", "VLLM_X=1", f"PYTHONPATH={ROOT}", vllm_script, "serve", "m"]
    assert with_plugin(command) == ([*command, *OURS], None)


def test_a_script_that_is_run_by_a_named_python_is_asked_of_that_one(tmp_path: Path) -> None:
    python = script(tmp_path, "#!/bin/sh\necho False\nexit", "python3.11")
    refused, reason = with_plugin([python, script(tmp_path, f"#!{sys.executable}"), "serve", "m"])
    assert WORKER_CLS not in refused
    assert reason is not None
    assert "has no qmeter_native" in reason
    assert python in reason


@pytest.mark.parametrize(
    "head",
    ["#!{python}", "#!/usr/bin/env {python}", "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''"],
    ids=["plain", "env", "long path"],
)
def test_the_interpreter_is_found_in_every_kind_of_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", ROOT)
    _, reason = with_plugin([script(tmp_path, head.format(python=sys.executable)), "serve", "m"])
    assert reason is None


@pytest.mark.parametrize("name", ["absent-vllm/vllm", "vllm"])
def test_a_program_whose_python_is_not_found_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    script(tmp_path, "#!/bin/sh")
    command, reason = with_plugin([name, "serve", "m"])
    assert command == [name, "serve", "m"]
    assert reason is not None
    assert "was not found" in reason


def test_a_python_that_does_not_answer_is_a_reason(tmp_path: Path) -> None:
    python = script(tmp_path, "no program at all", "python3")
    _, reason = with_plugin([python, "-m", "vllm.entrypoints.openai.api_server"])
    assert reason is not None
    assert "does not answer" in reason


@pytest.mark.parametrize("given", [["--worker-cls", "my.Worker"], ["--worker_cls=my.Worker"]])
def test_classes_that_the_user_chose_stay(vllm_script: str, given: list[str]) -> None:
    command, reason = with_plugin([vllm_script, "serve", "m", *given])
    assert command == [vllm_script, "serve", "m", *given, "--scheduler-cls", SCHEDULER_CLS]
    assert reason == "the command has --worker-cls my.Worker: steps will not be recorded"


def test_a_command_that_records_already_is_left_as_it_is(vllm_script: str) -> None:
    command = [vllm_script, "serve", "m", *OURS]
    assert with_plugin(command) == (command, None)


@pytest.mark.parametrize(
    "command",
    [
        ["python", "train.py"],
        ["vllm", "bench", "latency"],
        ["bash", "-c", "vllm serve m"],
        ["python", "-m", "vllm.entrypoints.cli.main", "bench"],
        ["-m", "vllm.entrypoints.openai.api_server"],
        ["vllm"],
        [],
    ],
)
def test_other_commands_are_no_servers_and_stay(command: list[str]) -> None:
    assert not is_server(command)
    assert with_plugin(command) == (command, None)


def test_a_served_model_has_every_option_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None))
    command = serve_command(
        "some/model",
        dtype="bfloat16",
        quantization="fp8",
        max_model_len=4096,
        port=8123,
        tensor_parallel=2,
        cuda_graphs=False,
        extra_args=["--load-format", "dummy"],
    )
    assert command[:5] == [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "some/model"]
    assert " ".join(command[5:]) == (
        "--host 127.0.0.1 --port 8123 --dtype bfloat16 --quantization fp8 --max-model-len 4096 "
        "--tensor-parallel-size 2 --enforce-eager --load-format dummy"
    )
    assert is_server(command)


def test_without_vllm_here_the_program_on_the_path_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="vLLM is not installed"):
        serve_command("m")
    script(tmp_path, f"#!{sys.executable}")
    assert serve_command("m") == ["vllm", "serve", "m", "--host", "127.0.0.1", "--port", "8000", "--dtype", "auto"]
