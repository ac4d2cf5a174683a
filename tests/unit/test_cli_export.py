from __future__ import annotations

from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2

from qmeter_native.cli.main import cli
from qmeter_native.cli.rim import run
from qmeter_native.storage import write_capture
from tests.factories import synthetic_capture


@pytest.fixture
def capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.qmt"
    write_capture(synthetic_capture(2_000), path)
    return path


def num_packets(path: Path) -> int:
    return len(perfetto_trace_pb2.Trace.FromString(path.read_bytes()).packet)


def test_a_trace_is_written_beside_and_said(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["export", str(capture), "--to", "perfetto"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("run.perfetto-trace: ")
    assert "2,000 kernels, 5 steps, 66 requests" in out
    assert out.endswith("Next: open it at https://ui.perfetto.dev\n")
    assert num_packets(Path("run.perfetto-trace")) > 4_000


def test_a_window_makes_it_smaller(capture: Path) -> None:
    assert run(cli, ["export", str(capture), "--to", "perfetto", "-o", "all"]) == 0
    assert run(cli, ["export", str(capture), "--to", "perfetto", "-o", "part", "--window", "0:0.004"]) == 0
    assert 0 < num_packets(Path("part")) < num_packets(Path("all")) / 2


@pytest.mark.parametrize("window", ["", "1", "1:", "a:b", "1:0", "1:-2", "nan:1", "1e999:1", "5000:1", "-5000:1"])
def test_a_window_that_is_none_or_outside_is_a_usage_error(
    window: str, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["export", str(capture), "--to", "perfetto", f"--window={window}"]) == 2
    assert "window" in capsys.readouterr().err
    assert not Path("run.perfetto-trace").exists()


def test_a_missing_capture_and_an_impossible_place_are_errors(
    capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["export", "none.qmt", "--to", "perfetto"]) == 1
    assert "none.qmt" in capsys.readouterr().err
    assert run(cli, ["export", str(capture), "--to", "perfetto", "-o", "no/such/folder"]) == 1
    assert "no/such/folder cannot be written" in capsys.readouterr().err
