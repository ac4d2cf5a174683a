"""Quantized layers on a CPU, against the definition in double precision."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from qmeter_native.kernels import oracle
from qmeter_native.kernels.quantized_weight import CodebookWeight, IntegerWeight, ProgressiveWeight, ScaledWeight
from qmeter_native.quantization.activation_quantizer import ActivationQuantizer
from qmeter_native.quantization.llm_int8_linear import LlmInt8Linear
from qmeter_native.quantization.quant_linear import QuantLinear
from qmeter_native.quantization.scaled_linear import ScaledLinear
from qmeter_native.quantization.w4a8_linear import W4A8Linear
from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

N, K, GROUP = 24, 64, 32

INT8 = ActivationQuantizer("int8")
FP8 = ActivationQuantizer("fp8")


def integers(bits: int = 4, zeros: object = None, group_size: int = GROUP, group_of: object = None) -> IntegerWeight:
    codes = torch.randint(0, 2**bits, (N, K), dtype=torch.uint8)
    scales = (torch.rand(N, -(-K // group_size)) + 0.5).half()
    return IntegerWeight(codes, scales, zeros, bits, group_size, group_of)


def scaled(block: tuple[int, int], dtype: object = torch.int8) -> ScaledWeight:
    values = torch.randint(-127, 128, (N, K)).to(dtype)
    return ScaledWeight(values, torch.rand(-(-N // block[0]), -(-K // block[1])) / 64, block)


def progressive() -> ProgressiveWeight:
    codes, zeros = (torch.randint(0, 16, shape, dtype=torch.uint8) for shape in ((N, K), (N, K // GROUP)))
    group_scales = torch.randint(1, 8, (N, K // GROUP), dtype=torch.int8)
    return ProgressiveWeight(codes, group_scales, zeros, torch.rand(N).half(), GROUP)


def layers() -> dict[str, QuantLinear]:
    torch.manual_seed(0)
    bias, table = torch.randn(N), torch.randn(16)
    order = torch.randperm(K).to(torch.int32) // GROUP
    codebook = CodebookWeight(torch.randint(0, 16, (N, K), dtype=torch.uint8), table, torch.rand(N, 2), GROUP)
    return {
        "4 bits": WeightOnlyLinear(integers(), bias),
        "3 bits and no bias": WeightOnlyLinear(integers(3)),
        "zero points": WeightOnlyLinear(integers(zeros=torch.randint(0, 16, (N, 2), dtype=torch.uint8)), bias),
        "zero points in floating point": WeightOnlyLinear(integers(zeros=torch.rand(N, 2).half() * 15), bias),
        "act-order": WeightOnlyLinear(integers(group_of=order), bias),
        "codebook": WeightOnlyLinear(codebook, bias),
        "int8 by channel": ScaledLinear(scaled((1, K)), bias, quantizer=INT8),
        "int8 with zero points": ScaledLinear(
            scaled((1, K)), bias, quantizer=ActivationQuantizer("int8", is_symmetric=False)
        ),
        "int8 with a given scale": ScaledLinear(scaled((1, K)), bias, quantizer=INT8, input_scale=torch.tensor([0.02])),
        "int8 with a given zero point": ScaledLinear(
            scaled((1, K)),
            bias,
            quantizer=INT8,
            input_scale=torch.tensor([0.02]),
            input_zero=torch.tensor([3], dtype=torch.int32),
        ),
        "fp8 by tensor": ScaledLinear(scaled((N, K), torch.float8_e4m3fn), bias, quantizer=FP8),
        "fp8 by block": ScaledLinear(
            scaled((16, 16), torch.float8_e4m3fn), bias, quantizer=ActivationQuantizer("fp8", 48)
        ),
        "LLM.int8()": LlmInt8Linear(scaled((1, K)), bias),
        "two levels": W4A8Linear(progressive(), bias, quantizer=INT8),
        "one group a row": W4A8Linear(integers(group_size=K), bias, quantizer=INT8),
        "4 bits times fp8": W4A8Linear(integers(), bias, quantizer=FP8),
    }


@pytest.mark.parametrize("name", layers())
def test_a_layer_is_the_product_of_its_weight_and_its_rounded_input(name: str) -> None:
    layer = layers()[name]
    x = torch.randn(3, 5, K)
    out = layer(x)
    assert out.shape == (3, 5, N)
    assert out.dtype is torch.float32
    rounded, weight = layer.rounded_input(x), layer.quantized_weight
    exact = oracle.linear(rounded, weight, layer.bias)
    assert ((out - exact).abs() <= oracle.linear_bound(rounded, weight, torch.float32, None)).all()


@pytest.mark.parametrize("name", layers())
def test_rounding_the_input_costs_what_its_type_rounds(name: str) -> None:
    layer = layers()[name]
    x = torch.randn(7, K)
    error = (layer.rounded_input(x) - x).abs()
    if isinstance(layer, WeightOnlyLinear):
        assert (error == 0).all()
    elif getattr(layer, "quantizer", INT8).number == "int8":  # half a step of 256 between the extremes, or of 0.02
        largest = x.abs().amax(1, keepdim=True)
        assert (error <= (largest / 127 / 2).clamp_min(0.02 / 2 + (largest - 0.02 * 124).clamp_min(0))).all()
    else:  # e4m3 has 3 bits of mantissa; below 2**-6 of its scale, steps of 2**-9
        scale = x.abs().amax(1, keepdim=True) / 448
        assert (error <= torch.maximum(x.abs() / 16, scale * 2**-10) * 1.001).all()


def test_outliers_of_llm_int8_are_multiplied_as_they_are() -> None:
    layer = LlmInt8Linear(scaled((1, K)))
    x = torch.randn(4, K).clamp(-3, 3)
    x[1, 5] = 60.0
    rounded = layer.rounded_input(x)
    assert torch.equal(rounded[:, 5], x[:, 5])
    assert ((rounded - x).abs() <= 3 / 127 / 2 * 1.001).all()  # the outlier does not widen the steps of its token
    without = LlmInt8Linear(scaled((1, K)), threshold=0.0).rounded_input(x)
    assert (without - x)[1].abs().max() > 0.1


def test_casts_reach_the_bias_and_leave_codes_and_scales_as_they_are() -> None:
    layer = ScaledLinear(scaled((1, K), torch.float8_e4m3fn), torch.randn(N), quantizer=FP8).to(torch.bfloat16)
    assert layer.bias is not None
    assert layer.bias.dtype is torch.bfloat16
    assert layer.values.dtype is torch.float8_e4m3fn
    assert layer.scales.dtype is torch.float32
    assert layer(torch.randn(2, K, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_a_layer_moves_with_its_model() -> None:
    model = torch.nn.Sequential(WeightOnlyLinear(integers(), torch.randn(N)), torch.nn.ReLU()).to("meta")
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert model[0].device.type == "meta"


def test_a_layers_state_is_restored() -> None:
    first, second = (WeightOnlyLinear(integers(), torch.randn(N)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, K)
    assert torch.equal(first(x), second(x))


def test_bytes_of_a_layer_are_those_of_densely_packed_codes() -> None:
    assert WeightOnlyLinear(integers()).weight_bytes == N * K // 2 + N * 2 * 2
    zeros = torch.zeros(N, 2, dtype=torch.uint8)
    assert WeightOnlyLinear(integers(zeros=zeros)).weight_bytes == N * K // 2 + N * 2 * 2 + N
    assert ScaledLinear(scaled((1, K)), quantizer=INT8).weight_bytes == N * K + N * 4
    assert W4A8Linear(progressive(), quantizer=INT8).weight_bytes == N * K // 2 + N * 2 + N * 2 + N
