# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: D417, N803, N806
"""The kernel of 8-bit products with scales.

With scales by token and output channel

    ``out[m, n] = (sum_k x[m, k] * w[n, k] - x_zeros[m] * column_sums[n]) * x_scales[m] * w_scales[n] + bias[n]``,

and with scales by blocks of 128 inputs

    ``out[m, n] = sum_b x_scales[m, b] * w_scales[n // 128, b] * (sum_{k in b} x[m, k] * w[n, k]) + bias[n]``.

Integers are summed in int32, which is exact; FP8 as the tensor cores do.

For few tokens the operands are swapped (``out.T = w @ x.T``): the 64 rows of Hopper's matrix unit are outputs then,
of which there are enough, and tokens are padded to 16 instead of 64.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

from qmeter_native.kernels.scaled.split_k import split_range, sum_of_splits
from qmeter_native.kernels.scaled.tile import load_tile, load_vector, store_tile, tile_position

__all__ = ["INPUTS_OF_SCALE", "scaled_product"]

INTERPRET: tl.constexpr = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
INPUTS_OF_SCALE: tl.constexpr = tl.constexpr(128)
"""Inputs, and outputs of a weight, that share a scale when scales go by blocks."""


@triton.jit
def scaled_product(
    x, w, out, x_scales, w_scales, x_zeros, column_sums, bias, partials, counters,
    m, n, k, x_stride, w_stride, x_scale_token, x_scale_block, w_scale_row, x_zero_token,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, IS_SPLIT: tl.constexpr, SWAP: tl.constexpr,
    INTEGER: tl.constexpr, BLOCK_SCALED: tl.constexpr, EVEN_K: tl.constexpr, TMA: tl.constexpr, IMPRECISE: tl.constexpr,
    PERSISTENT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A tile of the output (program 0), or a split of its inputs (program 1).

    Args:
        x, w: ``[m, k]`` and ``[n, k]``, int8 or float8e4nv: pointers, or with ``TMA`` tensor descriptors.
        out: ``[m, n]``, contiguous.
        x_scales: float32 by token, or by token and block of 128 inputs; strides ``x_scale_token``, ``x_scale_block``.
        w_scales: float32 ``[n]``, or with ``BLOCK_SCALED`` ``[ceil(n / 128), ceil(k / 128)]``.
        x_zeros: int32 by token, stride ``x_zero_token``, or None.
        column_sums: int32 ``[n]``, where there are zeros.
        bias: ``[n]`` or None.
        partials, counters: See `sum_of_splits`; None with one split.
        SWAP: Outputs are the rows of the product: few tokens.
        INTEGER: int8, not FP8.
        IMPRECISE: Inputs of FP8 products that Hopper sums in its 14-bit way before float32; None: all of them.
        PERSISTENT: Programs walk over all tiles; the loads of the next one go on while one is stored.
    """
    if PERSISTENT:
        tiles = tl.cdiv(m, BLOCK_M) * tl.cdiv(n, BLOCK_N)
        for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
            _multiply_tile(
                tile, x, w, out, x_scales, w_scales, x_zeros, column_sums, bias, partials, counters,
                m, n, k, x_stride, w_stride, x_scale_token, x_scale_block, w_scale_row, x_zero_token,
                BLOCK_M, BLOCK_N, BLOCK_K, IS_SPLIT, SWAP, INTEGER, BLOCK_SCALED, EVEN_K, TMA, IMPRECISE, STAGES,
            )  # fmt: skip
    else:
        _multiply_tile(
            tl.program_id(0), x, w, out, x_scales, w_scales, x_zeros, column_sums, bias, partials, counters,
            m, n, k, x_stride, w_stride, x_scale_token, x_scale_block, w_scale_row, x_zero_token,
            BLOCK_M, BLOCK_N, BLOCK_K, IS_SPLIT, SWAP, INTEGER, BLOCK_SCALED, EVEN_K, TMA, IMPRECISE, STAGES,
        )  # fmt: skip


