"""Rounding of weights to the nearest integer code, without calibration data: what GPTQ, AWQ and compressed-tensors
begin with. The codes are rounded against the scale as it is stored.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_float_matrix
from qmeter_native.kernels.quantized_weight import IntegerWeight

__all__ = ["grouped", "round_asymmetric", "round_symmetric"]

_SMALLEST_SCALE: Final = 2**-14
"""The smallest normal number of float16: a group of zeros gets it."""


def round_symmetric(weight: Any, bits: int, group_size: int, scale_dtype: Any = torch.float16) -> IntegerWeight:
    """Codes around ``2 ** (bits - 1)``; a scale is the group's largest magnitude over ``2 ** (bits - 1) - 1/2``.

    That is the middle between the largest code above the centre and the largest below, as GPTQ and compressed-tensors
    have it (there: range / (2 ** bits - 1)).

    Args:
        weight: Floating point ``[N, K]``.
        bits: Of a code, 2 to 8.
        group_size: Inputs that share a scale, -1: all; the last group may be shorter.
        scale_dtype: Type in which scales are stored.
    """
    groups, group_size = grouped(weight, group_size)
    half = 1 << (bits - 1)
    scales = (groups.abs().amax(2) / (half - 0.5)).clamp_min(_SMALLEST_SCALE).to(scale_dtype)
    codes = (groups / scales.float()[:, :, None]).round_().add_(half).clamp_(0, 2 * half - 1).to(torch.uint8)
    return IntegerWeight(codes.flatten(1)[:, : weight.shape[1]].contiguous(), scales, None, bits, group_size)


def round_asymmetric(weight: Any, bits: int, group_size: int, scale_dtype: Any = torch.float16) -> IntegerWeight:
    """Codes from the group's smallest weight to its largest, 0 among them; zero points uint8.

    Args:
        weight: Floating point ``[N, K]``.
        bits: Of a code, 2 to 8.
        group_size: Inputs that share a scale and a zero point, -1: all; the last group may be shorter.
        scale_dtype: Type in which scales are stored.
    """
    groups, group_size = grouped(weight, group_size)
    largest = (1 << bits) - 1
    low, high = groups.amin(2).clamp_max(0), groups.amax(2).clamp_min(0)
    scales = ((high - low) / largest).clamp_min(_SMALLEST_SCALE).to(scale_dtype)
    zeros = (-low / scales.float()).round().clamp(0, largest)
    codes = (groups / scales.float()[:, :, None]).round_().add_(zeros[:, :, None]).clamp_(0, largest).to(torch.uint8)
    codes = codes.flatten(1)[:, : weight.shape[1]].contiguous()
    return IntegerWeight(codes, scales, zeros.to(torch.uint8), bits, group_size)


def grouped(weight: Any, group_size: int) -> tuple[Any, int]:
    """A weight ``[N, K]`` as float32 ``[N, G, group_size]``, the last group filled with zeros, and the group's size.

    Raises:
        UsageError: The weight is no matrix of finite numbers, or ``group_size`` is neither positive nor -1.
    """
    check_float_matrix("weight", weight)
    num_outputs, num_inputs = weight.shape
    if group_size == -1:
        group_size = num_inputs
    if group_size < 1:
        raise UsageError(f"group_size is {group_size}", "It must be positive, or -1 for all inputs.")
    missing = -num_inputs % group_size
    return torch.nn.functional.pad(weight.float(), (0, missing)).reshape(num_outputs, -1, group_size), group_size
