"""``qmeter-native kernels`` without a GPU."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from qmeter_native.benchmark.document import save_benchmark
from qmeter_native.calibration.gpu import Gpu
from qmeter_native.cli.main import cli
from qmeter_native.cli.rim import run
from qmeter_native.kernels.catalog import FORMATS, KERNELS, why_not_here
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.kernel_benchmark import KernelBenchmark
from tests.unit.test_kernel_benchmark import benchmark, row

pytest.importorskip("torch")


def documented() -> KernelBenchmark:
    """Two kinds of rows: several numbers of tokens beside cuBLAS, some with joules, one wrong."""
    rows = []
    for m in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096):
        joules = {"energy_j": Estimate(0.0123, 0.012, 0.0126), "dynamic_j": Estimate(0.009, 0.0088, 0.0092)}
        rows.append(row("qmeter.weight_only_linear", 20.0 + m / 10, m=m, **(joules if m == 1 else {})))
        rows.append(row("cublas", 45.0 + m / 9, m=m))
        rows.append(row("gemlite", None, m=m))
    return benchmark(*rows, idle_w=Estimate(125.0))


@pytest.fixture
def document(tmp_path: Path) -> Path:
    save_benchmark(documented(), tmp_path / "bench.json")
    return tmp_path / "bench.json"


def test_the_list_names_every_format_and_kernel_and_says_what_keeps_them_from_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(cli, ["kernels", "list"]) == 0

    text = capsys.readouterr().out
    for label in (form.label for form in FORMATS):
        assert label in text
    for name in (entry.name for entry in KERNELS):
        assert name in text
    assert "no GPU" in text
    assert "cublas" in text


def test_the_list_as_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["kernels", "list", "--json"]) == 0

    listing = json.loads(capsys.readouterr().out)
    assert [line["label"] for line in listing["formats"]] == [form.label for form in FORMATS]
    assert listing["formats"][0]["bits"] == pytest.approx(4.125)
    assert all(line["why_not"] for line in listing["kernels"])


def test_every_kernel_of_the_catalog_runs_on_a_gpu_that_is_new_enough() -> None:
    pytest.importorskip("triton")
    product = next(entry for entry in KERNELS if entry.name == "scaled_gemm")

    assert why_not_here(product, (9, 0), "float8_e4m3fn") is None
    assert why_not_here(product, (8, 0)) is None
    assert "8.9" in (why_not_here(product, (8, 0), "float8_e4m3fn") or "")
    assert "8.0" in (why_not_here(product, (7, 5)) or "")


@pytest.mark.parametrize("entry", KERNELS, ids=lambda entry: entry.name)
def test_the_catalog_names_functions_that_there_are(entry: Any) -> None:
    pytest.importorskip("triton")

    assert callable(getattr(import_module(entry.module), entry.name))


def test_without_a_gpu_benchmarks_say_what_they_need_and_what_works_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in ("bench", "tune"):
        assert run(cli, ["kernels", command]) == 1

        error = capsys.readouterr().err
        assert "compute capability 8.0" in error
        assert "kernels list" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--formats", "W5A16"], "no format 'W5A16'"),
        (["--shapes", "llama-9b"], "is no shape"),
        (["--m", "0"], "no numbers of tokens"),
        (["--repeats", "3"], "too few"),
        (["--budget", "-1"], "a budget of -1 s is none"),
        (["--device", "cpu"], "cannot be timed on 'cpu'"),
        (["--no-peers", "--peers", "cublas"], "does nothing with --no-peers"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_a_gpu_is_looked_for(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["kernels", "bench", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_document_is_shown_with_times_roof_energy_ratios_and_what_is_missing(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["kernels", "bench", "--show", str(document)]) == 0

    text = capsys.readouterr().out
    for part in ("NVIDIA H200", "W4A16-INT g128, N 8,192, K 8,192", "weight_only_linear", "20.1", "cublas"):
        assert part in text
    for part in ("wrong: no number", "12.30 mJ", "9.000 mJ", "w4a16_vs_fp16_m_le_16", "gemlite: it is not installed"):
        assert part in text
    assert "One board." in text
    assert max(map(len, text.splitlines())) <= 100


def test_columns_that_have_no_room_are_named(
    document: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert run(cli, ["kernels", "bench", "--show", str(document)]) == 0

    text = capsys.readouterr().out
    assert "no room for M =" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_shown_document_as_json_is_the_file_with_its_metrics_computed_anew(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["kernels", "bench", "--show", str(document), "--json"]) == 0

    shown, written = (json.loads(text)["metrics"] for text in (capsys.readouterr().out, document.read_text()))
    assert {name: one["value"] for name, one in shown.items()} == pytest.approx(
        {name: one["value"] for name, one in written.items()}
    )


def test_the_picture_is_xml_with_a_line_of_each_kernel_and_the_roof(document: Path, tmp_path: Path) -> None:
    picture = tmp_path / "bench.svg"

    assert run(cli, ["kernels", "bench", "--show", str(document), "--picture", str(picture)]) == 0

    root = ET.fromstring(picture.read_text())
    text = "".join(root.itertext())
    assert "NVIDIA H200" in text
    assert "qmeter.weight_only_linear, M 16" in text
    assert "what the roof allows" in text
    assert len(root.findall(".//{http://www.w3.org/2000/svg}polyline")) == 2


def test_a_document_that_is_not_there_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["kernels", "bench", "--show", str(tmp_path / "none.json")]) == 1
    assert "kernels bench -o" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_ends_with_1(
    document: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["kernels", "bench", "--show", str(document), "--picture", str(tmp_path)]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_document_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["kernels", "bench", "-o", str(tmp_path)]) == 1
    assert "it is a folder" in capsys.readouterr().err


def test_a_run_that_is_interrupted_keeps_what_it_has_and_ends_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def run_bench(gpu: Gpu, plan: Any, chosen: Any, command: str, stop: Event, show: Any, keep: Any) -> KernelBenchmark:
        seen.update(plan=plan, names=[one.name for one in chosen.contenders], command=command)
        show("W4A16-INT g128 1x64x128", 0, 4)
        keep(documented())
        seen["kept"] = (tmp_path / "bench.json").exists()
        stop.set()
        return documented()

    monkeypatch.setattr("qmeter_native.benchmark.gpu.find_gpu", lambda device: Gpu(0, "NVIDIA H200", "U", "9.0", None))
    monkeypatch.setattr("qmeter_native.benchmark.bench.run_bench", run_bench)
    arguments = ["--kernels", "weight_only_gemm", "--peers", "cublas,torch._int_mm", "--energy", "--m", "1"]

    code = run(cli, ["kernels", "bench", *arguments, "-o", str(tmp_path / "bench.json"), "--json"])

    assert code == 130
    assert seen["names"] == ["qmeter.weight_only_gemm", "cublas", "torch._int_mm"]
    assert seen["plan"].has_energy
    assert seen["plan"].tokens == (1,)
    assert seen["kept"]
    assert json.loads(capsys.readouterr().out)["schema_version"] == 1


def test_tuned_tiles_are_printed_as_they_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qmeter_native.kernels.autotune import TunedRow
    from qmeter_native.kernels.gemm_config import GemmConfig

    def run_tuning(gpu: Gpu, plan: Any, table: Any, stop: Event, show: Any) -> Sequence[TunedRow]:
        found = TunedRow("weight_only_int4", 1, 64, 128, GemmConfig(16, 64, 64), 12e-6)
        table.add(found)
        return [found]

    monkeypatch.setattr("qmeter_native.benchmark.gpu.find_gpu", lambda device: Gpu(0, "NVIDIA H200", "U", "9.0", None))
    monkeypatch.setattr("qmeter_native.benchmark.bench.run_tuning", run_tuning)

    assert run(cli, ["kernels", "tune", "--m", "1", "--output", str(tmp_path / "sm_90.json")]) == 0

    captured = capsys.readouterr()
    assert "weight_only_int4 1x64x128: 12.0 µs" in captured.out
    assert "1 rows in" in captured.err
    assert (tmp_path / "sm_90.json").exists()
