"""Codes of 2 to 8 bits in 32-bit or 8-bit words: the bit streams of every packed format.

A stream is little-endian: code i takes the bits ``i * bits`` and up of the words read as one long number, so that a
code may straddle two words (three bits: 32 codes in 3 words). Orders that are no streams (AWQ's interleaved nibbles,
HQQ's halves) are their formats' own.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_dtype

__all__ = ["num_words", "pack_bits", "unpack_bits"]

_WORD_BITS: Final[dict[Any, int]] = {torch.int32: 32, torch.uint8: 8}


def num_words(num_codes: int, bits: int, word: Any = torch.int32, *, dense: bool = True) -> int:
    """Words that ``num_codes`` codes take; the last one may be part empty.

    Args:
        num_codes: Length of the stream.
        bits: Of a code, 1 to 8.
        word: ``torch.int32`` or ``torch.uint8``.
        dense: False: no code straddles two words, the highest ``word bits % bits`` of each stay 0.
    """
    codes, words = _period(bits, word, dense)
    return num_codes // codes * words + math.ceil(num_codes % codes * bits / _WORD_BITS[word])


def pack_bits(codes: Any, bits: int, word: Any = torch.int32, dim: int = -1, *, dense: bool = True) -> Any:
    """Words of codes, the first code in the lowest bits; bits behind the last code are 0.

    Args:
        codes: uint8 or int32 ``[..., L, ...]``, each below ``2 ** bits``.
        bits: Of a code, 1 to 8.
        word: ``torch.int32`` (vendors' unsigned words, stored signed) or ``torch.uint8``.
        dim: The dimension of L.
        dense: See `num_words`.

    Returns:
        ``word`` ``[..., num_words(L), ...]``, contiguous.

    Raises:
        UsageError: Another type, or a code that does not fit into ``bits``.
    """
    check_dtype("codes", codes, torch.uint8, torch.int32)
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << bits:
        raise UsageError(
            f"codes reach from {int(codes.min())} to {int(codes.max())}", f"{bits} bits hold 0 to {(1 << bits) - 1}."
        )
    per_period, words_per_period = _period(bits, word, dense)
    word_bits = _WORD_BITS[word]
    stream = codes.movedim(dim, -1)
    length = stream.shape[-1]
    num_periods = -(-length // per_period)
    words = torch.zeros((*stream.shape[:-1], num_periods, words_per_period), dtype=torch.int32, device=codes.device)
    for position in range(per_period):
        index, shift = divmod(position * bits, word_bits)
        values = stream[..., position::per_period].int()
        rows = slice(values.shape[-1])
        words[..., rows, index] |= values << shift
        if shift + bits > word_bits:
            words[..., rows, index + 1] |= values >> (word_bits - shift)
    flat = words.flatten(-2)[..., : num_words(length, bits, word, dense=dense)]
    return flat.to(word).movedim(-1, dim).contiguous()  # to uint8: modulo 256


def unpack_bits(words: Any, bits: int, length: int, dim: int = -1, *, dense: bool = True) -> Any:
    """The codes of `pack_bits`.

    Args:
        words: int32 or uint8 ``[..., num_words(length), ...]``.
        bits: Of a code, 1 to 8.
        length: Codes to read; what the last word holds beyond is ignored.
        dim: The packed dimension.
        dense: See `num_words`.

    Returns:
        uint8 ``[..., length, ...]``, contiguous.

    Raises:
        UsageError: Another type, or another number of words than ``length`` codes take.
    """
    check_dtype("words", words, *_WORD_BITS)
    expected = num_words(length, bits, words.dtype, dense=dense)
    if words.shape[dim] != expected:
        raise UsageError(
            f"{words.shape[dim]} words along dimension {dim}", f"{length} codes of {bits} bits take {expected} words."
        )
    per_period, words_per_period = _period(bits, words.dtype, dense)
    word_bits = _WORD_BITS[words.dtype]
    stream = words.movedim(dim, -1)
    codes = torch.empty((*stream.shape[:-1], length), dtype=torch.uint8, device=words.device)
    for position in range(min(per_period, length)):
        index, shift = divmod(position * bits, word_bits)
        count = -(-(length - position) // per_period)
        values = stream[..., index::words_per_period][..., :count].int() >> shift
        low_bits = min(bits, word_bits - shift)
        values &= (1 << low_bits) - 1
        if low_bits < bits:
            high = stream[..., index + 1 :: words_per_period][..., :count].int()
            values |= (high & ((1 << (bits - low_bits)) - 1)) << low_bits
        codes[..., position::per_period] = values
    return codes.movedim(-1, dim).contiguous()


def _period(bits: int, word: Any, dense: bool) -> tuple[int, int]:
    """Codes and words after which the stream's pattern repeats."""
    if word not in _WORD_BITS:
        raise UsageError(f"words of {word}", "They are torch.int32 or torch.uint8.")
    if not 1 <= bits <= 8:
        raise UsageError(f"codes of {bits} bits", "They have 1 to 8 bits.")
    word_bits = _WORD_BITS[word]
    if not dense:
        return word_bits // bits, 1
    period_bits = math.lcm(bits, word_bits)
    return period_bits // bits, period_bits // word_bits