@triton.jit
def _multiply_tile(
    tile, x, w, out, x_scales, w_scales, x_zeros, column_sums, bias, partials, counters,
    m, n, k, x_stride, w_stride, x_scale_token, x_scale_block, w_scale_row, x_zero_token,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, IS_SPLIT: tl.constexpr, SWAP: tl.constexpr,
    INTEGER: tl.constexpr, BLOCK_SCALED: tl.constexpr, EVEN_K: tl.constexpr, TMA: tl.constexpr, IMPRECISE: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Multiply and store one tile; arguments are those of `scaled_product`."""
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile_m, tile_n = tile_position(tile, tiles_m, tiles_n)
    m_first, n_first = tile_m * BLOCK_M, tile_n * BLOCK_N
    first, last = split_range(k, BLOCK_K)
    ROWS: tl.constexpr = BLOCK_N if SWAP else BLOCK_M
    COLUMNS: tl.constexpr = BLOCK_M if SWAP else BLOCK_N
    SUM: tl.constexpr = tl.int32 if INTEGER else tl.float32
    acc = tl.zeros((ROWS, COLUMNS), tl.float32 if BLOCK_SCALED else SUM)
    for block in tl.range(first, last, num_stages=STAGES):  # of all loads, not of the operands' alone
        x_tile = load_tile(x, m_first, block * BLOCK_K, m, k, x_stride, BLOCK_M, BLOCK_K, EVEN_K, TMA)
        w_tile = load_tile(w, n_first, block * BLOCK_K, n, k, w_stride, BLOCK_N, BLOCK_K, EVEN_K, TMA)
        if BLOCK_SCALED:
            b = block * BLOCK_K // INPUTS_OF_SCALE
            x_scale = load_vector(x_scales + b * x_scale_block, m_first, m, x_scale_token, BLOCK_M)
            scale = _block_scale(x_scale, w_scales + b, n_first, n, w_scale_row, BLOCK_N, SWAP)
            product = _dot(x_tile, w_tile, tl.zeros((ROWS, COLUMNS), SUM), SWAP, None)
            acc += product.to(tl.float32) * scale
        else:
            acc = _dot(x_tile, w_tile, acc, SWAP, IMPRECISE)
    is_last = True
    if IS_SPLIT:
        acc, is_last = sum_of_splits(acc, partials, counters, tile, tiles_m * tiles_n)
    if is_last:
        result = acc.T if SWAP else acc
        if x_zeros is not None:
            zero = load_vector(x_zeros, m_first, m, x_zero_token, BLOCK_M)
            result -= zero[:, None] * load_vector(column_sums, n_first, n, 1, BLOCK_N)[None, :]
        if not BLOCK_SCALED:
            of_token = load_vector(x_scales, m_first, m, x_scale_token, BLOCK_M)
            result = result.to(tl.float32) * of_token[:, None] * load_vector(w_scales, n_first, n, 1, BLOCK_N)[None, :]
        store_tile(result, out, bias, m_first, n_first, m, n, BLOCK_M, BLOCK_N)


@triton.jit
def _dot(x_tile, w_tile, acc, SWAP: tl.constexpr, IMPRECISE: tl.constexpr):
    """``acc + x @ w.T``, or with ``SWAP`` ``acc + w @ x.T``."""
    if INTERPRET and acc.dtype == tl.float32:
        x_tile = x_tile.to(tl.float32)
        w_tile = w_tile.to(tl.float32)
    if SWAP:
        acc = tl.dot(w_tile, x_tile.T, acc, max_num_imprecise_acc=IMPRECISE, out_dtype=acc.dtype)
    else:
        acc = tl.dot(x_tile, w_tile.T, acc, max_num_imprecise_acc=IMPRECISE, out_dtype=acc.dtype)
    return acc


@triton.jit
def _block_scale(x_scale, w_scales, n_first, n, w_scale_row, BLOCK_N: tl.constexpr, SWAP: tl.constexpr):
    """What the product over one block of inputs is multiplied with, ``[BLOCK_M, BLOCK_N]`` or a row or column of it."""
    if BLOCK_N <= INPUTS_OF_SCALE:  # one scale for all outputs of the tile
        x_scale *= tl.load(w_scales + n_first // INPUTS_OF_SCALE * w_scale_row)
        scale = x_scale[None, :] if SWAP else x_scale[:, None]
    else:
        output = n_first + tl.arange(0, BLOCK_N)
        w_scale = tl.load(w_scales + output // INPUTS_OF_SCALE * w_scale_row, mask=output < n, other=0.0)
        scale = w_scale[:, None] * x_scale[None, :] if SWAP else x_scale[:, None] * w_scale[None, :]
    return scale
