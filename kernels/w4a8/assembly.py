"""PTX that decodes four bytes of codes to two registers: the low nibbles ($0) and the high ones ($1), from $2."""

from __future__ import annotations

__all__ = ["CODES", "E4M3", "ONE_OPERAND", "PROGRESSIVE", "PROGRESSIVE_OPERANDS"]

CODES = """{
.reg .b32 t;
and.b32 $0, $2, 0x0f0f0f0f;
shr.b32 t, $2, 4;
and.b32 $1, t, 0x0f0f0f0f;
}"""
"""int8, the codes themselves, 0 to 15."""

E4M3 = """{
.reg .b32 s, m;
shr.b32 s, $2, 3;
and.b32 s, s, 0x01010101;
and.b32 m, $2, 0x07070707;
mad.lo.u32 $0, s, 0x81, m;
shr.b32 s, $2, 7;
and.b32 s, s, 0x01010101;
shr.b32 m, $2, 4;
and.b32 m, m, 0x07070707;
mad.lo.u32 $1, s, 0x81, m;
}"""
"""E4M3, integers -8 to 7 times 2^-9, 9 instructions for 8 weights.

A nibble holds the magnitude of 0 to 7, and of -1 to -8 the magnitude less one with bit 3 set: the byte is
``(nibble & 7) + (nibble >> 3) * 0x81``, 0 to 8 with a sign, and such bytes are that many times E4M3's smallest number.
"""

PROGRESSIVE = """{
.reg .b32 e, o, t;
and.b32 e, $2, 0x000f000f;
and.b32 o, $2, 0x0f000f00;
mad.lo.u32 e, e, $3, $7;
shl.b32 t, $7, 8;
mad.lo.u32 o, o, $3, t;
prmt.b32 $0, e, o, 0x7250;
shr.b32 t, $2, 4;
and.b32 e, t, 0x000f000f;
and.b32 o, t, 0x0f000f00;
mad.lo.u32 e, e, $11, $15;
shl.b32 t, $15, 8;
mad.lo.u32 o, o, $11, t;
prmt.b32 $1, e, o, 0x7250;
}"""
"""int8 ``(q - z) * s`` modulo 256, 11 instructions for 8 weights (the shifts of $7 and $15 are a row's, not a byte's).

Of the low nibbles ``s`` is $3 and ``(2048 - z * s) * 0x10001`` $7, of the high ones $11 and $15. Two codes are
multiplied at once, 16 bits apart, those at even bytes and those at odd ones by themselves; ``2048 - z * s``, at least
143, keeps each sum positive and below 4096, so that none reaches the next; 2048 is 0 modulo 256.
"""

# outputs are written before all inputs are read: &
ONE_OPERAND = "=&r,=&r,r"
PROGRESSIVE_OPERANDS = ONE_OPERAND + 16 * ",r"
"""Four operands of 32 bits for each of the four bytes; the four of a pack are equal, its bytes being of one row."""
