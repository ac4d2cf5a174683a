"""Bad input and faults, in processes of their own: a clear message, the right exit code, and a capture that reads."""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qmeter_native.capture.finalize import is_unfinished
from qmeter_native.capture.open import open_capture
from qmeter_native.cli import rim
from qmeter_native.cli.main import cli
from qmeter_native.storage import write_capture
from qmeter_native.storage.spool import read_spool
from tests.factories import synthetic_capture
from tests.integration.command import QUICK, Done, finish, run, start

LONG = ("--requests", "4", "--output-len", "1900", "--output", "run.qmt")
"""More than any test waits for."""
CONFIGS = {
    "cut": '{"model_type": "llama", ',
    "odd": '{"model_type": "llama", "hidden_size": "big"}',
    "unknown": '{"model_type": "no-such-architecture"}',
}


def wait_for(process: Any, line: str) -> None:
    """Read what ``process`` says until ``line``."""
    for said in process.stderr:
        if said.startswith(line):
            return
    pytest.fail(f"the program ended before it said {line!r}")


def wait_for_steps(capture: Path) -> None:
    """Wait until steps are in the spool, as another process sees it."""
    deadline_s = time.monotonic() + 60
    while not any(len(read_spool(file).tables["steps"]) for file in capture.glob("spool/*")):
        assert time.monotonic() < deadline_s, "no step was written"
        time.sleep(0.05)


def trace(folder: Path, *options: str) -> Done:
    return run(folder, *QUICK, *options)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """The command line in this process, which has loaded torch already."""
    code = rim.run(cli, arguments)
    output = capsys.readouterr()
    return Done(code, output.out, output.err)


