"""``qmeter-native methods`` on machines with and without a GPU."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from qmeter_native.benchmark import gpu as gpu_module
from qmeter_native.cli.main import cli
from qmeter_native.cli.rim import run
from qmeter_native.cli.trace_runs import _vllm_quantization
from qmeter_native.engines.model_source import resolve_model
from qmeter_native.errors import UsageError
from qmeter_native.quantization.method_listing import architecture_of, method_listing
from qmeter_native.quantization.method_memory import method_memory
from qmeter_native.quantization.methods import METHODS, method_names

pytest.importorskip("torch")

SCHEMA: dict[str, Any] = json.loads((files("qmeter_native.quantization") / "methods.schema.json").read_text())


def on(monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(gpu_module, "find_capability", lambda: (name, capability))


def states(capability: tuple[int, int]) -> dict[str, str]:
    return {line.name: line.state for line in method_listing(("GPU", capability)).methods}


def test_the_table_names_every_method_and_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["methods"]) == 0
    text = capsys.readouterr().out
    for method in METHODS.values():
        assert method.name in text
        assert method.scheme in text
    assert "no GPU" in text
    assert "Next: qmeter-native methods show" in text


def test_an_a100_multiplies_integers_itself_and_falls_back_with_fp8(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on(monkeypatch, "A100", (8, 0))
    assert run(cli, ["methods"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "~ fp8 W8A8-FP tensor" in text
    assert "✓ gptq W4A16-INT g128" in text
    assert "Before 8.9 vLLM multiplies 16-bit activations with the FP8 weights (Marlin)" in text
    found = states((8, 0))
    assert found["fp8-block"] == found["fp8-kv8"] == "fallback"
    assert found["w4a8-fp"] == "absent"  # vLLM's needs 9.0, ours 8.9
    assert found["rtn-w8a8"] == found["qoq"] == "native"


def test_a_hopper_runs_every_method_natively() -> None:
    listing = method_listing(("H200", (9, 0)))
    assert {line.state for line in listing.methods} == {"native"}
    here = {line.name: line.vllm_here for line in listing.methods}
    assert here["gptq"] == ("Machete",)
    assert here["w4a8-fp"] == ("CUTLASS W4A8",)
    assert here["hqq"] is None


def test_a_gpu_that_is_too_old_has_none_of_them() -> None:
    assert set(states((7, 5)).values()) == {"absent"}


@pytest.mark.parametrize(
    ("capability", "name"),
    [((8, 6), "sm_80"), ((8, 9), "sm_89"), ((9, 0), "sm_90"), ((10, 3), "sm_100"), ((12, 0), None), (None, None)],
)
def test_gpus_go_by_the_architecture_whose_rules_hold(capability: tuple[int, int] | None, name: str | None) -> None:
    assert architecture_of(capability) == name


@pytest.mark.parametrize("capability", [None, (8, 0), (9, 0), (12, 0)])
def test_the_json_follows_its_schema(
    capability: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_module, "find_capability", lambda: None if capability is None else ("GPU", capability))
    assert run(cli, ["methods", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    Draft202012Validator(SCHEMA).validate(document)
    assert [line["name"] for line in document["methods"]] == list(method_names())


@pytest.mark.parametrize("name", method_names())
def test_one_method_is_explained_with_memory_and_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["methods", "show", name, "--model", "shape:tiny"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    method = METHODS[name]
    assert method.scheme in text
    assert "weights" in text
    assert "2 layers x 2 x 2 heads" in text
    assert ("trace --engine vllm" in text) == (method.vllm is not None)
    assert ("qmeter-native quantize" in text) == bool(method.config)
    assert ("no quantized paged cache" in text) == (method.kv is not None)


def test_memory_of_an_8b_model_is_that_of_its_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["methods", "show", "qoq", "--json"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert memory["kv_bytes_per_token"] == 32 * 2 * 8 * (128 // 2 + 4)
    assert memory["plain_weight_bytes"] == 2 * memory["num_parameters"] == 16060522496
    plain = memory["num_parameters"] - memory["num_quantized"]
    assert memory["weight_bytes"] == pytest.approx(2 * plain + memory["num_quantized"] * 4.1 / 8, rel=0.01)


def test_no_method_changes_what_the_baseline_takes() -> None:
    memory = method_memory(METHODS["none"], resolve_model("shape:tiny"))
    assert memory.weight_bytes == memory.plain_weight_bytes
    assert memory.num_quantized == 0


def test_an_unknown_name_is_a_usage_error_with_near_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["methods", "show", "smothquant"]) == 2
    assert "Did you mean smoothquant" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "name", "expected"),
    [
        ("shape:tiny", "none", (None, ())),
        ("shape:tiny", "gptq", (None, ())),
        ("shape:tiny", "kv4", (None, ("--kv-cache-dtype", "int4_per_token_head"))),
        ("./llama", "kv8", (None, ("--kv-cache-dtype", "int8_per_token_head"))),
        ("./llama", "awq_marlin", ("awq_marlin", ())),
    ],
)
def test_vllm_gets_the_flags_of_a_method(model: str, name: str, expected: Any) -> None:
    assert _vllm_quantization({"model": model, "quantization": name}) == expected


def test_a_method_that_vllm_has_not_is_refused_before_a_checkpoint_is_written() -> None:
    with pytest.raises(UsageError, match="vLLM does not serve hqq"):
        _vllm_quantization({"model": "shape:tiny", "quantization": "hqq"})
