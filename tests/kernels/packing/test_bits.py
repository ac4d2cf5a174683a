from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.bits import num_words, pack_bits, unpack_bits


def as_one_number(words: torch.Tensor) -> int:
    """All words as one little-endian number."""
    width = 32 if words.dtype == torch.int32 else 8
    return sum((int(word) & ((1 << width) - 1)) << (width * index) for index, word in enumerate(words))


def test_the_first_code_is_in_the_lowest_bits() -> None:
    codes = torch.arange(8, dtype=torch.uint8)
    assert pack_bits(codes, 4).tolist() == [0x76543210]
    assert pack_bits(codes[:2].flip(0), 4, torch.uint8).tolist() == [0x01]


def test_words_of_high_codes_are_negative_int32() -> None:
    assert pack_bits(torch.full((8,), 8, dtype=torch.uint8), 4).tolist() == [-2004318072]


def test_three_bits_run_on_from_word_to_word() -> None:
    """10 codes and 2 bits of the eleventh in the first word, 1 bit, 10 codes and 1 bit in the second, 2 and 10."""
    codes = torch.zeros(32, dtype=torch.uint8)
    codes[10] = 0b111
    codes[21] = 0b111
    words = [word & 0xFFFFFFFF for word in pack_bits(codes, 3).tolist()]
    assert words == [0b11 << 30, 0b1 | 0b1 << 31, 0b11]


def test_padded_words_leave_their_highest_bits_empty() -> None:
    codes = torch.full((11,), 7, dtype=torch.uint8)
    assert pack_bits(codes, 3, dense=False).tolist() == [(1 << 30) - 1, 7]


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(1, 8),
    codes=st.lists(st.integers(0, 255), min_size=1, max_size=80),
    word=st.sampled_from([torch.int32, torch.uint8]),
)
def test_a_dense_stream_is_a_number_whose_digits_are_the_codes(bits: int, codes: list[int], word: torch.dtype) -> None:
    digits = [code % (1 << bits) for code in codes]
    words = pack_bits(torch.tensor(digits, dtype=torch.uint8), bits, word)
    assert as_one_number(words) == sum(digit << (bits * index) for index, digit in enumerate(digits))
    assert len(words) == num_words(len(digits), bits, word)
    assert unpack_bits(words, bits, len(digits)).tolist() == digits


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(1, 8),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 4)),
    dim=st.sampled_from([0, 1, 2, -1, -2]),
    word=st.sampled_from([torch.int32, torch.uint8]),
    dense=st.booleans(),
)
def test_codes_come_back_from_any_dimension(
    bits: int, shape: tuple[int, int, int], dim: int, word: torch.dtype, dense: bool
) -> None:
    codes = torch.randint(0, 1 << bits, shape, dtype=torch.uint8)
    words = pack_bits(codes, bits, word, dim, dense=dense)
    assert words.dtype == word
    assert words.shape[dim] == num_words(shape[dim], bits, word, dense=dense)
    assert torch.equal(unpack_bits(words, bits, shape[dim], dim, dense=dense), codes)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="codes reach from 0 to 8"):
        pack_bits(torch.tensor([0, 8], dtype=torch.uint8), 3)
    with pytest.raises(UsageError, match="codes is float32"):
        pack_bits(torch.zeros(2), 3)
    with pytest.raises(UsageError, match="codes of 9 bits"):
        pack_bits(torch.zeros(2, dtype=torch.uint8), 9)
    with pytest.raises(UsageError, match="words of torch"):
        pack_bits(torch.zeros(2, dtype=torch.uint8), 4, torch.int16)
    with pytest.raises(UsageError, match="2 words along dimension 0"):
        unpack_bits(torch.zeros(2, dtype=torch.int32), 4, 8, 0)
