"""INT8 weights with one scale an output, as W8A8 kernels multiply them: compressed-tensors' ``int-quantized`` layers.

A layer stores ``weight`` int8 ``[N, K]`` and ``weight_scale`` ``[N, 1]``, or ``[1]`` where the whole matrix shares one:
w = weight * weight_scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_float_matrix
from qmeter_native.kernels.packing.requirements import required_tensor
from qmeter_native.kernels.quantized_weight import ScaledWeight

__all__ = ["pack", "quantize", "unpack"]

_LARGEST: Final = 127
_FLOATS: Final = (torch.float32, torch.bfloat16, torch.float16)


def quantize(weight: Any) -> ScaledWeight:
    """Round to nearest, each output's largest magnitude to 127; -128 stays unused, so that signs are alike.

    Args:
        weight: Floating point ``[N, K]``.
    """
    check_float_matrix("weight", weight)
    rows = weight.float()
    scales = (rows.abs().amax(1, keepdim=True) / _LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    values = (rows / scales).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return ScaledWeight(values, scales, (1, weight.shape[1]))


def pack(weight: ScaledWeight) -> dict[str, Any]:
    """The checkpoint's tensors ``weight`` and ``weight_scale``, the latter float32.

    Raises:
        UsageError: The weight is not int8, or its scales go by blocks.
    """
    num_outputs, num_inputs = weight.shape
    if weight.values.dtype != torch.int8:
        raise UsageError(f"the weight holds {str(weight.values.dtype).removeprefix('torch.')}", "It must hold int8.")
    if weight.block not in ((1, num_inputs), (num_outputs, num_inputs)):
        raise UsageError(
            f"scales of blocks of {weight.block[0]} x {weight.block[1]}", "INT8 has one an output, or one in all."
        )
    by_tensor = weight.block[0] == num_outputs
    return {"weight": weight.values, "weight_scale": weight.scales.reshape(-1) if by_tensor else weight.scales}


def unpack(tensors: Mapping[str, Any]) -> ScaledWeight:
    """Read what `pack` writes; scales of 16 bits become float32.

    Raises:
        UsageError: A tensor is missing or of another type or shape.
    """
    values = required_tensor(tensors, "weight", (torch.int8,), None, None)
    num_outputs, num_inputs = values.shape
    if "weight_scale" in tensors and tensors["weight_scale"].numel() == 1 != num_outputs:
        return ScaledWeight(values, tensors["weight_scale"].float().reshape(1, 1), (num_outputs, num_inputs))
    scales = required_tensor(tensors, "weight_scale", _FLOATS, num_outputs, 1)
    return ScaledWeight(values, scales.float(), (1, num_inputs))
