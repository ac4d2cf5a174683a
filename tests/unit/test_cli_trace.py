"""``trace`` and ``ctl`` refuse what they would have to ignore, before anything is started or written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmeter_native.cli import rim
from qmeter_native.cli.main import cli


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "option", "kind"),
    [
        ("--engine vllm -- true", "--engine", "a command"),
        ("--model shape:tiny -- true", "--model", "a command"),
        ("--quantization fp8 -- vllm serve m", "--quantization", "a command"),
        ("--model shape:tiny --duty 0.2/2", "--duty", "--engine transformers"),
        ("--model shape:tiny --port 8000", "--port", "--engine transformers"),
        ("--engine vllm --model shape:tiny --base-url http://localhost:1", "--base-url", "--engine vllm"),
        ("--engine openai --port 8000 --start-after 1", "--start-after", "--engine openai"),
        ("--engine openai --port 8000 --counters 1", "--counters", "--engine openai"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    arguments: str, option: str, kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rim.run(cli, ["trace", *arguments.split()]) == 2
    assert f"{option} does nothing with {kind}" in capsys.readouterr().err
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--counters-after 2", "--counters-after does nothing without --counters"),
        ("--counter-interval 20", "--counter-interval does nothing without --counters"),
        ("--counters continuous --counters-after 2", "--counters-after does nothing with --counters continuous"),
        ("--counters continuous --counter-interval 50", "every 50 µs in a whole run"),
        ("--counters often", "'often' is neither a number of seconds nor `continuous`"),
        ("--counters -1", "'-1' is neither a number of seconds nor `continuous`"),
    ],
)
def test_counters_that_could_not_be_are_refused(
    arguments: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rim.run(cli, ["trace", *arguments.split(), "--", "true"]) == 2
    assert message in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_nothing_is_written_for_a_vllm_that_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qmeter_native.engines.vllm.command.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    assert rim.run(cli, ["trace", "--engine", "vllm", "--model", "shape:llama-3.1-8b"]) == 1
    assert "vLLM is not installed" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_engine_arguments_that_no_shell_takes_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qmeter_native.engines.vllm.command.find_spec", lambda name: object())
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    assert rim.run(cli, ["trace", "--engine", "vllm", "--model", "shape:tiny", "--engine-args", "--a 'b"]) == 2
    assert "No closing quotation" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_a_duty_cycle_is_for_starting(capsys: pytest.CaptureFixture[str]) -> None:
    assert rim.run(cli, ["ctl", "stop", "a.qmt", "--duty", "0.2/2"]) == 2
    assert "--duty does nothing with stop" in capsys.readouterr().err


def test_a_folder_that_is_no_trace_is_said_to_be_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rim.run(cli, ["ctl", "status", str(folder)]) == 1
    assert "there is no trace at" in capsys.readouterr().err
