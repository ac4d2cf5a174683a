# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Rounding to int8 and to FP8 E4M3, and the scales of it, inside kernels.

To nearest, ties to even, saturating at the type's limits: -128 and 127, or -448 and 448.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl

__all__ = [
    "FLOOR_BITS",
    "INTERPRET",
    "asymmetric_scale",
    "has_fp8_instructions",
    "magnitude_bits",
    "nearest",
    "symmetric_scale",
    "to_e4m3",
    "to_int8",
]

INTERPRET = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Whether kernels are interpreted, where no inline assembly is understood."""

FLOOR_BITS = tl.constexpr(0x1F800000)
"""2**-64 in float32: amounts below count as this much, so that no scale is 0 and no reciprocal overflows."""

_INFINITY_BITS = tl.constexpr(0x7F800000)
_TO_INTEGER = tl.constexpr(12582912.0)
"""1.5 * 2**23: adding it to a number below 2**22 leaves no bits behind the point, rounded to nearest even."""


def has_fp8_instructions(device: Any) -> bool:
    """Whether the GPU converts to FP8 itself (compute capability 8.9); else kernels do so by arithmetic."""
    return bool(device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9))


@triton.jit
def magnitude_bits(x):
    """float32 to int32 that orders as magnitudes do, with NaN above infinity: a maximum over them keeps NaN."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def symmetric_scale(peak_bits, limit: tl.constexpr, power_of_two: tl.constexpr):
    """Scale and its reciprocal, such that the largest magnitude becomes ``limit``; or the next power of two above."""
    peak = tl.maximum(peak_bits, FLOOR_BITS).to(tl.float32, bitcast=True)
    scale = tl.div_rn(peak, limit)
    if power_of_two:
        rounded_up = (scale.to(tl.int32, bitcast=True) + 0x7FFFFF) & _INFINITY_BITS
        scale = tl.where(peak_bits < _INFINITY_BITS, rounded_up.to(tl.float32, bitcast=True), scale)
        return scale, tl.div_rn(1.0, scale)
    return scale, tl.div_rn(limit, peak)


@triton.jit
def asymmetric_scale(low, high, peak_bits):
    """Scale, its reciprocal and the zero point, such that ``low`` <= 0 becomes -128 and ``high`` >= 0 127."""
    span_bits = tl.maximum(magnitude_bits(high - low), FLOOR_BITS)
    span = tl.where(peak_bits < _INFINITY_BITS, span_bits, peak_bits).to(tl.float32, bitcast=True)
    inverse = tl.div_rn(255.0, span)
    return tl.div_rn(span, 255.0), inverse, -128 - nearest(low * inverse)


@triton.jit
def nearest(x):
    """The nearest integer as int32, ties to even; NaN becomes 0; far beyond int8 it need not be exact."""
    if INTERPRET:
        small = tl.minimum(tl.maximum(x, -1024.0), 1024.0)
        return tl.where(x == x, (small + _TO_INTEGER) - _TO_INTEGER, 0.0).to(tl.int32)
    return tl.inline_asm_elementwise("cvt.rni.s32.f32 $0, $1;", "=r,f", [x], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def to_int8(x, zero):
    """Bits of int8, as uint8, of ``x`` rounded and moved by the zero point."""
    code = tl.minimum(tl.maximum(nearest(x) + zero, -128), 127)
    return code.to(tl.int8).to(tl.uint8, bitcast=True)


@triton.jit
def to_e4m3(x, has_instructions: tl.constexpr):
    """Bits of FP8 E4M3, as uint8; NaN stays NaN."""
    if has_instructions:
        return x.to(tl.float8e4nv).to(tl.uint8, bitcast=True)
    magnitude = tl.minimum(tl.abs(x), 448.0)
    exponent = tl.maximum((magnitude.to(tl.int32, bitcast=True) >> 23) - 127, -6)
    steps_per_one = ((130 - exponent) << 23).to(tl.float32, bitcast=True)  # three bits of mantissa: 2**(3 - exponent)
    steps = ((magnitude * steps_per_one + _TO_INTEGER) - _TO_INTEGER).to(tl.int32)  # below 8 only where subnormal
    code = tl.where(x == x, (exponent + 6) * 8 + steps, 0x7F)
    sign = (x.to(tl.int32, bitcast=True) >> 24) & 0x80
    return (code | sign).to(tl.uint8)
