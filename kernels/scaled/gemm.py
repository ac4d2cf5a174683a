"""``scaled_gemm``: 8-bit activations times 8-bit weights on the tensor cores."""

from __future__ import annotations

from typing import Any

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_dtype, check_same_device, check_shape
from qmeter_native.kernels.gemm_config import GemmConfig, tuned_config
from qmeter_native.kernels.scaled.arguments import (
    check_activations,
    check_bias,
    check_fp8_cores,
    check_out_dtype,
    check_splits,
    gpu_of,
    has_tma,
    scalar_stride,
)
from qmeter_native.kernels.scaled.product import INPUTS_OF_SCALE, scaled_product
from qmeter_native.kernels.scaled.tensor import ScaledTensor, padded_inputs
from qmeter_native.kernels.scaled.tiles import default_config, swaps_operands

__all__ = ["scaled_gemm"]


def scaled_gemm(
    x: Any,
    x_scales: Any,
    weight: ScaledTensor,
    bias: Any | None = None,
    out_dtype: Any = torch.float16,
    x_zeros: Any | None = None,
    config: GemmConfig | None = None,
    *,
    fast_accumulation: bool = True,
) -> Any:
    """``out[m, n] = sum_k (x[m, k] - x_zeros[m]) * x_scales[m] * w[n, k] + bias[n]``, ``[M, N]``.

    Int8 sums are exact. FP8 sums on Hopper are aligned to about 14 bits inside the tensor cores (DeepSeek-V3, section
    3.3.2): with ``fast_accumulation``, which serving engines take, over all inputs; without it, and always with
    scales by block, 128 inputs at a time, which are then added in float32.

    Args:
        x: int8 or float8_e4m3fn as the weight's, ``[M, K]``, contiguous.
        x_scales: float32: one, by token ``[M]``, or for block-scaled weights by 128 inputs ``[M, ceil(K / 128)]``
            with any strides.
        weight: Its scales in one of the three ways of `ScaledTensor.prepare`.
        bias: float16, bfloat16 or float32 ``[N]``.
        out_dtype: float16 or bfloat16.
        x_zeros: int32, one or ``[M]``: zero points of int8 activations; not with block-scaled weights.
        config: Tiles; None takes the table's, or defaults.
        fast_accumulation: See above; FP8 on Hopper alone.

    Raises:
        UsageError: An argument that does not fit, by name.
        DeviceError: FP8 on a GPU without FP8 tensor cores.
    """
    _check(x, x_scales, weight, bias, out_dtype, x_zeros)
    m, n = x.shape[0], weight.shape[0]
    out = torch.empty(m, n, dtype=out_dtype, device=x.device)
    if m == 0:
        return out
    config = config or _config(x.device, weight, m)
    _check_config(config, m, weight)
    precise = None if fast_accumulation or x.dtype == torch.int8 else config.block_k
    _launch(padded_inputs(x), x_scales, weight, bias, x_zeros, out, config, precise)
    return out


def _check(x: Any, x_scales: Any, weight: ScaledTensor, bias: Any, out_dtype: Any, x_zeros: Any) -> None:
    n, k = weight.shape
    blocks = -(-k // int(INPUTS_OF_SCALE)) if weight.is_block_scaled else None
    check_activations(x, x_scales, weight.dtype, k, blocks)
    check_bias(bias, n)
    check_out_dtype(out_dtype)
    _check_zeros(x, weight, x_zeros)
    check_same_device(x=x, x_scales=x_scales, weight=weight.values, bias=bias, x_zeros=x_zeros)
    instead = "Multiply int8 activations, or 16-bit ones with FP8 weights (kernels.weight_only), on this GPU."
    check_fp8_cores(x.dtype, x.device, instead)


def _check_zeros(x: Any, weight: ScaledTensor, x_zeros: Any) -> None:
    if x_zeros is None:
        return
    if weight.column_sums is None:
        what = "block-scaled weights" if weight.is_block_scaled else "FP8"
        raise UsageError(f"x_zeros is given with {what}", "Zero points go with int8, scaled by tensor or channel.")
    check_dtype("x_zeros", x_zeros, torch.int32)
    if x_zeros.numel() != 1:
        check_shape("x_zeros", x_zeros, x.shape[0])


def _check_config(config: GemmConfig, m: int, weight: ScaledTensor) -> None:
    if weight.is_block_scaled and config.block_k != INPUTS_OF_SCALE:
        raise UsageError(f"config.block_k is {config.block_k}", "Block-scaled weights take 128.")
    check_splits(config, m, weight.shape[0])


def _config(device: Any, weight: ScaledTensor, m: int) -> GemmConfig:
    """The tuned tiles for this GPU, else the default."""
    n, k = weight.shape
    gpu = gpu_of(device)
    kernel = f"scaled_{'int8' if weight.dtype == torch.int8 else 'fp8'}{'_block' if weight.is_block_scaled else ''}"
    tuned = tuned_config(kernel, gpu[0], m, n, k)
    return tuned or default_config(m, n, k, *gpu, weight.is_block_scaled)


def _launch(
    x: Any, x_scales: Any, weight: ScaledTensor, bias: Any, x_zeros: Any, out: Any, config: GemmConfig, precise: Any
) -> None:
    (m, k), n = x.shape, weight.shape[0]
    tiles = config.tiles(m, n)
    is_integer, uses_tma = x.dtype == torch.int8, has_tma(x)
    partials = None
    if config.split_k > 1:
        dtype = torch.int32 if is_integer and not weight.is_block_scaled else torch.float32
        partials = torch.empty(config.split_k, tiles, config.block_m * config.block_n, dtype=dtype, device=x.device)
    scale_strides = x_scales.stride() if x_scales.numel() > 1 else ()
    programs = min(tiles, config.persistent * gpu_of(x.device)[1]) or tiles
    scaled_product[(programs, config.split_k)](
        TensorDescriptor.from_tensor(x, [config.block_m, config.block_k]) if uses_tma else x,
        TensorDescriptor.from_tensor(weight.values, [config.block_n, config.block_k]) if uses_tma else weight.values,
        out,
        x_scales,
        weight.scales,
        x_zeros,
        None if x_zeros is None else weight.column_sums,
        bias,
        partials,
        weight.counters if config.split_k > 1 else None,
        m,
        n,
        k,
        x.stride(0),
        weight.values.stride(0),
        *(*scale_strides, 0, 0)[:2],
        weight.scales.stride(0),
        scalar_stride(x_zeros),
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        IS_SPLIT=config.split_k > 1,
        SWAP=swaps_operands(config),
        INTEGER=is_integer,
        BLOCK_SCALED=weight.is_block_scaled,
        EVEN_K=k % config.block_k == 0,
        TMA=uses_tma,
        IMPRECISE=precise,
        PERSISTENT=programs < tiles,
        STAGES=config.num_stages,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
