"""Products of 4-bit weights with 8-bit activations in plain torch, for machines without a GPU and for tests."""

from __future__ import annotations

from typing import Any

import torch

from qmeter_native.kernels.w4a8.tensor import W4A8Tensor

__all__ = ["w4a8_reference"]


def w4a8_reference(x: Any, x_scales: Any, weight: W4A8Tensor, bias: Any = None, out_dtype: Any = torch.float16) -> Any:
    """`w4a8_gemm` in float64, where products of int8 are exact; ``[M, N]`` in ``out_dtype``."""
    inputs, values = x.double(), weight.integers().double()
    if weight.scales is None:
        product = inputs @ (values * weight.group_scales().double()).T
    else:
        product = inputs @ values.T
        if weight.zeros is not None:
            product = product - inputs.sum(1, keepdim=True) * weight.zeros.double()
        product = product * weight.scales.double()
    result = product * x_scales.double().reshape(-1, 1)
    return (result if bias is None else result + bias.double()).to(out_dtype)
