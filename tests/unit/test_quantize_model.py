"""The built-in model quantized on the fly by every method, on a CPU."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("transformers")

import torch

from qmeter_native.engines.model_loading import load_model
from qmeter_native.engines.model_source import BUILTIN_MODEL, resolve_model
from qmeter_native.engines.options import EngineOptions
from qmeter_native.engines.transformers_engine import TransformersEngine
from qmeter_native.errors import UsageError
from qmeter_native.kernels.catalog import FORMATS
from qmeter_native.quantization.checkpoint_formats.families import checkpoint_format
from qmeter_native.quantization.llm_int8_linear import LlmInt8Linear
from qmeter_native.quantization.methods import METHODS, weight_method_names
from qmeter_native.quantization.quant_linear import QuantLinear
from qmeter_native.quantization.quantize_model import quantize_model, rounded_config
from qmeter_native.work.scheme import read_scheme
from qmeter_native.workload.load_generator import run_workload
from qmeter_native.workload.workload import Workload

CPU = torch.device("cpu")
TEXT = b"def read(path):\n    with open(path) as file:\n        return file.read()\n\n\ndef write(path, text):\n    "


def bound(method: str) -> float:
    """Of the logits' relative error, by the root mean square error of rounding a normal weight.

    That is 10 to 12 % with 16 levels in groups; 2.6 % with e4m3's 3 bits behind the leading one, on both sides; 0.7 %
    with 8-bit integers, on both sides. Layers average errors and add their own; half as much is allowed on top.
    """
    scheme = METHODS[method].scheme
    if scheme.startswith("W4"):
        return 0.18
    return 2**0.5 * 1.5 * (0.026 if "FP" in scheme else 0.012)


@pytest.fixture(scope="module")
def logits() -> Any:
    model = load_model(resolve_model(BUILTIN_MODEL), CPU, torch.float32, 0).model
    return model(torch.tensor([list(TEXT)])).logits


@pytest.mark.parametrize("method", weight_method_names())
def test_logits_stay_near_those_of_float32(method: str, logits: Any) -> None:
    loaded = load_model(resolve_model(BUILTIN_MODEL), CPU, torch.float32, 0, method)
    found = loaded.model(torch.tensor([list(TEXT)])).logits
    error = ((found - logits).norm() / logits.norm()).item()
    assert 1e-4 < error < bound(method)
    assert sum(isinstance(module, QuantLinear) for module in loaded.model.modules()) == 4 * 7


@pytest.mark.parametrize("method", weight_method_names())
def test_the_work_model_counts_what_a_layer_holds(method: str) -> None:
    config = rounded_config(method)
    scheme, reason = read_scheme(str(config["quant_method"]), config, "float16")
    assert reason is None
    assert scheme is not None
    layout = checkpoint_format(config).layer("model.layers.0.mlp.down_proj")
    assert layout is not None
    layer = layout.linear(layout.quantize(torch.randn(256, 384) / 50), None, torch.float16)
    # Kept wider than stored: scales of E4M3, E8M0 and double quantization as float32, QoQ's zero points as bytes.
    assert 1 <= layer.weight_bytes / scheme.weight.num_bytes(256, 384) < 1.5
    assert (scheme.activation_bits == 8) == ("A8" in METHODS[method].scheme)


def test_every_method_has_a_format_of_the_catalog() -> None:
    assert {method.format for method in METHODS.values() if method.config} <= {each.label for each in FORMATS}


@pytest.mark.parametrize("method", ["gptq", "nf4", "rtn-w8a8", "llm-int8", "fp8-block", "qoq", "w4a8-fp"])
def test_the_embedded_engine_serves_a_quantized_model(method: str) -> None:
    options = EngineOptions(BUILTIN_MODEL, device="cpu", quantization=method, max_concurrency=2, max_context_len=32)
    with TransformersEngine(options) as engine:
        result = run_workload(engine, Workload(num_requests=2, input_len=20, output_len=6))
        info = engine.info
    assert result.failure is None
    assert result.requests.is_finished.all()
    assert result.requests.num_output_tokens.tolist() == [6, 6]
    assert info.requested["quantization"] == method
    assert info.effective["quantization"] == method
    assert info.effective["quantization_config"] == METHODS[method].config
    assert sum(info.effective["quantized_layers"].values()) == 28
    assert info.effective["num_parameters"] > 2_000_000
    plain = 256 * 256 * 4 + 9 * 256 * 4  # embedding and norms, float32
    weights, layout = info.effective["num_parameters"] - plain // 4, METHODS[method].layout
    assert info.effective["parameter_bytes"] - plain == pytest.approx(
        weights * layout.num_bytes(256, 256) / 65536, 0.01
    )


def test_a_shape_is_quantized_as_it_is_drawn() -> None:
    source = resolve_model("shape:tiny")
    first, again, other = (load_model(source, CPU, torch.bfloat16, seed, "rtn-w8a8").model for seed in (1, 1, 2))
    name = "model.layers.0.mlp.up_proj"
    values = [model.get_submodule(name).values for model in (first, again, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    assert all(not tensor.is_meta for tensor in (*first.parameters(), *first.buffers()))
    assert first.dtype is torch.bfloat16
    weight = first.get_submodule(name).quantized_weight.dequantize()
    assert 0.015 < float(weight.std()) < 0.025


def test_layers_are_skipped_by_the_last_part_of_their_names() -> None:
    model = load_model(resolve_model(BUILTIN_MODEL), CPU, torch.float32, 0).model
    quantize_model(model, "rtn-w8a8", skip=("lm_head", "mlp", "layers.1"))
    quantized = [name for name, module in model.named_modules() if isinstance(module, QuantLinear)]
    assert len(quantized) == 3 * 4
    assert not any("mlp" in name or "layers.1." in name for name in quantized)


@pytest.mark.parametrize("method", weight_method_names())
def test_act_order_is_left_to_calibration(method: str) -> None:
    config = rounded_config(method)
    assert not config.get("desc_act")
    assert config == {**METHODS[method].config, **({"desc_act": False} if "desc_act" in config else {})}


def test_an_unknown_method_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="gptqq") as caught:
        EngineOptions(BUILTIN_MODEL, quantization="gptqq")
    assert "Did you mean gptq" in str(caught.value)


def test_a_layer_that_does_not_suit_is_refused_before_anything_is_replaced() -> None:
    model = load_model(resolve_model(BUILTIN_MODEL), CPU, torch.float32, 0).model
    last = "model.layers.3.mlp.down_proj"
    model.set_submodule(last, torch.nn.Linear(384, 253))
    with pytest.raises(UsageError, match=last):
        quantize_model(model, "awq")
    assert not any(isinstance(module, QuantLinear) for module in model.modules())


def test_llm_int8_cannot_be_captured_by_a_cuda_graph() -> None:
    from qmeter_native.quantization.quantized_layers import can_be_captured

    model = load_model(resolve_model(BUILTIN_MODEL), CPU, torch.float32, 0, "llm-int8").model
    assert isinstance(model.get_submodule("model.layers.0.mlp.up_proj"), LlmInt8Linear)
    assert not can_be_captured(model)
