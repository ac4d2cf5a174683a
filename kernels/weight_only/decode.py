# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: N803, N806
"""Words to weights: by inline assembly on GPUs, and by plain operations in Triton's interpreter, which has none."""

from __future__ import annotations

import os

import triton
import triton.language as tl

__all__ = ["INTERPRET", "decode"]

INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def decode(
    w0, w1, w2, zero, table,
    KIND: tl.constexpr, ZERO: tl.constexpr, ASSEMBLY: tl.constexpr, CONSTRAINTS: tl.constexpr, D: tl.constexpr,
    PLAIN: tl.constexpr,
):  # fmt: skip
    """Weights of a tile: words int16 ``[N, span]`` to ``D`` ``[N, parts * span]``.

    ``w1`` and ``w2`` count for ``uint3`` alone, ``zero`` (``D`` ``[N, span]``, else anything of that shape) where
    ``ZERO`` is ``fused``, and ``table`` (a pointer to 16 values) where ``PLAIN``, which does without inline assembly.
    """
    if PLAIN:
        full = _decode_plainly(w0, w1, w2, zero, table, KIND, ZERO, D)
    else:
        full = _decode_in_registers(w0, w1, w2, zero, KIND, ASSEMBLY, CONSTRAINTS, D)
    return full


@triton.jit
def _decode_in_registers(
    w0, w1, w2, zero, KIND: tl.constexpr, ASSEMBLY: tl.constexpr, CONSTRAINTS: tl.constexpr, D: tl.constexpr
):
    d = D.value  # in a tuple, Triton does not unwrap it
    if KIND == "uint3":
        p = tl.inline_asm_elementwise(
            ASSEMBLY,
            CONSTRAINTS,
            [w0, w1, w2, zero],
            (d, d, d, d, d, d, d, d, d, d, d, d, d, d, d, d),
            is_pure=True,
            pack=2,
        )
        low = _join8(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7])
        full = _join2(low, _join8(p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15]))
    elif KIND == "uint2":
        p = tl.inline_asm_elementwise(ASSEMBLY, CONSTRAINTS, [w0, zero], (d, d, d, d, d, d, d, d), is_pure=True, pack=2)
        full = _join8(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7])
    elif KIND == "uint8" or KIND == "e4m3":
        p = tl.inline_asm_elementwise(ASSEMBLY, CONSTRAINTS, [w0, zero], (d, d), is_pure=True, pack=2)
        full = _join2(p[0], p[1])
    else:
        p = tl.inline_asm_elementwise(ASSEMBLY, CONSTRAINTS, [w0, zero], (d, d, d, d), is_pure=True, pack=2)
        full = _join2(_join2(p[0], p[1]), _join2(p[2], p[3]))
    return full


@triton.jit
def _join2(a, b):
    """``[N, S]`` twice to ``[N, 2 S]``: renames registers, moves nothing."""
    N: tl.constexpr = a.shape[0]
    S: tl.constexpr = a.shape[1]
    return tl.reshape(tl.permute(tl.join(a, b), (0, 2, 1)), (N, 2 * S))


@triton.jit
def _join8(a, b, c, d, e, f, g, h):
    return _join2(_join2(_join2(a, b), _join2(c, d)), _join2(_join2(e, f), _join2(g, h)))


@triton.jit
def _decode_plainly(w0, w1, w2, zero, table, KIND: tl.constexpr, ZERO: tl.constexpr, D: tl.constexpr):
    """As the encoding is defined, part by part along a new dimension."""
    N: tl.constexpr = w0.shape[0]
    S: tl.constexpr = w0.shape[1]
    P: tl.constexpr = (
        16 if KIND == "uint3" else (8 if KIND == "uint2" else (2 if KIND == "uint8" or KIND == "e4m3" else 4))
    )
    part = tl.arange(0, P)[None, :, None]
    word = w0.to(tl.int32)[:, None, :]
    if KIND == "e4m3":
        value = _float_bits(word, 15 - part, 7 - 7 * part, 0x7F, 7)
    elif KIND == "e2m1":
        sign = tl.where(part == 0, 15, tl.where(part == 1, 12, 16 - part))
        value = _float_bits(word, sign, 9 - 3 * part, 0x7, 9)
    elif KIND == "table":
        value = tl.load(table + (word >> 4 * part & 0xF)).to(D)
    else:
        code, center = _integer_codes(word, w1, w2, part, KIND)
        if ZERO == "none":
            value = (code - center).to(D)
        elif ZERO == "raw":
            value = code.to(D)
        else:
            value = code.to(D) - zero[:, None, :]
    return tl.reshape(value, (N, P * S))


@triton.jit
def _integer_codes(word, w1, w2, part, KIND: tl.constexpr):
    """Codes, and half their range."""
    BITS: tl.constexpr = 2 if KIND == "uint2" else (3 if KIND == "uint3" else (4 if KIND == "uint4" else 8))
    if KIND == "uint3":
        v1 = w1.to(tl.int32)[:, None, :]
        v2 = w2.to(tl.int32)[:, None, :]
        chosen = tl.where(part < 5, word, tl.where(part < 10, v1, v2))
        last = (word >> 15 & 1) | (v1 >> 14 & 2) | (v2 >> 13 & 4)
        code = tl.where(part < 15, chosen >> 3 * (part % 5) & 7, last)
    else:
        code = word >> BITS * part & ((1 << BITS) - 1)
    return code, 1 << (BITS - 1)


@triton.jit
def _float_bits(word, sign, low, MASK: tl.constexpr, TARGET: tl.constexpr):
    """The float16 with these bits."""
    bits = (word >> sign & 1) << 15 | (word >> low & MASK) << TARGET
    return bits.to(tl.int16).to(tl.float16, bitcast=True)