@contextmanager
def file_size_limited(num_bytes: int) -> Iterator[None]:
    """Meanwhile no file grows past this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def needs_torch() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")


def test_a_model_that_nobody_has_is_named_with_what_there_is(tmp_path: Path) -> None:
    needs_torch()
    done = trace(tmp_path, "--model", "nobody/no-such-model", "--output", "run.qmt")
    done.assert_clear(1, "nobody/no-such-model", "--model takes", "llama-3.1-8b")
    assert not (tmp_path / "run.qmt").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "shape:no-such-shape"), ("no-such-shape", "shape:llama-3.1-8b")),
        (("--model", "builtin:no-such-model"), ("no-such-model", "builtin:stdlib-lm")),
        (("--model", "{folder}/nowhere"), ("nowhere", "--model takes")),
        (("--model", "{folder}/empty"), ("empty has no config.json", "--model takes")),
        (("--model", "{folder}/cut"), ("cut/config.json cannot be used",)),
        (("--model", "{folder}/odd"), ("odd/config.json cannot be used", "hidden_size")),
        (("--model", "{folder}/unknown"), ("unknown/config.json cannot be used", "no-such-architecture")),
        (("--input-len", "100000"), ("100032 tokens", "shorter")),
    ],
)
def test_what_cannot_be_served_is_named_and_leaves_nothing(
    tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    needs_torch()
    (tmp_path / "empty").mkdir()
    for name, config in CONFIGS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    arguments = [option.format(folder=tmp_path) for option in (*QUICK, *options)]
    call(capsys, *arguments, "--output", str(tmp_path / "run.qmt")).assert_clear(1, *words)
    assert not (tmp_path / "run.qmt").exists()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("there.qmt", ("there.qmt exists already", "another name")),
        ("file", ("file exists already",)),
        ("file/run.qmt", ("file/run.qmt cannot be created", "--output")),
    ],
)
def test_an_output_that_cannot_be_created_is_named_and_left_alone(
    tmp_path: Path, output: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "there.qmt").mkdir()
    (tmp_path / "there.qmt" / "precious").write_text("data")
    (tmp_path / "file").write_text("data")
    trace(tmp_path, "--output", output).assert_clear(1, *words)
    assert (tmp_path / "there.qmt" / "precious").read_text() == (tmp_path / "file").read_text() == "data"


def test_a_disk_without_room_for_the_first_block_leaves_nothing(tmp_path: Path) -> None:
    with file_size_limited(16):
        process = start(tmp_path, *QUICK, *LONG)
    done = finish(process)
    done.assert_clear(1, "run.qmt", "File too large", "free space")
    assert not (tmp_path / "run.qmt").exists()


def test_a_disk_that_fills_up_in_mid_run_costs_only_what_came_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_torch()
    workload = ("--requests", "4", "--input-len", "16", "--output-len", "160", "--no-kernels")
    with file_size_limited(24_576):
        done = call(capsys, *QUICK, *workload, "--output", str(tmp_path / "run.qmt"))
    done.assert_clear(1, "run.qmt is not complete", "File too large", "Free some space")
    assert "Balance" in done.out
    capture = open_capture(tmp_path / "run.qmt")
    assert [entry.code for entry in capture.manifest.validity] == ["spool_write_failed"]
    assert len(capture.steps) > 0
    assert capture.manifest.loss.spool_records_dropped > 0
    call(capsys, "report", str(tmp_path / "run.qmt"), "--check").assert_clear(0)


def test_ctrl_c_ends_a_run_with_a_complete_capture_and_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_torch()
    process = start(tmp_path, *QUICK, *LONG)
    wait_for(process, "serving")
    process.send_signal(signal.SIGINT)
    done = finish(process)
    done.assert_clear(130, "what was captured is kept")
    assert "Balance" in done.out
    assert not is_unfinished(tmp_path / "run.qmt")
    capture = open_capture(tmp_path / "run.qmt")
    assert [entry.code for entry in capture.manifest.validity] == ["interrupted"]
    assert len(capture.requests) == 4
    call(capsys, "report", str(tmp_path / "run.qmt"), "--check").assert_clear(0)


def test_a_second_ctrl_c_ends_the_program_at_once_without_a_traceback(tmp_path: Path) -> None:
    needs_torch()
    process = start(tmp_path, *QUICK, *LONG)
    wait_for(process, "loading")
    process.send_signal(signal.SIGINT)
    wait_for(process, "stopping")
    process.send_signal(signal.SIGINT)
    finish(process).assert_clear(130, "interrupted")


def test_a_killed_run_is_recovered_by_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_torch()
    process = start(tmp_path, *QUICK, *LONG)
    wait_for(process, "serving")
    wait_for_steps(tmp_path / "run.qmt")
    process.kill()
    assert finish(process).code == -signal.SIGKILL
    assert is_unfinished(tmp_path / "run.qmt")
    done = call(capsys, "report", str(tmp_path / "run.qmt"), "--json", "--check")
    done.assert_clear(0)
    assert "recovered" in [entry["code"] for entry in json.loads(done.out)["validity"]]
    assert not is_unfinished(tmp_path / "run.qmt")
    assert len(open_capture(tmp_path / "run.qmt").steps) > 0


def test_a_gpu_that_is_not_there_is_a_clear_message(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run(tmp_path, "trace", "--model", "shape:tiny", "--device", "cuda", "--output", "run.qmt")
    done.assert_clear(1, "cuda", "qmeter-native doctor")
    assert not (tmp_path / "run.qmt").exists()


def test_a_missing_torch_names_the_extra_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("torch", "torch.profiler"):
        monkeypatch.setitem(sys.modules, name, None)
    done = call(capsys, *QUICK, "--output", str(tmp_path / "run.qmt"))
    done.assert_clear(1, "torch", "qmeter-native[engine]")
    assert not (tmp_path / "run.qmt").exists()


def truncate(capture: Path) -> str:
    table = next(capture.glob("kernels-*.parquet"))
    table.write_bytes(table.read_bytes()[:-100])
    return table.name


def remove_a_table(capture: Path) -> str:
    table = next(capture.glob("kernels-*.parquet"))
    table.unlink()
    return table.name


def change_a_byte(capture: Path) -> str:
    table = next(capture.glob("kernels-*.parquet"))
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    return table.name


def cut_the_manifest(capture: Path) -> str:
    manifest = capture / "manifest.json"
    manifest.write_text(manifest.read_text()[:-50])
    return "manifest.json"


def empty_the_manifest(capture: Path) -> str:
    (capture / "manifest.json").write_text("{}")
    return "run.qmt"


def make_it_newer(capture: Path) -> str:
    manifest = capture / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema_version": 999}))
    return "Update"


def make_it_foreign(capture: Path) -> str:
    manifest = capture / "manifest.json"
    manifest.write_text('[{"name": "another program"}]')
    return "run.qmt"


DAMAGES = (
    truncate,
    remove_a_table,
    change_a_byte,
    cut_the_manifest,
    empty_the_manifest,
    make_it_newer,
    make_it_foreign,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_capture_that_cannot_be_read_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    write_capture(synthetic_capture(400), tmp_path / "run.qmt")
    word = damage(tmp_path / "run.qmt")
    done = run(tmp_path, "report", "run.qmt")
    done.assert_clear(1, word)
    assert len(done.err.splitlines()) >= 2  # what happened, and what to do
    assert done.out == ""


@pytest.mark.parametrize("name", ["nowhere.qmt", "folder.qmt", "file.qmt"])
@pytest.mark.parametrize("command", [("report",), ("export", "--to", "perfetto")])
def test_what_is_no_capture_is_refused_by_name(tmp_path: Path, name: str, command: tuple[str, ...]) -> None:
    (tmp_path / "folder.qmt").mkdir()
    (tmp_path / "file.qmt").write_text("data")
    verb, *options = command
    done = run(tmp_path, verb, name, *options)
    done.assert_clear(1, name)
    assert len(done.err.splitlines()) >= 2


def test_an_export_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_capture(synthetic_capture(400), tmp_path / "run.qmt")
    (tmp_path / "file").write_text("data")
    done = run(tmp_path, "export", "run.qmt", "--to", "perfetto", "-o", "file/trace")
    done.assert_clear(1, "file/trace cannot be written", "-o")
    assert (tmp_path / "file").read_text() == "data"
