"""The PTX that decodes keys and values, executed by a model of its instructions: the interpreter has none of it."""

from __future__ import annotations

import torch

from qmeter_native.kernels.paged_attention.codes import INT4_TO_HALF, INT8_TO_HALF
from tests.kernels.weight_only import ptx


def halves(words: list[int]) -> list[float]:
    bits = torch.tensor([part for word in words for part in (word & 0xFFFF, word >> 16)], dtype=torch.int32)
    return torch.where(bits >= 1 << 15, bits - (1 << 16), bits).to(torch.int16).view(torch.float16).tolist()


def word(codes: list[int]) -> int:
    return int.from_bytes(bytes(codes), "little")


def test_four_int8_become_their_values_in_order() -> None:
    for first in range(256):
        codes = [(first + 37 * place) % 256 for place in range(4)]
        signed = [float(code - 256 if code > 127 else code) for code in codes]
        assert halves(ptx.run(INT8_TO_HALF.value, [word(codes)], 2)) == signed


def test_low_halves_of_four_bytes_come_first_then_high_ones_less_eight() -> None:
    for first in range(256):
        codes = [(first + 37 * place) % 256 for place in range(4)]
        low, high = [code % 16 - 8.0 for code in codes], [code // 16 - 8.0 for code in codes]
        assert halves(ptx.run(INT4_TO_HALF.value, [word(codes)], 4)) == low + high
