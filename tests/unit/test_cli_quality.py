"""`qmeter-native quality`: tables, JSON, pictures, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator

from qmeter_native.cli.main import cli
from qmeter_native.cli.rim import run
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.trial import LayerError, Provenance, Quality, Size, Trial
from qmeter_native.quality.trial_file import load_trials, save_trials

SCHEMA: dict[str, Any] = json.loads((files("qmeter_native.model") / "trial.schema.json").read_text())
PROVENANCE = Provenance(
    "2026-11-24", "", "a CPU", "torch reference", "float32", "round to nearest", "checkpoint", "text"
)


def quality(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(cli, ["quality", *arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def trial(method: str, scheme: str, bits: float, change: float | None) -> Trial:
    itself = Estimate.missing("it is the baseline")
    changed = itself if change is None else Estimate(change, change - 0.001, change + 0.001)
    figures = Quality(Estimate(0.9 + (change or 0), 0.8, 1.0), changed, Estimate(1.9), itself, itself)
    return Trial("builtin:stdlib-lm", method, scheme, PROVENANCE, Size(Estimate(1e6), Estimate(bits)), quality=figures)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    layers = (LayerError("model.layers.0.mlp.up_proj", 0.12, Estimate(0.002)), LayerError("model.layers.1", 0.1))
    nf4 = trial("nf4", "W4A16-NF4 g64", 4.13, 0.03)
    tasks = {"arc_easy/acc": Estimate(0.5)}
    rows = [
        trial("none", "W16A16", 16, None),
        replace(nf4, quality=replace(nf4.quality, layers=layers, tasks=tasks), notes=("A note.",)),
        trial("fp4", "W4A16-FP4 g64", 4.5, 0.05),
        trial("rtn-w8a8", "W8A8-INT", 8.1, -0.0005),
    ]
    save_trials(rows, tmp_path / "trials.json")
    return tmp_path / "trials.json"


def test_trials_are_shown_with_changes_and_layers_that_hurt(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = quality(capsys, "--show", str(path), "--width", "140")
    assert (code, err) == (0, "")
    assert "+0.0300" in out
    assert "+0.0290 to +0.0310" in out
    assert "it is the baseline" in out
    assert "Layers that nf4 hurts" in out
    assert "arc_easy/acc" in out
    assert "! A note." in out
    assert out.endswith("Next: qmeter-native trace --model builtin:stdlib-lm --quantization rtn-w8a8\n")


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_tables_fit_the_width_they_are_given(width: int, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = quality(capsys, "--show", str(path), "--width", str(width))
    assert max(len(line) for line in out.splitlines() if not line.startswith("Next: ")) <= width


def test_the_json_document_has_the_documented_form(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = quality(capsys, "--show", str(path), "--json")
    assert code == 0
    document = json.loads(out)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(document)] == []
    assert [row["method"] for row in document["trials"]] == ["none", "nf4", "fp4", "rtn-w8a8"]


def test_a_picture_has_a_point_for_each_method_with_a_change(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = path.with_suffix(".svg")
    assert quality(capsys, "--show", str(path), "--picture", str(picture))[0] == 0
    root = ElementTree.parse(picture).getroot()
    assert len(root.findall(".//{*}circle")) == 3
    assert {"nf4", "fp4", "rtn-w8a8"} <= {element.text for element in root.iter()}


def test_a_text_is_scored_by_a_method_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    text, output = tmp_path / "text.py", tmp_path / "out.json"
    text.write_text("def f(a):\n    return a\n" * 50)
    arguments = ["--text", str(text), "--programs", "0", "--quantization", "hqq", "-o", str(output)]
    code, out, err = quality(capsys, *arguments)
    assert code == 0
    assert f"trials written to {output}" in err
    assert "torch reference" in out
    baseline, hqq = load_trials(output)
    assert (baseline.method, hqq.method) == ("none", "hqq")
    assert hqq.provenance.num_bytes == len(text.read_bytes())
    assert hqq.provenance.text_digest == baseline.provenance.text_digest


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--all", "--quantization", "nf4"], 2, "both say which methods"),
        (["--quantization", "nf5"], 2, "no quantization method is called 'nf5'"),
        (["--model", "shape:llama-3.1-8b", "--all"], 2, "random weights"),
        (["--text", "missing.txt"], 2, "missing.txt cannot be read"),
        (["--model", "./nowhere"], 1, "there is no directory"),
        (["--show", "missing.json"], 1, "missing.json cannot be read"),
        (["--tasks", "arc_easy"], 1, "tokenizer"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = quality(capsys, *arguments)
    assert found == code
    assert out == ""
    assert message in err


def test_a_foreign_document_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    for content, message in (("{}", "holds no trials"), ("{", "is no JSON")):
        path.write_text(content)
        code, _, err = quality(capsys, "--show", str(path))
        assert code == 1
        assert message in err


def test_an_unwritable_picture_is_said(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = quality(capsys, "--show", str(path), "--picture", "/nowhere/a.svg")
    assert code == 1
    assert "cannot be written" in err
