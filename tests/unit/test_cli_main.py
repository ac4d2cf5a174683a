from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from qmeter_native import __version__
from qmeter_native.cli import rim
from qmeter_native.cli.main import SECTIONS, cli
from qmeter_native.errors import CheckFailedError, DeviceError, UsageError

HEAVY = ("torch", "transformers", "polars", "numpy", "rich", "qmeter_native._native")


def failing_with(error: BaseException) -> click.Command:
    @click.command()
    def fail() -> None:
        raise error

    return fail


def test_help_lists_every_command_by_the_order_of_the_day() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    places = [text.index(f"\n{title}:\n") for title in SECTIONS]
    assert places == sorted(places)
    for entries in SECTIONS.values():
        for entry in entries:
            assert f"  {entry.name} " in text


def test_help_loads_nothing_heavy_and_no_command() -> None:
    code = (
        "import sys\n"
        "from qmeter_native.cli.main import cli\n"
        "from qmeter_native.cli.rim import run\n"
        "run(cli, ['--help'])\n"
        "print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert loaded.isdisjoint(HEAVY)
    assert {name for name in loaded if name.startswith("qmeter_native.cli.")} == {
        "qmeter_native.cli.main",
        "qmeter_native.cli.rim",
    }


def test_the_module_runs_as_a_program_and_knows_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qmeter_native", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"qmeter-native, version {__version__}\n"


@pytest.mark.parametrize("name", [entry.name for entries in SECTIONS.values() for entry in entries])
def test_every_command_has_examples_and_names_the_next_one(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert f"qmeter-native {name}" in result.output
    assert "Next: " in result.output


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["report"], ["report", "x", "--sort", "size"], ["export", "x"]]
)
def test_a_wrong_call_exits_with_2_and_says_how(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert rim.run(cli, arguments) == 2
    assert "Try 'qmeter-native" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(DeviceError("gone", "look"), 1), (UsageError("odd", "look"), 2), (CheckFailedError("worse", "look"), 3)],
)
def test_an_error_of_ours_is_a_message_a_hint_and_its_exit_code(
    error: DeviceError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rim.run(failing_with(error), []) == code
    assert capsys.readouterr().err == f"qmeter-native: {error.what}\n  look\n"


def test_an_unexpected_error_is_short_and_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QMETER_DEBUG", raising=False)
    assert rim.run(failing_with(ZeroDivisionError("by zero")), []) == 1
    short = capsys.readouterr().err
    monkeypatch.setenv("QMETER_DEBUG", "1")
    assert rim.run(failing_with(ZeroDivisionError("by zero")), []) == 1
    long = capsys.readouterr().err
    assert short.splitlines()[0] == "qmeter-native: internal error: ZeroDivisionError: by zero"
    assert "QMETER_DEBUG=1" in short
    assert "Traceback" not in short
    assert "Traceback" in long


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_exits_with_130_and_without_a_traceback(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rim.run(failing_with(error), []) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_an_exit_code_that_a_command_chose_is_kept() -> None:
    assert rim.run(failing_with(SystemExit(130)), []) == 130
    assert rim.run(failing_with(click.exceptions.Exit(3)), []) == 3


def test_a_full_disk_behind_standard_output_is_said() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "qmeter_native", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("qmeter-native: No space left on device")
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_ends_the_program_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "qmeter_native", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == b""


def test_a_terminal_that_knows_no_signs_gets_replacements() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "qmeter_native", "doctor"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.isascii()
