"""Which kernels vLLM ran for each method: on made-up captures, on a recorded one, and through made-up servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import qmeter_native
from qmeter_native.attribution.report import attribute
from qmeter_native.errors import EngineError, MissingExtraError
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.quantization.method import Method
from qmeter_native.quantization.methods import METHODS
from qmeter_native.storage.writer import write_capture
from tests.factories import CaptureBuilder
from tests.unit.test_attribution_kernel_choice import FP16, MACHETE, MARLIN, SCALED_MM, UNPACK
from tools import observe_methods
from tools.observe_methods import main, served, server_command
from tools.observed_kernels import Observation, observation, refused

TRITON_ATTENTION = "kernel_unified_attention"
FLASH = (
    "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<"
    "flash::CollectiveMainloopFwdSm90<2> > > >"
)
RAN = {
    "Machete": MACHETE,
    "CUTLASS scaled-mm": SCALED_MM,
    "cuBLAS": FP16,
    "bitsandbytes": UNPACK,
    "Marlin": MARLIN,
    "CUTLASS W4A8": "void cutlass::device_kernel<vllm::cutlass_w4a8::W4A8GemmKernel<cute::tuple<cute::C<128>>>>",
    "DeepGEMM": "void deep_gemm::sm90_fp8_gemm_1d2d_impl<128>",
    "Triton attention": TRITON_ATTENTION,
    "FlashAttention 3": FLASH,
}
"""A kernel of each of those whom Hopper is expected to see."""


def builder_of(kernels: dict[str, int]) -> CaptureBuilder:
    engine = EngineInfo("vllm", "0.26.0", "m", effective={"linear_kernels": {"MacheteLinearKernel": 4}})
    builder, start = CaptureBuilder(100_000, {"engine": engine}), 0
    for name, length in kernels.items():
        builder.kernel(start, start + length, name)
        start += length
    return builder


def seen(name: str, kernels: dict[str, int], architecture: str = "sm_90") -> Observation:
    return observation(METHODS[name], architecture, attribute(builder_of(kernels).build(), "test"))


def test_the_expected_kernel_beside_an_unquantized_head_is_as_expected() -> None:
    found = seen("gptq", {MACHETE: 700, FP16: 300, FLASH: 500})
    assert found.is_as_expected
    assert found.reason is None
    assert found.observed == {"Machete": 0.7, "cuBLAS": 0.3}
    assert found.observed_attention == {"FlashAttention 3": 1.0}
    assert found.linear_kernels == {"MacheteLinearKernel": 4}


@pytest.mark.parametrize(
    ("name", "kernels", "reason"),
    [
        ("gptq", {MARLIN: 700, FP16: 300}, "products ran in Marlin, cuBLAS, not in Machete"),
        ("gptq", {FP16: 1000}, "products ran in cuBLAS, not in Machete"),
        ("gptq", {MACHETE: 500, MARLIN: 500}, "products ran in Marlin too"),
        ("gptq", {FLASH: 500}, "no products ran"),
        ("none", {FP16: 500, MARLIN: 500}, "products ran in Marlin too"),
        ("kv4", {FP16: 500, FLASH: 500}, "attention ran in FlashAttention 3, not in Triton attention"),
        ("kv4", {FP16: 500}, "no attention ran"),
    ],
)
def test_what_was_not_expected_is_named(name: str, kernels: dict[str, int], reason: str) -> None:
    found = seen(name, kernels)
    assert not found.is_as_expected
    assert found.reason == reason


def test_strays_say_nothing() -> None:
    assert seen("gptq", {MACHETE: 9_950, MARLIN: 50}).is_as_expected


def test_unpacking_for_a_plain_product_counts_as_the_unpacker_s() -> None:
    assert seen("nf4", {UNPACK: 100, FP16: 900}).is_as_expected


def test_a_refusal_is_as_expected_where_the_registry_says_so() -> None:
    assert refused(METHODS["w4a8-fp"], "sm_80", "no scheme").is_as_expected
    assert not refused(METHODS["w4a8-fp"], "sm_90", "no scheme").is_as_expected
    found = seen("rtn-w8a8", {SCALED_MM: 10}, "sm_100")
    assert found.reason == "vLLM was expected to refuse it, and products ran in CUTLASS scaled-mm"


def test_a_recorded_gptq_server_ran_what_the_registry_says() -> None:
    capture = Path(__file__).parents[1] / "data" / "h200-vllm-gptq.qmt"
    found = observation(METHODS["gptq"], "sm_90", qmeter_native.report(capture))
    assert found.is_as_expected, found.reason
    assert set(found.observed) >= {"Machete"}


def as_expected_on_hopper(method: Method, path: Path) -> None:
    """In place of a server: a capture with the kernels that are expected."""
    assert method.vllm is not None
    if method.name == "awq":
        raise EngineError("the server ended with code 1")
    names = [*method.vllm.kernels["sm_90"][:1], *method.vllm.attention.get("sm_90", ("FlashAttention 3",))]
    write_capture(builder_of({RAN[name]: 1000 for name in names}).build(), path)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe_methods, "record", as_expected_on_hopper)
    monkeypatch.setattr("qmeter_native.engines.vllm.command.find_spec", lambda name: object())
    monkeypatch.setattr("qmeter_native.benchmark.gpu.find_capability", lambda: ("NVIDIA H200", (9, 0)))


def run_of(folder: Path, *words: str) -> dict[str, Any]:
    main(["--captures", str(folder / "captures"), "--out", str(folder / "methods.json"), *words])
    document: dict[str, Any] = json.loads((folder / "methods.json").read_text())
    return document


@pytest.mark.usefixtures("hopper")
def test_every_served_method_gets_a_row_and_misses_are_named(tmp_path: Path) -> None:
    document = run_of(tmp_path)
    rows = {row["method"]: row for row in document["rows"]}
    assert list(rows) == [method.name for method in served()]
    assert document["metrics"]["num_methods"]["value"] == len(rows) >= 16
    misses = [name for name, row in rows.items() if not row["is_as_expected"]]
    assert misses == ["awq"], [rows[name]["reason"] for name in misses]
    assert document["metrics"]["num_observed_as_expected"]["value"] == len(rows) - 1
    assert "Miss: awq: the server ended with code 1." in document["notes"]


@pytest.mark.usefixtures("hopper")
def test_a_run_goes_on_where_another_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_of(tmp_path, "--only", "fp8", "gptq")
    assert [row["method"] for row in first["rows"]] == ["gptq", "fp8"]  # in the order of the registry

    def fail(method: Method, path: Path) -> None:
        raise ZeroDivisionError(f"{method.name} is served to {path}")

    monkeypatch.setattr(observe_methods, "record", fail)
    assert run_of(tmp_path, "--only", "fp8", "gptq") == first
    with pytest.raises(ZeroDivisionError):
        run_of(tmp_path, "--only", "fp8", "--again")
    assert run_of(tmp_path, "--analyse")["rows"] == first["rows"]


@pytest.mark.usefixtures("hopper")
def test_no_method_begins_after_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError):
        run_of(tmp_path, "--budget", "-1")
    assert "left for the next run" in capsys.readouterr().out


def test_servers_are_started_eager_with_the_method_s_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmeter_native.engines.vllm.command.find_spec", lambda name: object())
    command = server_command(METHODS["kv8"], Path("folder"))
    assert "--enforce-eager" in command
    assert command[command.index("--kv-cache-dtype") + 1] == "int8_per_token_head"
    assert "--quantization" not in command


def test_a_dry_run_tells_all_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--dry-run", "--captures", str(tmp_path / "captures")])
    text = capsys.readouterr().out
    assert all(method.name in text for method in served())
    assert "hqq" not in text
    assert "expects CUTLASS scaled-mm; attention FlashAttention 3" in text
    assert not (tmp_path / "captures").exists()


def test_two_layers_are_written_for_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe_methods, "SHAPE", "shape:tiny")
    monkeypatch.setattr(observe_methods, "_VOCABULARY", 512)
    observe_methods.write_layers(METHODS["fp8-channel"], tmp_path / "checkpoint")
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"


def test_nothing_is_written_where_vllm_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmeter_native.engines.vllm.command.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtraError):
        main(["--captures", str(tmp_path / "captures"), "--out", str(tmp_path / "methods.json")])
    assert list(tmp_path.iterdir()) == []
