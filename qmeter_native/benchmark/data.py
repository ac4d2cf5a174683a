"""Random weights and activations of each format, never zeros: a GPU draws less power and runs faster on those."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch

from qmeter_native.benchmark.contender import Activation
from qmeter_native.errors import UsageError
from qmeter_native.kernels.activation.reference import (
    quantize_group_reference,
    quantize_tensor_reference,
    quantize_token_reference,
)
from qmeter_native.kernels.catalog import KernelFormat
from qmeter_native.kernels.packing import bitsandbytes, fp8, hqq, int8, mxfp4, nvfp4, qoq
from qmeter_native.kernels.packing.rounding import round_asymmetric, round_symmetric
from qmeter_native.kernels.quantized_weight import IntegerWeight, QuantizedWeight

__all__ = ["random_activation", "random_weight"]

_FP8_MAX: Final = 448.0


def random_weight(form: KernelFormat, n: int, k: int, device: str, seed: int) -> QuantizedWeight:
    """A normal matrix ``[N, K]`` of standard deviation ``1 / sqrt(K)``, rounded to the format.

    Raises:
        UsageError: The format cannot hold that size.
    """
    rows, columns = form.layout.block
    if (columns and k % columns) or (rows and n % rows):
        raise UsageError(f"{form.label} does not divide {n}x{k}", "Give other --shapes.")
    generator = torch.Generator(device).manual_seed(seed)
    weight = torch.randn(n, k, device=device, generator=generator) / math.sqrt(k)
    return _ROUND[form.label](weight)


def random_activation(form: KernelFormat, m: int, k: int, dtype: str, device: str, seed: int) -> Activation:
    """Normal activations ``[M, K]`` of standard deviation 1, quantized as the format has them."""
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(m, k, device=device, generator=generator)
    out_dtype, values_dtype = getattr(torch, dtype), getattr(torch, form.activations[0])
    if form.input_scales is None:
        return Activation.of(x.to(out_dtype), None, None, out_dtype)
    if form.input_scales.group:
        values, scales = quantize_group_reference(x, form.input_scales.group, values_dtype)
        return Activation.of(values, scales, None, out_dtype)
    if not form.input_scales.scale_bits:
        scale = x.abs().amax() / _FP8_MAX
        return Activation.of(quantize_tensor_reference(x, scale, values_dtype), scale.expand(m, 1), None, out_dtype)
    is_symmetric = not form.input_scales.zero_bits
    values, scales, *zeros = quantize_token_reference(x, values_dtype, is_symmetric)
    return Activation.of(values, scales[:, None], None if is_symmetric else zeros[0][:, None], out_dtype)


def _act_order(weight: Any) -> IntegerWeight:
    """Groups of 128 of the inputs in a random order, as GPTQ's by activations looks."""
    k = weight.shape[1]
    order = torch.randperm(k, generator=torch.Generator().manual_seed(k)).to(weight.device)
    rounded = round_symmetric(weight[:, order], 4, 128)
    codes, group_of = torch.empty_like(rounded.codes), torch.empty(k, dtype=torch.int32, device=weight.device)
    codes[:, order] = rounded.codes
    group_of[order] = torch.arange(k, dtype=torch.int32, device=weight.device) // 128
    return IntegerWeight(codes, rounded.scales, None, 4, 128, group_of)


_ROUND: Final[dict[str, Callable[[Any], QuantizedWeight]]] = {
    "W4A16-INT g128": lambda weight: round_symmetric(weight, 4, 128),
    "W4A16-INT g128 zp": lambda weight: round_asymmetric(weight, 4, 128),
    "W4A16-INT g128 act-order": _act_order,
    "W4A16-INT g64 HQQ": lambda weight: hqq.quantize(weight, hqq.HqqConfig(4, 64), iterations=1),
    "W8A16-INT g128": lambda weight: round_symmetric(weight, 8, 128),
    "W3A16-INT g128": lambda weight: round_symmetric(weight, 3, 128),
    "W2A16-INT g128": lambda weight: round_symmetric(weight, 2, 128),
    "W4A16-NF4 g64": lambda weight: bitsandbytes.quantize(weight, "nf4"),
    "W4A16-FP4 g64": lambda weight: bitsandbytes.quantize(weight, "fp4"),
    "W4A16-MXFP4 g32": mxfp4.quantize,
    "W4A16-NVFP4 g16": nvfp4.quantize,
    "W8A16-INT": int8.quantize,
    "W8A16-FP": fp8.quantize,
    "W8A8-INT": int8.quantize,
    "W8A8-INT asymmetric": int8.quantize,
    "W8A8-FP tensor": lambda weight: fp8.quantize(weight, "tensor"),
    "W8A8-FP": fp8.quantize,
    "W8A8-FP b128": lambda weight: fp8.quantize(weight, "block"),
    "W4A8-INT": lambda weight: qoq.quantize(weight, qoq.QoqConfig(-1)),
    "W4A8-INT g128": lambda weight: qoq.quantize(weight, qoq.QoqConfig(128)),
    "W4A8-FP g128": lambda weight: round_symmetric(weight, 4, 128),
}
