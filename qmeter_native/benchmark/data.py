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
from qmeter_native.kernels.packing import bitsandbytes, mxfp4
from qmeter_native.kernels.packing.e2m1 import E2M1_MAX, E2M1_TABLE, round_to_e2m1
from qmeter_native.kernels.packing.requirements import integer_zeros
from qmeter_native.kernels.packing.rounding import round_asymmetric, round_symmetric
from qmeter_native.kernels.quantized_weight import (
    CodebookWeight,
    IntegerWeight,
    ProgressiveWeight,
    QuantizedWeight,
    ScaledWeight,
)

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


def _float_zero(weight: Any) -> IntegerWeight:
    """HQQ's: zero points between the codes."""
    rounded = round_asymmetric(weight, 4, 64)
    zeros = integer_zeros(rounded).half() + 0.25
    return IntegerWeight(rounded.codes, rounded.scales, zeros, 4, 64)


def _nvfp4(weight: Any) -> CodebookWeight:
    groups = weight.reshape(weight.shape[0], -1, 16)
    scales = _e4m3(groups.abs().amax(-1) / E2M1_MAX)
    codes = round_to_e2m1((groups / scales[..., None]).double())
    return CodebookWeight(codes.reshape(weight.shape), E2M1_TABLE.to(weight.device), scales, 16)


def _e4m3(scales: Any) -> Any:
    """NVFP4's scales: E4M3 under one float32 of the tensor."""
    overall = scales.amax() / _FP8_MAX
    return (scales / overall).to(torch.float8_e4m3fn).float() * overall


def _scaled(dtype: Any, block: tuple[int, int] | None) -> Callable[[Any], ScaledWeight]:
    """``block`` None is the whole tensor; a 0 in it is all there is."""

    def rounded(weight: Any) -> ScaledWeight:
        n, k = weight.shape
        rows, columns = (n, k) if block is None else (block[0] or n, block[1] or k)
        blocks = weight.reshape(n // rows, rows, k // columns, columns)
        is_int8 = dtype == torch.int8
        scales = blocks.abs().amax((1, 3)) / (127.0 if is_int8 else _FP8_MAX)
        values = (blocks / scales[:, None, :, None]).reshape(n, k)
        return ScaledWeight(values.round().to(dtype) if is_int8 else values.to(dtype), scales, (rows, columns))

    return rounded


def _progressive(weight: Any) -> ProgressiveWeight:
    """QoQ: a row to int8 within ±119, so that the inner codes cannot leave int8; then each group to 4 bits."""
    n, k = weight.shape
    scales = (weight.abs().amax(1) / 119).half()
    inner = (weight / scales.float()[:, None]).round().reshape(n, -1, 128)
    low, high = inner.amin(-1), inner.amax(-1)
    group_scales = ((high - low) / 15).ceil().clamp_min(1)
    zeros = (-low / group_scales).round().clamp(0, 15)
    codes = (inner / group_scales[..., None] + zeros[..., None]).round().clamp(0, 15).to(torch.uint8)
    return ProgressiveWeight(codes.reshape(n, k), group_scales.to(torch.int8), zeros.to(torch.uint8), scales, 128)


_ROUND: Final[dict[str, Callable[[Any], QuantizedWeight]]] = {
    "W4A16-INT g128": lambda weight: round_symmetric(weight, 4, 128),
    "W4A16-INT g128 zp": lambda weight: round_asymmetric(weight, 4, 128),
    "W4A16-INT g128 act-order": _act_order,
    "W4A16-INT g64 HQQ": _float_zero,
    "W8A16-INT g128": lambda weight: round_symmetric(weight, 8, 128),
    "W3A16-INT g128": lambda weight: round_symmetric(weight, 3, 128),
    "W2A16-INT g128": lambda weight: round_symmetric(weight, 2, 128),
    "W4A16-NF4 g64": lambda weight: bitsandbytes.quantize(weight, "nf4"),
    "W4A16-FP4 g64": lambda weight: bitsandbytes.quantize(weight, "fp4"),
    "W4A16-MXFP4 g32": mxfp4.quantize,
    "W4A16-NVFP4 g16": _nvfp4,
    "W8A16-INT": _scaled(torch.int8, (1, 0)),
    "W8A16-FP": _scaled(torch.float8_e4m3fn, (1, 0)),
    "W8A8-INT": _scaled(torch.int8, (1, 0)),
    "W8A8-INT asymmetric": _scaled(torch.int8, (1, 0)),
    "W8A8-FP tensor": _scaled(torch.float8_e4m3fn, None),
    "W8A8-FP": _scaled(torch.float8_e4m3fn, (1, 0)),
    "W8A8-FP b128": _scaled(torch.float8_e4m3fn, (128, 128)),
    "W4A8-INT": lambda weight: round_asymmetric(weight, 4, -1),
    "W4A8-INT g128": _progressive,
    "W4A8-FP g128": lambda weight: round_symmetric(weight, 4, 128),
}
