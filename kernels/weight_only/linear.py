"""The best way to a product with a weight-only weight: fused for few tokens, dequantized first for many."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

from qmeter_native.kernels.gemm_config import GemmConfig, tuned_limit
from qmeter_native.kernels.weight_only.dequantize import dequantize_kernel
from qmeter_native.kernels.weight_only.gemm import check_arguments, weight_only_gemm
from qmeter_native.kernels.weight_only.tensor import WeightOnlyTensor

__all__ = ["fused_limit", "weight_only_linear"]

DEFAULT_FUSED_LIMIT = 384
"""By estimate, not measured: on an H200 decoding costs about 45 us for 8192 by 8192, what a fused product at 60 % of
cuBLAS loses at about 350 tokens."""


def fused_limit(weight: WeightOnlyTensor) -> int:
    """The most tokens for which the fused kernel is taken, from the table of the architecture."""
    if weight.device.type != "cuda":
        return DEFAULT_FUSED_LIMIT
    limit = tuned_limit(f"weight_only_{weight.kind}", torch.cuda.get_device_capability(weight.device))
    return DEFAULT_FUSED_LIMIT if limit is None else limit


def weight_only_linear(
    x: Any, weight: WeightOnlyTensor, bias: Any | None = None, *, config: GemmConfig | None = None
) -> Any:
    """``x @ w.T + bias``: ``[..., K]`` to ``[..., N]``.

    Args:
        x: float16 or bfloat16 ``[..., K]``, contiguous.
        weight: ``[N, K]``.
        bias: ``[N]``, of the type of ``x``.
        config: Tiles of the fused kernel, which is then taken for any number of tokens; None: as tables say.

    Raises:
        UsageError: An argument has another type, shape, stride or device than stated.
    """
    if config is not None or x.numel() <= fused_limit(weight) * weight.shape[1]:
        return weight_only_gemm(x, weight, bias, config=config)
    check_arguments(x, weight, bias)
    return linear(x, dequantize_kernel(weight, x.dtype), bias)
