"""The decoders' PTX, executed by a model of its instructions: Triton's interpreter takes another way."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.kernels.w4a8 import assembly
from tests.kernels.weight_only import ptx

BYTES = st.lists(st.integers(0, 255), min_size=4, max_size=4)


def word(values: list[int]) -> int:
    return int.from_bytes(bytes(values), "little")


def bytes_of(register: int, dtype: torch.dtype) -> list[float]:
    return torch.tensor(list(register.to_bytes(4, "little")), dtype=torch.uint8).view(dtype).float().tolist()


def nibbles(values: list[int]) -> tuple[list[int], list[int]]:
    return [value & 15 for value in values], [value >> 4 for value in values]


@given(BYTES)
def test_codes_are_the_nibbles(values: list[int]) -> None:
    low, high = ptx.run(assembly.CODES, [word(values)], 2)
    assert (bytes_of(low, torch.int8), bytes_of(high, torch.int8)) == nibbles(values)


@given(BYTES)
def test_e4m3_bytes_are_the_integers_in_units_of_the_smallest_number(values: list[int]) -> None:
    expected = [[(code if code < 8 else 7 - code) / 512 for code in half] for half in nibbles(values)]
    found = ptx.run(assembly.E4M3, [word(values)], 2)
    assert [bytes_of(register, torch.float8_e4m3fn) for register in found] == expected


@given(BYTES, st.tuples(*[st.integers(1, 127)] * 2), st.tuples(*[st.integers(0, 15)] * 2))
def test_progressive_bytes_are_the_inner_integers(
    values: list[int], scales: tuple[int, int], zeros: tuple[int, int]
) -> None:
    offsets = [(2048 - zero * scale) * 0x10001 for zero, scale in zip(zeros, scales, strict=True)]
    operands = [operand for half in zip(scales, offsets, strict=True) for operand in half for _ in range(4)]
    found = ptx.run(assembly.PROGRESSIVE, [word(values), *operands], 2)
    for register, codes, scale, zero in zip(found, nibbles(values), scales, zeros, strict=True):
        inner = torch.tensor([(code - zero) * scale for code in codes]).to(torch.int8)
        assert bytes_of(register, torch.int8) == inner.tolist()
