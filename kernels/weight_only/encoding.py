"""How codes are packed for the weight-only kernels: 16-bit words, in the order in which tensor cores take them.

A word holds ``parts`` codes of one output, ``span`` inputs apart, so that one mask over a 32-bit register with two
words leaves two neighbouring inputs of one part. A tile is 64 outputs by ``span`` words; in it, words follow each other
in the order of the registers of ``wgmma.m64nXk16`` with A in registers (PTX ISA, "Register fragments and shared memory
matrix layouts": also that of ``mma.m16n8k16``): a thread's 16 bytes are one k16 fragment of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["ENCODINGS", "TILE_ROWS", "Encoding", "pack_pairs", "tile_words", "unpack_pairs"]

TILE_ROWS = 64
"""Outputs of a tile: M of a ``wgmma``."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to pack codes into words.

    Attributes:
        kind: ``uint2``, ``uint3``, ``uint4``, ``uint8``, ``e4m3``, ``e2m1`` or ``table``.
        bits: Of a code.
        parts: Codes of a word, or of three words (``uint3``), each of another stretch of inputs.
        words: 1, or 3 (``uint3``).
        spans: Inputs of a part in one tile, the preferred first.
        exponent: Weights are decoded ``2 ** exponent`` times too small, which scales make up for: the format's bits
            are put into the place of float16's, whose exponent has another bias.
    """

    kind: str
    bits: int
    parts: int
    words: int
    spans: tuple[int, ...]
    exponent: int = 0

    def pack(self, codes: Any) -> Any:
        """Words of codes: uint8 ``[..., parts, span]`` to int16 ``[..., words, span]``."""
        columns = [codes[..., part, :].to(torch.int32) for part in range(self.parts)]
        if self.kind == "uint3":
            words = [_three_bit_word(columns, word) for word in range(3)]
        elif self.kind in _FLOAT_PLACES:
            words = [_float_word(columns, _FLOAT_PLACES[self.kind], self.bits - 1)]
        else:
            words = [_sum(column << self.bits * part for part, column in enumerate(columns))]
        return torch.stack([_to_int16(word) for word in words], dim=-2)


E4M3_PLACES = ((15, 7), (14, 0))
"""Of each part in a word: its sign's bit, and the lowest bit of its magnitude. The first is float16's own place."""
E2M1_PLACES = ((15, 9), (12, 6), (14, 3), (13, 0))
"""Two parts are one mask each away from float16, with a shift by 3 for the second: 11 instructions for 8 weights."""
_FLOAT_PLACES = {"e4m3": E4M3_PLACES, "e2m1": E2M1_PLACES}

ENCODINGS = {
    encoding.kind: encoding
    for encoding in (
        Encoding("uint2", 2, 8, 1, (16,)),
        Encoding("uint3", 3, 16, 3, (16,)),
        Encoding("uint4", 4, 4, 1, (32, 16)),
        Encoding("uint8", 8, 2, 1, (64, 32, 16)),
        Encoding("e4m3", 8, 2, 1, (64, 32, 16), exponent=8),
        Encoding("e2m1", 4, 4, 1, (32, 16), exponent=14),
        Encoding("table", 4, 4, 1, (32, 16)),
    )
}


def _three_bit_word(columns: list[Any], word: int) -> Any:
    """Five codes in the low 15 bits; the three top bits of a triple are the sixteenth code."""
    low = _sum(columns[5 * word + place] << 3 * place for place in range(5))
    return low | (columns[15] >> word & 1) << 15


def _float_word(columns: list[Any], places: tuple[tuple[int, int], ...], magnitude_bits: int) -> Any:
    magnitude = (1 << magnitude_bits) - 1
    return _sum(
        (column >> magnitude_bits) << sign | (column & magnitude) << low
        for column, (sign, low) in zip(columns, places, strict=True)
    )


def _sum(terms: Any) -> Any:
    """Of disjoint bit fields."""
    total = 0
    for term in terms:
        total = total + term
    return total


def _to_int16(word: Any) -> Any:
    """The low 16 bits, as a signed type, which torch can hold."""
    return torch.where(word >= 1 << 15, word - (1 << 16), word).to(torch.int16)


def tile_words(words: Any) -> Any:
    """Words by output and input into tiles: int16 ``[N, T, words, span]`` to ``[N / 64, T, words, 64 * span]``.

    N is a multiple of 64. T counts tiles along the inputs.
    """
    rows, tiles, count, span = words.shape
    # row = warp * 16 + row8 * 8 + lane // 4; column = step * 16 + half * 8 + (lane % 4) * 2 + pair
    view = words.reshape(rows // TILE_ROWS, 4, 2, 8, tiles, count, span // 16, 2, 4, 2)
    order = (0, 4, 5, 6, 1, 3, 8, 7, 2, 9)  # …, step, warp, lane // 4, lane % 4, half, row8, pair
    return view.permute(order).reshape(rows // TILE_ROWS, tiles, count, TILE_ROWS * span).contiguous()


def pack_pairs(values: Any) -> Any:
    """Values of outputs, two to a 32-bit word: float16 ``[N, G]`` to int32 ``[G, N / 2]``.

    A thread of a tensor-core product holds outputs ``r`` and ``r + 8`` of 16: it loads both with one word, and 4 bytes
    are the least that ``cp.async`` copies, so that the loads are pipelined with the weights'.
    """
    rows, groups = values.shape
    pairs = values.T.reshape(groups, rows // 16, 2, 8).transpose(2, 3)
    return pairs.contiguous().view(torch.int32).reshape(groups, rows // 2)


def unpack_pairs(words: Any) -> Any:
    """The inverse of `pack_pairs`: int32 ``[G, N / 2]`` to float16 ``[N, G]``."""
    groups, half = words.shape
    pairs = words.contiguous().view(torch.float16).reshape(groups, half // 8, 8, 2)
    return pairs.transpose(2, 3).reshape(groups, 2 * half).T
