"""Quantized layers through their kernels, in Triton's interpreter: every method's weights, bias, ranks of the input."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton")

import torch

from qmeter_native.attribution.classify import op_family
from qmeter_native.attribution.implementation_rules import implementation
from qmeter_native.kernels import oracle
from qmeter_native.kernels.scaled.variants import aot_variants as scaled_variants
from qmeter_native.kernels.w4a8.variants import aot_variants as w4a8_variants
from qmeter_native.kernels.weight_only.variants import aot_variants as weight_only_variants
from qmeter_native.model.op_family import OpFamily
from qmeter_native.quantization.checkpoint_formats.families import checkpoint_format
from qmeter_native.quantization.methods import METHODS, weight_method_names
from qmeter_native.quantization.quant_linear import QuantLinear

N, K = 128, 256


def layer_of(method: str) -> QuantLinear:
    torch.manual_seed(0)
    layout = checkpoint_format(METHODS[method].config).layer("model.layers.0.self_attn.q_proj")
    assert layout is not None
    layer: QuantLinear = layout.linear(layout.quantize(torch.randn(N, K) / 20), torch.randn(N).half(), torch.float16)
    return layer


def inputs() -> Any:
    x = torch.randn(2, 3, K, generator=torch.Generator().manual_seed(1)).half()
    x[0, 1, 7] = 9.0  # an outlier
    return x


@pytest.mark.parametrize("method", weight_method_names())
def test_a_prepared_layer_computes_what_its_weight_and_rounded_input_say(method: str) -> None:
    layer, x = layer_of(method), inputs()
    weight, rounded = layer.quantized_weight, layer.rounded_input(x.float())
    layer.prepare()
    out = layer(x)
    assert out.dtype is torch.float16
    exact = oracle.linear(rounded, weight, layer.bias)
    assert layer.bias is not None
    # Outliers of LLM.int8() are a product of float16 beside the other, and rounded to it twice.
    bound = oracle.linear_bound(rounded, weight, torch.float16, torch.float16)
    bound += 2 * oracle.relative_step(torch.float16) * (exact.abs() + layer.bias.double().abs())
    assert ((out - exact).abs() <= bound).all()


@pytest.mark.parametrize("method", ["gptq", "rtn-w8a8", "qoq"])
def test_a_prepared_layer_drops_its_first_form_and_still_moves(method: str) -> None:
    layer = layer_of(method)
    first = set(layer.state_dict())
    layer.prepare()
    layer.prepare()
    assert layer.is_prepared
    assert not {"codes", "group_scales"} & set(layer.state_dict()) or method == "qoq"
    assert first != set(layer.state_dict())
    layer.to("meta")
    assert {tensor.device.type for tensor in layer.state_dict().values()} == {"meta"}


@pytest.mark.parametrize(
    "variants", [weight_only_variants, scaled_variants, w4a8_variants], ids=["weight-only", "scaled", "w4a8"]
)
def test_reports_know_our_kernels_by_their_names(variants: Any) -> None:
    names = {variant.function.fn.__name__ for variant in variants()}
    assert {implementation(name) for name in names} == {"qmeter"}
    assert {op_family(name) for name in names} <= {OpFamily.GEMM, OpFamily.DEQUANTIZE}
