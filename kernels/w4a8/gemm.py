"""``w4a8_gemm``: 8-bit activations times 4-bit weights, decoded in registers, on the 8-bit tensor cores."""

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
from qmeter_native.kernels.scaled.tensor import padded_inputs
from qmeter_native.kernels.w4a8.layout import INPUTS, OUTPUTS
from qmeter_native.kernels.w4a8.product import w4a8_product
from qmeter_native.kernels.w4a8.tensor import CHANNEL, FP8, W4A8Tensor
from qmeter_native.kernels.w4a8.tiles import default_config

__all__ = ["w4a8_gemm"]


def w4a8_gemm(
    x: Any,
    x_scales: Any,
    weight: W4A8Tensor,
    bias: Any | None = None,
    out_dtype: Any = torch.float16,
    config: GemmConfig | None = None,
    *,
    x_sums: Any | None = None,
) -> Any:
    """``out[m, n] = x_scales[m] * sum_k x[m, k] * w[n, k] + bias[n]``, ``[M, N]``, with ``w`` as `W4A8Tensor` has it.

    Int8 sums are exact; those of FP8 are, 128 inputs at a time, Hopper's with about 14 bits, and added in float32.

    Args:
        x: int8 or float8_e4m3fn as ``weight.dtype``, ``[M, K]``, contiguous.
        x_scales: float32: one, or by token ``[M]``.
        weight: Prepared.
        bias: float16, bfloat16 or float32 ``[N]``.
        out_dtype: float16 or bfloat16.
        config: Tiles; None takes the table's, or defaults.
        x_sums: int32 ``[M]``, each token's sum of ``x``, which zero points by channel are multiplied with; None
            computes it, by a launch of its own.

    Raises:
        UsageError: An argument that does not fit, by name.
        DeviceError: FP8 on a GPU without FP8 tensor cores.
    """
    _check(x, x_scales, weight, bias, out_dtype, x_sums)
    m, (n, k) = x.shape[0], weight.shape
    out = torch.empty(m, n, dtype=out_dtype, device=x.device)
    if m == 0:
        return out
    gpu = gpu_of(x.device)
    config = config or tuned_config(f"w4a8_{weight.kind}", gpu[0], m, n, k)
    config = config or default_config(m, n, k, *gpu)
    _check_config(config, m, n)
    if weight.kind != CHANNEL:
        x_sums = None
    elif x_sums is None:
        x_sums = x.sum(1, dtype=torch.int32)
    _launch(padded_inputs(x), x_scales, x_sums, weight, bias, out, config)
    return out


def _check(x: Any, x_scales: Any, weight: W4A8Tensor, bias: Any, out_dtype: Any, x_sums: Any) -> None:
    n, k = weight.shape
    check_activations(x, x_scales, weight.dtype, k)
    check_bias(bias, n)
    check_out_dtype(out_dtype)
    if x_sums is not None:
        check_dtype("x_sums", x_sums, torch.int32)
        check_shape("x_sums", x_sums, x.shape[0])
    check_same_device(x=x, x_scales=x_scales, weight=weight.codes, bias=bias, x_sums=x_sums)
    instead = "Multiply 16-bit activations with this weight (kernels.weight_only) on this GPU."
    check_fp8_cores(x.dtype, x.device, instead)


def _check_config(config: GemmConfig, m: int, n: int) -> None:
    if config.block_k != INPUTS:
        raise UsageError(f"config.block_k is {config.block_k}", f"It must be {INPUTS}.")
    if config.block_n not in (OUTPUTS, 2 * OUTPUTS):
        raise UsageError(f"config.block_n is {config.block_n}", f"It must be {OUTPUTS} or {2 * OUTPUTS}.")
    check_splits(config, m, n)


def _launch(x: Any, x_scales: Any, x_sums: Any, weight: W4A8Tensor, bias: Any, out: Any, config: GemmConfig) -> None:
    (m, k), n = x.shape, weight.shape[0]
    tiles = config.tiles(m, n)
    uses_tma, is_split = has_tma(x), config.split_k > 1
    partials = None
    if is_split:
        dtype = torch.float32 if weight.kind == FP8 else torch.int32
        partials = torch.empty(config.split_k, tiles, config.block_m * config.block_n, dtype=dtype, device=x.device)
    w4a8_product[(tiles, config.split_k)](
        TensorDescriptor.from_tensor(x, [config.block_m, INPUTS // 2]) if uses_tma else x,
        weight.codes,
        weight.groups,
        weight.scales,
        weight.zeros,
        x_scales,
        x_sums,
        bias,
        out,
        partials,
        weight.counters if is_split else None,
        m,
        n,
        k,
        x.stride(0),
        scalar_stride(x_scales),
        KIND=weight.kind,
        SCALES=str(weight.scales_dtype).removeprefix("torch."),
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        IS_SPLIT=config.split_k > 1,
        EVEN_K=k % INPUTS == 0,
        TMA=uses_tma,
        STAGES=config.num_stages,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
