"""Refusals that products of 8-bit activations share, and what they know of the GPU."""

from __future__ import annotations

from typing import Any

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_capability, check_contiguous, check_dtype, check_shape
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.scaled.tensor import SPLIT_TILES

__all__ = [
    "check_activations",
    "check_bias",
    "check_fp8_cores",
    "check_out_dtype",
    "check_splits",
    "gpu_of",
    "has_tma",
    "scalar_stride",
]

_MOST_INPUTS = 65536
"""Of an int8 product: 255 x 128 x 65536 (a zero point taken off) is the last that is below 2^31."""


def check_activations(x: Any, x_scales: Any, dtype: Any, k: int, blocks: int | None = None) -> None:
    """Refuse activations that are not ``dtype`` ``[M, k]``, and scales that are neither one, ``[M]`` nor, where
    ``blocks`` is given, ``[M, blocks]``.
    """
    check_dtype("x", x, dtype)
    check_shape("x", x, None, k)
    check_contiguous("x", x)
    check_dtype("x_scales", x_scales, torch.float32)
    if blocks is not None and x_scales.ndim == 2:
        check_shape("x_scales", x_scales, x.shape[0], blocks)
    elif x_scales.numel() != 1 or x_scales.ndim > 1:
        check_shape("x_scales", x_scales, x.shape[0])
    if dtype == torch.int8 and k > _MOST_INPUTS:
        raise UsageError(f"x has {k} inputs", f"Sums of int8 products are exact up to {_MOST_INPUTS}.")


def check_bias(bias: Any, n: int) -> None:
    """Refuse a bias that is not ``[n]`` of floating point."""
    if bias is not None:
        check_dtype("bias", bias, torch.float16, torch.bfloat16, torch.float32)
        check_shape("bias", bias, n)
        check_contiguous("bias", bias)


def check_out_dtype(out_dtype: Any) -> None:
    """Refuse outputs of other types than the 16-bit ones."""
    if out_dtype not in (torch.float16, torch.bfloat16):
        raise UsageError(f"out_dtype is {out_dtype}", "It must be torch.float16 or torch.bfloat16.")


def check_splits(config: GemmConfig, m: int, n: int) -> None:
    """Refuse to split the inputs of more tiles than a weight counts arrivals for."""
    tiles = config.tiles(m, n)
    if config.split_k > 1 and tiles > SPLIT_TILES:
        raise UsageError(f"config splits the inputs of {tiles} tiles", f"At most {SPLIT_TILES} can be split.")


def check_fp8_cores(dtype: Any, device: Any, instead: str) -> None:
    """Refuse FP8 activations where the tensor cores have no FP8 (before compute capability 8.9)."""
    if dtype != torch.int8:
        check_capability("A product of FP8 activations", device, (8, 9), instead)


def scalar_stride(vector: Any) -> int:
    """From one token's value to the next one's; 0 where one serves all."""
    return 0 if vector is None or vector.numel() == 1 else int(vector.stride(0))


def gpu_of(device: Any) -> tuple[tuple[int, int], int]:
    """Compute capability and multiprocessors; an H200's for the interpreter on a CPU."""
    if device.type != "cuda":
        return (9, 0), 132
    properties = torch.cuda.get_device_properties(device)
    return (properties.major, properties.minor), properties.multi_processor_count


def has_tma(x: Any) -> bool:
    """Whether the tensor memory accelerator, Hopper's and later, can load ``x``."""
    is_present = x.device.type == "cuda" and torch.cuda.get_device_capability(x.device) >= (9, 0)
    return bool(is_present and x.data_ptr() % 16 == 0)
