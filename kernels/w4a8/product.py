# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: D417, N803, N806
"""The kernel of 4-bit weights times 8-bit activations.

The operands are swapped, ``out.T = w @ x.T``: decoded weights are then the left operand, which Hopper's matrix unit
takes from registers, where they are decoded. `packing` puts them in the order in which the unit's threads hold them.

- `PROGRESSIVE` (QoQ): ``out[m, n] = scales[n] * x_scales[m] * sum_k x[m, k] * int8((q[n, k] - z[n, g]) * s[n, g])``.
- `CHANNEL`: ``out[m, n] = scales[n] * x_scales[m] * (sum_k x[m, k] * q[n, k] - zeros[n] * x_sums[m])``.
- `FP8`: ``out[m, n] = x_scales[m] * sum_g group_scales[n, g] * (sum_{k in g} x[m, k] * (q[n, k] - 8))``; the integers
  are exact in E4M3: a byte of 0 to 8 is that many times 2^-9, subnormal up to 7.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

from qmeter_native.kernels.scaled.split_k import split_range, sum_of_splits
from qmeter_native.kernels.scaled.tile import load_tile, load_vector, store_tile, tile_position
from qmeter_native.kernels.w4a8 import assembly

__all__ = ["BLOCK_K", "CHANNEL", "FP8", "PROGRESSIVE", "w4a8_product"]

INTERPRET: tl.constexpr = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
PROGRESSIVE: tl.constexpr = tl.constexpr("progressive")
CHANNEL: tl.constexpr = tl.constexpr("channel")
FP8: tl.constexpr = tl.constexpr("fp8")
CODES_ASSEMBLY: tl.constexpr = tl.constexpr(assembly.CODES)
E4M3_ASSEMBLY: tl.constexpr = tl.constexpr(assembly.E4M3)
PROGRESSIVE_ASSEMBLY: tl.constexpr = tl.constexpr(assembly.PROGRESSIVE)
ONE_OPERAND: tl.constexpr = tl.constexpr(assembly.ONE_OPERAND)
PROGRESSIVE_OPERANDS: tl.constexpr = tl.constexpr(assembly.PROGRESSIVE_OPERANDS)
BLOCK_K: tl.constexpr = tl.constexpr(256)
"""Inputs of a block of bytes: low nibbles hold the first half, high nibbles the second."""
HALF: tl.constexpr = tl.constexpr(128)
ROWS: tl.constexpr = tl.constexpr(64)
"""Outputs of a block, as many as a warp group multiplies."""


@triton.jit
def w4a8_product(
    x, codes, groups, scales, zeros, x_scales, x_sums, bias, out, partials, counters,
    m, n, k, x_stride, x_scale_token,
    KIND: tl.constexpr, SCALES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, IS_SPLIT: tl.constexpr,
    EVEN_K: tl.constexpr, TMA: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One tile of the output (program 0), or one split of its inputs (program 1).

    Args:
        x: ``[m, k]``, int8 or float8e4nv: a pointer, or with ``TMA`` a tensor descriptor.
        codes: uint8 ``[tiles of 64 outputs, blocks of 256 inputs, 8192]``.
        groups: int32 ``[tiles, blocks, 64]``: of both halves of a block the 16-bit scales of `FP8`, or scale and zero
            of `PROGRESSIVE`; float32 ``[tiles, blocks, 2, 64]``: scales of `FP8`; None with `CHANNEL`.
        scales: float32 ``[n]``; None with `FP8`.
        zeros: int32 or float32 ``[n]``, with `CHANNEL`.
        x_scales: float32 by token, stride ``x_scale_token``.
        x_sums: int32 ``[m]``, with `CHANNEL`.
        bias: ``[n]`` or None.
        out: ``[m, n]``, contiguous.
        partials, counters: See `sum_of_splits`; None with one split.
        SCALES: Type of `FP8`'s scales: "float16", "bfloat16" or "float32".
    """
    tile_m, tile_n = tile_position(tl.program_id(0), tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N))
    m_first, n_first = tile_m * BLOCK_M, tile_n * BLOCK_N
    first, last = split_range(k, BLOCK_K)
    blocks = tl.cdiv(k, BLOCK_K)
    acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32 if KIND == FP8 else tl.int32)
    for block in tl.range(first, last, num_stages=STAGES):  # of all loads, not of the operands' alone
        packed = _load_codes(codes, tile_n, block, blocks, BLOCK_N)
        x_low = load_tile(x, m_first, block * BLOCK_K, m, k, x_stride, BLOCK_M, HALF, EVEN_K, TMA)
        x_high = load_tile(x, m_first, block * BLOCK_K + HALF, m, k, x_stride, BLOCK_M, HALF, EVEN_K, TMA)
        if KIND == FP8:
            w_low, w_high = _decode_fp8(packed)
            of_low, of_high = _group_scales(groups, tile_n, block, blocks, BLOCK_N, SCALES)
            acc += tl.dot(w_low, _operand(x_low)) * of_low[:, None]
            acc += tl.dot(w_high, _operand(x_high)) * of_high[:, None]
        else:
            if KIND == PROGRESSIVE:
                w_low, w_high = _decode_progressive(packed, _group_words(groups, tile_n, block, blocks, BLOCK_N))
            else:
                w_low, w_high = _decode_codes(packed)
            acc = tl.dot(w_low, x_low.T, acc, out_dtype=tl.int32)
            acc = tl.dot(w_high, x_high.T, acc, out_dtype=tl.int32)
    is_last = True
    if IS_SPLIT:
        acc, is_last = sum_of_splits(acc, partials, counters, tl.program_id(0), tl.num_programs(0))
    if is_last:
        result = acc.T
        if KIND == CHANNEL:
            of_zeros = load_vector(zeros, n_first, n, 1, BLOCK_N)
            result = result - of_zeros[None, :] * load_vector(x_sums, m_first, m, 1, BLOCK_M)[:, None]
        result = result.to(tl.float32) * load_vector(x_scales, m_first, m, x_scale_token, BLOCK_M)[:, None]
        if KIND == FP8:
            result *= 512.0
        else:
            result *= load_vector(scales, n_first, n, 1, BLOCK_N)[None, :]
        store_tile(result, out, bias, m_first, n_first, m, n, BLOCK_M, BLOCK_N)


