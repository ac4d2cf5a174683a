# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: N803
"""What kernels of 8-bit products do with one tile: find it, load its inputs, store it."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["load_tile", "load_vector", "store_tile", "tile_position"]

GROUP_M: tl.constexpr = tl.constexpr(8)
"""Tiles of tokens that are walked before the next tile of outputs, so that both stay in the second-level cache."""


@triton.jit
def tile_position(tile, tiles_m, tiles_n):
    """Row and column of a tile when ``GROUP_M`` rows are walked together."""
    a_group = GROUP_M * tiles_n
    first_m = tile // a_group * GROUP_M
    height = tl.minimum(tiles_m - first_m, GROUP_M)
    return first_m + tile % a_group % height, tile % a_group // height


@triton.jit
def load_tile(
    matrix, row, column, rows, columns, stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """``[ROWS, COLUMNS]`` of a matrix: zero beyond its columns; beyond its rows any value (they are not stored)."""
    if TMA:
        tile = matrix.load([row, column])
    else:
        at_row = tl.minimum(row + tl.arange(0, ROWS), rows - 1).to(tl.int64)
        at_column = column + tl.arange(0, COLUMNS)
        pointers = matrix + at_row[:, None] * stride + at_column[None, :]
        tile = tl.load(pointers) if EVEN else tl.load(pointers, mask=at_column[None, :] < columns, other=0.0)
    return tile


@triton.jit
def load_vector(vector, first, size, stride, SIZE: tl.constexpr):
    """``[SIZE]`` of a vector, zero beyond its end."""
    at = first + tl.arange(0, SIZE)
    return tl.load(vector + at * stride, mask=at < size, other=0)


@triton.jit
def store_tile(result, out, bias, m_first, n_first, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Add the bias and store a tile."""
    if bias is not None:
        result += load_vector(bias, n_first, n, 1, BLOCK_N).to(tl.float32)[None, :]
    token = m_first + tl.arange(0, BLOCK_M)
    output = n_first + tl.arange(0, BLOCK_N)
    at = token.to(tl.int64)[:, None] * n + output[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=(token < m)[:, None] & (output < n)[None, :])
