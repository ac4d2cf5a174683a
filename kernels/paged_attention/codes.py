# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Codes of caches to float16 inside kernels, exactly, in a few instructions for four of them.

Conversions of integers run at a quarter of the rate of other instructions or less. Instead a byte is put below the
exponent of 1024 (0x64), where float16 counts in ones, and the constant is subtracted: exact for bytes.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

__all__ = ["INT4_TO_HALF", "INT8_TO_HALF", "INTERPRET", "e4m3_to_half", "int4_to_half", "int8_to_half"]

INTERPRET: tl.constexpr = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Whether kernels are interpreted, where no inline assembly is understood."""

INT8_TO_HALF: tl.constexpr = tl.constexpr("""{
.reg .b32 biased, low, high, offset;
xor.b32 biased, $2, 0x80808080;
prmt.b32 low, biased, 0x64, 0x4140;
prmt.b32 high, biased, 0x64, 0x4342;
mov.b32 offset, 0x64806480;
sub.rn.f16x2 $0, low, offset;
sub.rn.f16x2 $1, high, offset;
}""")
"""Four int8 in a register, each plus 128 behind 1024; less 1152."""

INT4_TO_HALF: tl.constexpr = tl.constexpr("""{
.reg .b32 even, odd, offset, a, b, c, d;
and.b32 even, $4, 0x0f0f0f0f;
shr.b32 odd, $4, 4;
and.b32 odd, odd, 0x0f0f0f0f;
prmt.b32 a, even, 0x64, 0x4140;
prmt.b32 b, even, 0x64, 0x4342;
prmt.b32 c, odd, 0x64, 0x4140;
prmt.b32 d, odd, 0x64, 0x4342;
mov.b32 offset, 0x64086408;
sub.rn.f16x2 $0, a, offset;
sub.rn.f16x2 $1, b, offset;
sub.rn.f16x2 $2, c, offset;
sub.rn.f16x2 $3, d, offset;
}""")
"""Low halves of four bytes, then high halves, each behind 1024; less 1032."""


@triton.jit
def int8_to_half(codes):
    """uint8 bits of int8 to their value."""
    if INTERPRET:
        return codes.to(tl.int8, bitcast=True).to(tl.float16)
    return tl.inline_asm_elementwise(INT8_TO_HALF, "=r,=r,r", [codes], dtype=tl.float16, is_pure=True, pack=4)


@triton.jit
def int4_to_half(codes):
    """uint8 to the values of its low and high halves, less 8."""
    if INTERPRET:
        return (codes & 15).to(tl.float16) - 8.0, (codes >> 4).to(tl.float16) - 8.0
    return tl.inline_asm_elementwise(
        INT4_TO_HALF, "=r,=r,=r,=r,r", [codes], dtype=(tl.float16, tl.float16), is_pure=True, pack=4
    )


@triton.jit
def e4m3_to_half(codes, has_instructions: tl.constexpr):
    """uint8 bits of E4M3 to their value; without the GPU's own conversion NaN reads as 480.

    E4M3's exponent and mantissa at the place of float16's are the value by 256, subnormal numbers too.
    """
    if has_instructions:
        return codes.to(tl.float8e4nv, bitcast=True).to(tl.float16)
    bits = codes.to(tl.uint16)
    half = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
    return half * 256.0
