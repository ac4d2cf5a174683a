# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: N803
"""RMS norm with the residual sum before it, and its output quantized by token: what stands between serving's layers.

A program takes one row: the first block of it stays in registers, what exceeds it is read twice, the second time from
the cache. Bytes moved for M rows of K elements: ``2 M K`` read and as many as the output takes written, and
``4 M K`` more where a residual is read and written back.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from qmeter_native.errors import UsageError
from qmeter_native.kernels.activation.quantize import row_block, to_code
from qmeter_native.kernels.activation.rounding import has_fp8_instructions, magnitude_bits, symmetric_scale
from qmeter_native.kernels.aot import KernelVariant
from qmeter_native.kernels.checks import check_contiguous, check_dtype, check_same_device, check_shape

__all__ = ["aot_variants", "rms_norm_quantize"]

_LIMITS = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0, torch.float16: 0.0, torch.bfloat16: 0.0}
"""The code of the largest element; 0 where nothing is quantized."""


def rms_norm_quantize(
    x: Any, gamma: Any, eps: float, dtype: Any = torch.int8, residual: Any | None = None
) -> tuple[Any, Any | None]:
    """``y = r / sqrt(mean(r^2) + eps) * gamma`` with ``r = x + residual``, quantized by token as `quantize_token` does.

    The sum is rounded to the type of ``x``, written back to ``residual``, and normed as rounded. From there to the
    code everything is float32; engines that round the normed row to 16 bits before may differ by a code.

    Args:
        x: float16 or bfloat16 ``[..., K]``, contiguous.
        gamma: ``[K]``, as ``x``.
        eps: Added to the mean of squares; above 0.
        dtype: int8, float8_e4m3fn, or the type of ``x``: not quantized.
        residual: As ``x``; updated in place.

    Returns:
        ``y [..., K]`` and its scales, float32 ``[...]``; None where it is not quantized.

    Raises:
        UsageError: Naming the argument.
    """
    _check_arguments(x, gamma, eps, dtype, residual)
    width = x.shape[-1]
    y = torch.empty_like(x, dtype=dtype)
    is_quantized = dtype != x.dtype
    scales = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device) if is_quantized else None
    if x.numel() == 0:
        return y, scales
    block, num_warps = row_block(width)
    _rms_norm_kernel[(x.numel() // width,)](
        x,
        gamma,
        x if residual is None else residual,
        y.view(torch.uint8) if is_quantized else y,
        scales,
        width,
        eps,
        BLOCK=block,
        LIMIT=_LIMITS[dtype],
        HAS_RESIDUAL=residual is not None,
        HAS_FP8=has_fp8_instructions(x.device),
        num_warps=num_warps,
    )
    return y, scales


def _check_arguments(x: Any, gamma: Any, eps: float, dtype: Any, residual: Any | None) -> None:
    check_dtype("x", x, torch.float16, torch.bfloat16)
    check_contiguous("x", x)
    if x.dim() == 0 or x.shape[-1] == 0:
        raise UsageError("x has no elements in a row", "Give x as [..., K] with K above 0.")
    check_dtype("gamma", gamma, x.dtype)
    check_shape("gamma", gamma, x.shape[-1])
    check_contiguous("gamma", gamma)
    check_same_device(x=x, gamma=gamma, residual=residual)
    if eps <= 0:
        raise UsageError(f"eps is {eps}", "It must be above 0, or a row of zeros has no norm.")
    if dtype not in (torch.int8, torch.float8_e4m3fn, x.dtype):
        raise UsageError(f"dtype is {dtype}", f"It must be int8, float8_e4m3fn, or the {x.dtype} of x.")
    if residual is not None:
        check_dtype("residual", residual, x.dtype)
        check_shape("residual", residual, *x.shape)
        check_contiguous("residual", residual)


@triton.jit
def _rms_norm_kernel(
    x,
    gamma,
    residual,
    y,
    scales,
    width,
    eps,
    BLOCK: tl.constexpr,
    LIMIT: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_FP8: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    first, weighted = _sum_and_weight(x, gamma, residual, row, columns, width, HAS_RESIDUAL)
    squares = tl.sum(first * first)
    peak = tl.max(magnitude_bits(weighted))
    for start in range(BLOCK, width, BLOCK):
        part, part_weighted = _sum_and_weight(x, gamma, residual, row, start + columns, width, HAS_RESIDUAL)
        squares += tl.sum(part * part)
        peak = tl.maximum(peak, tl.max(magnitude_bits(part_weighted)))
    factor = tl.div_rn(1.0, tl.sqrt_rn(squares / width + eps))
    inverse = factor
    if LIMIT != 0.0:
        scale, reciprocal = symmetric_scale(magnitude_bits(peak.to(tl.float32, bitcast=True) * factor), LIMIT, False)
        tl.store(scales + row, scale)
        inverse = factor * reciprocal
    _store(y, weighted, row, columns, width, inverse, LIMIT, HAS_FP8)
    tl.debug_barrier()  # sums of the row that other threads wrote are read below
    for start in range(BLOCK, width, BLOCK):
        summed = residual if HAS_RESIDUAL else x
        part = _load(summed, row, start + columns, width) * _load(gamma, 0, start + columns, width)
        _store(y, part, row, start + columns, width, inverse, LIMIT, HAS_FP8)


@triton.jit
def _load(x, row, columns, width):
    return tl.load(x + row * width + columns, mask=columns < width, other=0.0).to(tl.float32)


@triton.jit
def _sum_and_weight(x, gamma, residual, row, columns, width, has_residual: tl.constexpr):
    """A part of the row with its residual, as rounded and written back, and the same times gamma; float32."""
    part = _load(x, row, columns, width)
    if has_residual:
        rounded = (part + _load(residual, row, columns, width)).to(residual.dtype.element_ty)
        tl.store(residual + row * width + columns, rounded, mask=columns < width)
        part = rounded.to(tl.float32)
    return part, part * _load(gamma, 0, columns, width)


@triton.jit
def _store(y, weighted, row, columns, width, inverse, limit: tl.constexpr, has_fp8: tl.constexpr):
    if limit == 0.0:
        value = (weighted * inverse).to(y.dtype.element_ty)
    else:
        value = to_code(weighted, inverse, 0, limit, has_fp8)
    tl.store(y + row * width + columns, value, mask=columns < width)


def aot_variants() -> tuple[KernelVariant, ...]:
    """With a residual, rows of 4096, 8192 and 28672 elements to int8, FP8 and bfloat16."""
    return (
        _variant("rms_norm_int8_4096", "*u8", 127.0, False, 4096, (8, 0)),
        _variant("rms_norm_e4m3_8192", "*u8", 448.0, True, 8192, (8, 9)),
        _variant("rms_norm_int8_28672", "*u8", 127.0, False, 28672, (8, 0)),
        _variant("rms_norm_bf16_4096", "*bf16", 0.0, False, 4096, (8, 0)),
    )


def _variant(
    name: str, output: str, limit: float, has_fp8: bool, width: int, minimum: tuple[int, int]
) -> KernelVariant:
    inputs = {"x": "*bf16", "gamma": "*bf16", "residual": "*bf16", "y": output, "scales": "*fp32"}
    block, num_warps = row_block(width)
    constants = {"BLOCK": block, "LIMIT": limit, "HAS_RESIDUAL": True, "HAS_FP8": has_fp8}
    signature = {**inputs, "width": "i32", "eps": "fp32"}
    return KernelVariant(name, _rms_norm_kernel, signature, constants, (*inputs, "width"), num_warps, minimum=minimum)
