# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: N803
"""Quantizers of activations: by token, by group of a token's elements, and by a given scale; also behind SwiGLU.

A program takes one row (or some groups of one). The first block of a row stays in registers between the maximum and
the rounding; what exceeds it is read twice, the second time from the cache. Bytes moved for M rows of K elements:
``2 M K`` read (``4 M K`` with gate and up), ``M K`` and four bytes a scale written.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from qmeter_native.errors import UsageError
from qmeter_native.kernels.activation.rounding import (
    asymmetric_scale,
    has_fp8_instructions,
    magnitude_bits,
    symmetric_scale,
    to_e4m3,
    to_int8,
)
from qmeter_native.kernels.aot import KernelVariant
from qmeter_native.kernels.checks import check_contiguous, check_dtype, check_same_device, check_shape

__all__ = ["aot_variants", "quantize_group", "quantize_tensor", "quantize_token", "silu_and_mul_quantize"]

LARGEST_BLOCK = 16384
"""Elements of a row that stay in registers: 32 a thread of 16 warps."""

_LIMITS = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
_GROUPS = (32, 64, 128, 256)


def quantize_token(
    x: Any, dtype: Any = torch.int8, symmetric: bool = True, power_of_two: bool = False
) -> tuple[Any, ...]:
    """Quantize each row by a scale of its own.

    ``x ~ x_q * scale``, or ``(x_q - zero) * scale`` with the range stretched to hold 0.

    Args:
        x: float16 or bfloat16 ``[..., K]``, contiguous.
        dtype: int8, or float8_e4m3fn.
        symmetric: Without zero points; int8 alone can do with them.
        power_of_two: Scales rounded up to powers of two, as UE8M0 holds them.

    Returns:
        ``x_q [..., K]``, ``scales`` float32 ``[...]``, and where asymmetric ``zeros`` int32 ``[...]``.

    Raises:
        UsageError: Naming the argument.
    """
    _check_input(x, dtype)
    if not symmetric and (dtype != torch.int8 or power_of_two):
        raise UsageError("Zero points need int8 codes and free scales", "Leave symmetric=True.")
    x_q, scales, zeros = _quantize_rows(x, dtype, symmetric, power_of_two, gated=False)
    return (x_q, scales) if symmetric else (x_q, scales, zeros)


def quantize_group(
    x: Any, group: int = 128, dtype: Any = torch.float8_e4m3fn, power_of_two: bool = False
) -> tuple[Any, Any]:
    """Quantize each group of a row's elements by a scale of its own; a row's last group may be shorter.

    Args:
        x: float16 or bfloat16 ``[..., K]``, contiguous.
        group: 32, 64, 128 or 256 elements.
        dtype: int8 or float8_e4m3fn.
        power_of_two: Scales rounded up to powers of two, as UE8M0 holds them.

    Returns:
        ``x_q [..., K]``, ``scales`` float32 ``[..., ceil(K / group)]``.

    Raises:
        UsageError: Naming the argument.
    """
    _check_input(x, dtype)
    return _quantize_groups(x, group, dtype, power_of_two, gated=False)


def quantize_tensor(x: Any, scale: Any, dtype: Any = torch.float8_e4m3fn) -> Any:
    """Quantize by one given scale, ``x_q = x / scale``, saturating: static quantization.

    Args:
        x: float16 or bfloat16 ``[..., K]``, contiguous.
        scale: float32 ``[1]`` or ``[]``, above 0.
        dtype: int8 or float8_e4m3fn.

    Raises:
        UsageError: Naming the argument.
    """
    _check_input(x, dtype)
    return _quantize_static(x, scale, dtype, gated=False)


def silu_and_mul_quantize(
    x: Any, dtype: Any = torch.float8_e4m3fn, group: int | None = None, scale: Any | None = None
) -> tuple[Any, Any]:
    """``silu(gate) * up`` in float32, quantized: by token, by group where ``group`` says so, or by a given scale.

    Args:
        x: float16 or bfloat16 ``[..., 2 K]``, contiguous: a row's gate, then its up projection.
        dtype: int8 or float8_e4m3fn.
        group: As `quantize_group`'s.
        scale: As `quantize_tensor`'s; returned as it is.

    Returns:
        ``x_q [..., K]`` and the scales.

    Raises:
        UsageError: Naming the argument.
    """
    _check_input(x, dtype)
    if x.shape[-1] % 2:
        raise UsageError(f"x has rows of {x.shape[-1]} elements", "They must hold as many of gate as of up.")
    if group is not None and scale is not None:
        raise UsageError("Both group and scale are given", "A given scale is the tensor's: leave out one.")
    if scale is not None:
        return _quantize_static(x, scale, dtype, gated=True), scale
    if group is not None:
        return _quantize_groups(x, group, dtype, power_of_two=False, gated=True)
    x_q, scales, _ = _quantize_rows(x, dtype, True, False, gated=True)
    return x_q, scales


def row_block(width: int) -> tuple[int, int]:
    """Elements of a row's block, and warps for it: 32 elements a thread at most, where 16 warps suffice."""
    block = min(max(triton.next_power_of_2(width), 128), LARGEST_BLOCK)
    return block, min(max(block // 1024, 1), 16)


def _check_input(x: Any, dtype: Any) -> None:
    check_dtype("x", x, torch.float16, torch.bfloat16)
    check_contiguous("x", x)
    if dtype not in _LIMITS:
        raise UsageError(f"dtype is {dtype}", "It must be int8 or float8_e4m3fn.")
    if x.dim() == 0 or x.shape[-1] == 0:
        raise UsageError("x has no elements in a row", "Give x as [..., K] with K above 0.")


def _quantize_rows(x: Any, dtype: Any, symmetric: bool, power_of_two: bool, gated: bool) -> tuple[Any, Any, Any]:
    width = x.shape[-1] // (2 if gated else 1)
    x_q = torch.empty(*x.shape[:-1], width, dtype=dtype, device=x.device)
    scales = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    zeros = torch.empty_like(scales, dtype=torch.int32)
    if x_q.numel() == 0:
        return x_q, scales, zeros
    block, num_warps = row_block(width)
    _quantize_rows_kernel[(scales.numel(),)](
        x,
        x_q.view(torch.uint8),
        scales,
        zeros,
        width,
        BLOCK=block,
        LIMIT=_LIMITS[dtype],
        SYMMETRIC=symmetric,
        POWER_OF_TWO=power_of_two,
        GATED=gated,
        HAS_FP8=has_fp8_instructions(x.device),
        num_warps=num_warps,
    )
    return x_q, scales, zeros


def _quantize_groups(x: Any, group: int, dtype: Any, power_of_two: bool, gated: bool) -> tuple[Any, Any]:
    if group not in _GROUPS:
        raise UsageError(f"group is {group}", f"It must be one of {', '.join(map(str, _GROUPS))}.")
    width = x.shape[-1] // (2 if gated else 1)
    num_groups = triton.cdiv(width, group)
    x_q = torch.empty(*x.shape[:-1], width, dtype=dtype, device=x.device)
    scales = torch.empty(*x.shape[:-1], num_groups, dtype=torch.float32, device=x.device)
    if x_q.numel() == 0:
        return x_q, scales
    groups = min(triton.next_power_of_2(num_groups), 2048 // group)  # 16 elements a thread of 4 warps
    _quantize_groups_kernel[(x_q.numel() // width, triton.cdiv(num_groups, groups))](
        x,
        x_q.view(torch.uint8),
        scales,
        width,
        GROUPS=groups,
        GROUP=group,
        LIMIT=_LIMITS[dtype],
        POWER_OF_TWO=power_of_two,
        GATED=gated,
        HAS_FP8=has_fp8_instructions(x.device),
        num_warps=4,
    )
    return x_q, scales


def _quantize_static(x: Any, scale: Any, dtype: Any, gated: bool) -> Any:
    check_dtype("scale", scale, torch.float32)
    check_shape("scale", scale.reshape(-1), 1)
    check_same_device(x=x, scale=scale)
    width = x.shape[-1] // (2 if gated else 1)
    x_q = torch.empty(*x.shape[:-1], width, dtype=dtype, device=x.device)
    if x_q.numel() == 0:
        return x_q
    block = min(triton.next_power_of_2(width), 2048)
    _quantize_static_kernel[(x_q.numel() // width, triton.cdiv(width, block))](
        x,
        x_q.view(torch.uint8),
        scale,
        width,
        BLOCK=block,
        LIMIT=_LIMITS[dtype],
        GATED=gated,
        HAS_FP8=has_fp8_instructions(x.device),
        num_warps=4,
    )
    return x_q


@triton.jit
def _load(x, row, columns, width, gated: tl.constexpr):
    """A part of a row in float32; 0 behind its end."""
    within = columns < width
    if gated:
        gate = tl.load(x + row * 2 * width + columns, mask=within, other=0.0).to(tl.float32)
        up = tl.load(x + row * 2 * width + width + columns, mask=within, other=0.0).to(tl.float32)
        return gate * tl.sigmoid(gate) * up
    return tl.load(x + row * width + columns, mask=within, other=0.0).to(tl.float32)


@triton.jit
def to_code(x, inverse, zero, limit: tl.constexpr, has_fp8: tl.constexpr):
    """Bits of the code of the type whose symmetric scales reach ``limit``."""
    if limit == 127.0:
        return to_int8(x * inverse, zero)
    return to_e4m3(x * inverse, has_fp8)


@triton.jit
def _quantize_rows_kernel(
    x,
    x_q,
    scales,
    zeros,
    width,
    BLOCK: tl.constexpr,
    LIMIT: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    GATED: tl.constexpr,
    HAS_FP8: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    first = _load(x, row, columns, width, GATED)
    peak = tl.max(magnitude_bits(first))
    low = tl.min(first)
    high = tl.max(first)
    for start in range(BLOCK, width, BLOCK):
        part = _load(x, row, start + columns, width, GATED)
        peak = tl.maximum(peak, tl.max(magnitude_bits(part)))
        low = tl.minimum(low, tl.min(part))
        high = tl.maximum(high, tl.max(part))
    if SYMMETRIC:
        scale, inverse = symmetric_scale(peak, LIMIT, POWER_OF_TWO)
        zero = 0
    else:
        scale, inverse, zero = asymmetric_scale(tl.minimum(low, 0.0), tl.maximum(high, 0.0), peak)
        tl.store(zeros + row, zero)
    tl.store(scales + row, scale)
    tl.store(x_q + row * width + columns, to_code(first, inverse, zero, LIMIT, HAS_FP8), mask=columns < width)
    for start in range(BLOCK, width, BLOCK):
        part = _load(x, row, start + columns, width, GATED)
        code = to_code(part, inverse, zero, LIMIT, HAS_FP8)
        tl.store(x_q + row * width + start + columns, code, mask=start + columns < width)


@triton.jit
def _quantize_groups_kernel(
    x,
    x_q,
    scales,
    width,
    GROUPS: tl.constexpr,
    GROUP: tl.constexpr,
    LIMIT: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    GATED: tl.constexpr,
    HAS_FP8: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    groups = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    columns = groups[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    part = _load(x, row, columns, width, GATED)
    peaks = tl.max(magnitude_bits(part), axis=1)
    scale, inverse = symmetric_scale(peaks, LIMIT, POWER_OF_TWO)
    num_groups = tl.cdiv(width, GROUP)
    tl.store(scales + row * num_groups + groups, scale, mask=groups < num_groups)
    code = to_code(part, inverse[:, None], 0, LIMIT, HAS_FP8)
    tl.store(x_q + row * width + columns, code, mask=columns < width)


@triton.jit
def _quantize_static_kernel(
    x,
    x_q,
    scale,
    width,
    BLOCK: tl.constexpr,
    LIMIT: tl.constexpr,
    GATED: tl.constexpr,
    HAS_FP8: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inverse = tl.div_rn(1.0, tl.load(scale))
    code = to_code(_load(x, row, columns, width, GATED), inverse, 0, LIMIT, HAS_FP8)
    tl.store(x_q + row * width + columns, code, mask=columns < width)


def aot_variants() -> tuple[KernelVariant, ...]:
    """Rows of 4096 and 28672 elements (one block, and more than one), groups and gates, int8 and FP8."""
    rows = {"x": "*bf16", "x_q": "*u8", "scales": "*fp32", "zeros": "*i32", "width": "i32", "scale": "*fp32"}
    variants = []
    for name, limit, minimum in (("int8", 127.0, (8, 0)), ("e4m3", 448.0, (8, 9)), ("e4m3_arithmetic", 448.0, (8, 0))):
        code = {"LIMIT": limit, "HAS_FP8": name == "e4m3"}
        free = {**code, "SYMMETRIC": limit == 448.0, "POWER_OF_TWO": False, "GATED": False}
        for width in (4096,) if name == "e4m3_arithmetic" else (4096, 28672):
            block, warps = row_block(width)
            constants = {**free, "BLOCK": block}
            variants.append(_variant(f"token_{name}_{width}", _quantize_rows_kernel, rows, constants, warps, minimum))
        grouped = {**code, "GROUPS": 16, "GROUP": 128, "POWER_OF_TWO": False, "GATED": True}
        variants.append(_variant(f"group_{name}_gated", _quantize_groups_kernel, rows, grouped, 4, minimum))
    static = {"LIMIT": 448.0, "HAS_FP8": True, "BLOCK": 2048, "GATED": True}
    variants.append(_variant("static_e4m3_gated", _quantize_static_kernel, rows, static, 4, (8, 9)))
    return tuple(variants)


def _variant(
    name: str,
    function: Any,
    types: dict[str, str],
    constants: dict[str, Any],
    num_warps: int,
    minimum: tuple[int, int],
) -> KernelVariant:
    signature = {argument: types[argument] for argument in function.arg_names if argument not in constants}
    aligned = tuple(argument for argument in signature if argument != "zeros")
    return KernelVariant(name, function, signature, constants, aligned, num_warps, minimum=minimum)
