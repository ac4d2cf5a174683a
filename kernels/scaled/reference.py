"""8-bit products in plain torch, for machines without a GPU and as what the kernel is tested against."""

from __future__ import annotations

from typing import Any

import torch

from qmeter_native.kernels.scaled.tensor import ScaledTensor

__all__ = ["scaled_linear_reference"]


def scaled_linear_reference(
    x: Any, x_scales: Any, weight: ScaledTensor, bias: Any = None, out_dtype: Any = torch.float16, x_zeros: Any = None
) -> Any:
    """`scaled_gemm` in float64, where products of int8 are exact; ``[M, N]`` in ``out_dtype``."""
    n, k = weight.shape
    values, inputs = weight.values[:, :k].double(), x.double()
    if x_zeros is not None:
        inputs = inputs - x_zeros.double().reshape(-1, 1)
    if not weight.is_block_scaled:
        result = inputs @ values.T * x_scales.double().reshape(-1, 1) * weight.scales.double()
    else:
        of_block = torch.arange(k, device=x.device) // 128
        of_output = torch.arange(n, device=x.device) // 128
        token_scales = x_scales.double().reshape(-1, 1) if x_scales.ndim < 2 else x_scales.double()[:, of_block]
        result = (inputs * token_scales) @ (values * weight.scales.double()[of_output][:, of_block]).T
    return (result if bias is None else result + bias.double()).to(out_dtype)
