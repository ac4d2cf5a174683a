from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmeter_native.cli.main import cli
from qmeter_native.cli.rim import run

pytest.importorskip("torch")

BUILTIN = ["quantize", "--model", "builtin:stdlib-lm"]


def test_what_was_written_is_printed_with_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(cli, [*BUILTIN, "--quantization", "fp8", "-o", str(tmp_path / "m")]) == 0
    out = capsys.readouterr().out
    assert "28 of 2.0 M weights, 8.00 bits a weight" in out
    assert f"Next: qmeter-native trace --model {tmp_path / 'm'}" in out


def test_the_result_is_json_if_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["quantize", "--model", "shape:tiny", "--quantization", "nf4", "--json"]
    assert run(cli, [*arguments, "-o", str(tmp_path / "m")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["quantization"], result["weights_source"]) == ("nf4", "random_codes")
    assert result["num_bytes"] == sum(path.stat().st_size for path in (tmp_path / "m").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        ([*BUILTIN, "--quantization", "int5"], 2, "no quantization method is called 'int5'"),
        ([*BUILTIN, "--quantization", "gptq", "--calibration", "nothing.txt"], 2, "nothing.txt cannot be read"),
        ([*BUILTIN, "--quantization", "gptq", "--sequence-len", "4096"], 2, "reads 1024"),
        (["quantize", "--model", "shape:no", "--quantization", "fp8"], 1, "shape"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    arguments: list[str], code: int, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(cli, [*arguments, "-o", str(tmp_path / "m")]) == code
    assert what in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_cannot_multiply_the_format_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("qmeter_native.benchmark.gpu.find_capability", lambda: ("NVIDIA A100", (8, 0)))
    monkeypatch.setattr("qmeter_native.kernels.catalog.find_spec", lambda name: name)  # triton is there
    arguments = ["quantize", "--model", "shape:tiny", "-o", str(tmp_path / "m"), "--quantization"]
    assert run(cli, [*arguments, "fp8"]) == 0
    assert "NVIDIA A100 does not multiply W8A8-FP tensor natively: it needs compute capability 8.9" in (
        capsys.readouterr().err
    )
