"""4-bit codes in the order in which Hopper's matrix unit takes an 8-bit left operand from registers.

A block is 64 outputs x 256 inputs: byte ``[n, j]`` of 64 x 128 holds the codes of inputs ``j`` (low nibble) and
``128 + j`` (high nibble). Of a step of 32 bytes, thread ``4 g + t`` of warp ``w`` holds of rows ``16 w + g`` and
``16 w + g + 8`` the bytes ``4 t`` to ``4 t + 3`` and 16 further (PTX ISA, "Register Fragments for wgmma
.m64nNk32"): its sixteen bytes lie together, by half of the step, row, byte.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["INPUTS", "OUTPUTS", "by_block", "from_blocks", "to_blocks"]

OUTPUTS = 64
"""Of a block: what a warp group multiplies."""
INPUTS = 256
"""Of a block: two groups of 128."""

_TILE_PAIR = 2 * OUTPUTS
"""Outputs are padded to this, for kernels with two warp groups."""
_ROWS_BYTES = (4, 2, 8, 4, 2, 4, 4)
"""Of ``[64, 128]`` bytes: warp, eighth row, g; step, half of the step, t, byte."""


def to_blocks(codes: Any) -> Any:
    """uint8 ``[N, K]``, below 16, to uint8 ``[tiles, blocks, 8192]``; zeros beyond N and K."""
    n, k = codes.shape
    padded = codes.new_zeros(n + -n % _TILE_PAIR, k + -k % INPUTS)
    padded[:n, :k] = codes
    halves = padded.view(padded.shape[0] // OUTPUTS, OUTPUTS, padded.shape[1] // INPUTS, 2, INPUTS // 2)
    packed = halves[:, :, :, 0] | halves[:, :, :, 1] << 4
    tiles, _, blocks, _ = packed.shape
    warp, eighth, g, step, half, t, byte = _ROWS_BYTES
    split = packed.reshape(tiles, warp, eighth, g, blocks, step, half, t, byte)
    return split.permute(0, 4, 5, 1, 3, 7, 6, 2, 8).reshape(tiles, blocks, OUTPUTS * INPUTS // 2).contiguous()


def from_blocks(packed: Any, n: int, k: int) -> Any:
    """What `to_blocks` was given: uint8 ``[n, k]``."""
    tiles, blocks, _ = packed.shape
    warp, eighth, g, step, half, t, byte = _ROWS_BYTES
    split = packed.view(tiles, blocks, step, warp, g, t, half, eighth, byte).permute(0, 3, 7, 4, 1, 2, 6, 5, 8)
    rows = split.reshape(tiles * OUTPUTS, blocks, INPUTS // 2)
    return torch.stack((rows & 15, rows >> 4), dim=2).reshape(tiles * OUTPUTS, blocks * INPUTS)[:n, :k]


def by_block(values: Any, group_size: int, k: int) -> Any:
    """A value of each output and group, ``[N, G]``, to one of each half of a block: ``[tiles, blocks, 2, 64]``.

    ``group_size`` is a multiple of 128, or at least ``k``. Zeros beyond N and K.
    """
    halves = torch.arange(-(-k // (INPUTS // 2)), device=values.device)
    spread = values[:, halves * (INPUTS // 2) // group_size]
    n, known = spread.shape
    padded = spread.new_zeros(n + -n % _TILE_PAIR, known + known % 2)
    padded[:n, :known] = spread
    return padded.view(padded.shape[0] // OUTPUTS, OUTPUTS, -1, 2).permute(0, 2, 3, 1).contiguous()