@triton.jit
def _load_codes(codes, tile_n, block, blocks, BLOCK_N: tl.constexpr):
    """Bytes ``[BLOCK_N, 128]`` of a block.

    Stored by step of 32 inputs, warp, row in a group of 8 ("g"), quarter ("t"), half of the step, eighth row, and four
    inputs: sixteen consecutive bytes are what thread ``4 g + t`` of a warp holds of a step (PTX ISA, "Register
    Fragments for wgmma .m64nNk32").
    """
    GROUPS: tl.constexpr = BLOCK_N // ROWS
    step = tl.arange(0, 4)[:, None, None] * 2048
    group = (tile_n * GROUPS + tl.arange(0, GROUPS))[None, :, None] * blocks + block
    packed = tl.load(codes + group.to(tl.int64) * (ROWS * HALF) + step + tl.arange(0, 2048)[None, None, :])
    packed = packed.reshape(4, GROUPS, 4, 8, 4, 2, 2, 4).permute(1, 2, 6, 3, 0, 5, 4, 7)
    return packed.reshape(BLOCK_N, HALF)


@triton.jit
def _group_words(groups, tile_n, block, blocks, BLOCK_N: tl.constexpr):
    """int32 ``[BLOCK_N]`` of a block."""
    output = tl.arange(0, BLOCK_N)
    tile = tile_n * (BLOCK_N // ROWS) + output // ROWS
    return tl.load(groups + (tile * blocks + block) * ROWS + output % ROWS)


@triton.jit
def _group_scales(groups, tile_n, block, blocks, BLOCK_N: tl.constexpr, SCALES: tl.constexpr):
    """float32 ``[BLOCK_N]`` of each half of a block."""
    if SCALES == "float32":
        output = tl.arange(0, BLOCK_N)
        tile = tile_n * (BLOCK_N // ROWS) + output // ROWS
        at = groups + (tile * blocks + block) * (2 * ROWS) + output % ROWS
        low, high = tl.load(at), tl.load(at + ROWS)
    else:
        words = _group_words(groups, tile_n, block, blocks, BLOCK_N)
        if SCALES == "bfloat16":  # the upper half of float32
            low = (words << 16).to(tl.float32, bitcast=True)
            high = (words & -65536).to(tl.float32, bitcast=True)
        else:
            low = words.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
            high = (words >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return low, high


@triton.jit
def _operand(x_tile):
    """The right operand of a product of FP8."""
    if INTERPRET:
        x_tile = x_tile.to(tl.float32)
    return x_tile.T


@triton.jit
def _decode_codes(packed):
    """int8 codes, 0 to 15, of both halves."""
    if INTERPRET:
        low, high = (packed & 15).to(tl.int8), (packed >> 4).to(tl.int8)
    else:
        low, high = tl.inline_asm_elementwise(
            CODES_ASSEMBLY, ONE_OPERAND, [packed], dtype=(tl.int8, tl.int8), is_pure=True, pack=4
        )
    return low, high


@triton.jit
def _decode_progressive(packed, words):
    """int8 ``(q - z) * s`` modulo 256 of both halves.

    Of a row's word, byte 0 is ``s`` and byte 1 ``z`` of the low half, bytes 2 and 3 those of the high half.
    """
    s_low, s_high = (words & 0xFF)[:, None], ((words >> 16) & 0xFF)[:, None]
    c_low = (2048 - ((words >> 8) & 0xFF)[:, None] * s_low) * 0x10001
    c_high = (2048 - ((words >> 24) & 0xFF)[:, None] * s_high) * 0x10001
    if INTERPRET:
        codes = packed.to(tl.int32)
        low, high = ((codes & 15) * s_low + c_low).to(tl.int8), ((codes >> 4) * s_high + c_high).to(tl.int8)
    else:
        zeros = tl.zeros(packed.shape, tl.int32)
        low, high = tl.inline_asm_elementwise(
            PROGRESSIVE_ASSEMBLY,
            PROGRESSIVE_OPERANDS,
            [packed, s_low + zeros, c_low + zeros, s_high + zeros, c_high + zeros],
            dtype=(tl.int8, tl.int8),
            is_pure=True,
            pack=4,
        )
    return low, high


@triton.jit
def _decode_fp8(packed):
    """E4M3 of both halves, integers times 2^-9."""
    if INTERPRET:
        low, high = packed & 15, packed >> 4
        low = tl.where(low < 8, low, 7 - low.to(tl.int32)).to(tl.float32) / 512
        high = tl.where(high < 8, high, 7 - high.to(tl.int32)).to(tl.float32) / 512
    else:
        low, high = tl.inline_asm_elementwise(
            E4M3_ASSEMBLY, ONE_OPERAND, [packed], dtype=(tl.int8, tl.int8), is_pure=True, pack=4
        )
        low, high = low.to(tl.float8e4nv, bitcast=True), high.to(tl.float8e4nv, bitcast=True)
    return low, high
