"""The decoders' PTX, executed by a model of its instructions, for every code of every format and both types."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from qmeter_native.kernels.weight_only.assembly import constraints, decode_assembly
from qmeter_native.kernels.weight_only.encoding import (
    ENCODINGS,
    TILE_ROWS,
    pack_pairs,
    tile_words,
    unpack_pairs,
)
from tests.kernels.weight_only import ptx
from tests.kernels.weight_only.weights import E2M1, NF4

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def decoded(kind: str, dtype: str, codes: torch.Tensor, zero: str = "none", zero_point: float = 0.0) -> torch.Tensor:
    """Codes uint8 ``[parts, 2]`` through a word of each column and the PTX: ``[parts, 2]`` in ``dtype``."""
    encoding = ENCODINGS[kind]
    words = encoding.pack(codes).to(torch.int64) & 0xFFFF
    inputs = [int(low) | int(high) << 16 for low, high in words]
    half = int(torch.tensor(zero_point).to(DTYPES[dtype]).view(torch.int16)) & 0xFFFF
    table = tuple(NF4.tolist()) if kind == "table" else ()
    assembly = decode_assembly(kind, dtype, zero, table)
    outputs = ptx.run(assembly, [*inputs, half << 16 | half], encoding.parts)
    pairs = [[value & 0xFFFF, value >> 16] for value in outputs]
    bits = torch.tensor(pairs, dtype=torch.int32)
    return torch.where(bits >= 1 << 15, bits - (1 << 16), bits).to(torch.int16).view(DTYPES[dtype])


def all_codes(kind: str) -> list[torch.Tensor]:
    """Every code in every part and column, beside different neighbours."""
    encoding = ENCODINGS[kind]
    count = 1 << encoding.bits
    places = torch.arange(encoding.parts)[:, None] * 5 + torch.arange(2) * 3
    return [((places + start) % count).to(torch.uint8) for start in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_integers_are_decoded_exactly_around_the_middle_of_their_range(bits: int, dtype: str) -> None:
    for codes in all_codes(f"uint{bits}"):
        assert torch.equal(decoded(f"uint{bits}", dtype, codes).float(), codes.float() - (1 << (bits - 1)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_zero_points_are_taken_off_exactly_or_left_to_the_caller(bits: int, dtype: str) -> None:
    kind = f"uint{bits}"
    for number, codes in enumerate(all_codes(kind)):
        zero = number * 37 % (1 << bits)
        assert torch.equal(decoded(kind, dtype, codes, "fused", zero).float(), codes.float() - zero)
        assert torch.equal(decoded(kind, dtype, codes, "raw").float(), codes.float())


@pytest.mark.parametrize("dtype", DTYPES)
def test_e4m3_is_decoded_exactly_but_for_its_power_of_two(dtype: str) -> None:
    for codes in all_codes("e4m3"):
        expected = codes.view(torch.float8_e4m3fn).float()
        numbers = ~expected.isnan()
        found = decoded("e4m3", dtype, codes).float() * 2.0 ** ENCODINGS["e4m3"].exponent
        assert torch.equal(found[numbers], expected[numbers])


@pytest.mark.parametrize("dtype", DTYPES)
def test_e2m1_is_decoded_exactly_but_for_its_power_of_two(dtype: str) -> None:
    for codes in all_codes("e2m1"):
        found = decoded("e2m1", dtype, codes).float() * 2.0 ** ENCODINGS["e2m1"].exponent
        assert torch.equal(found, E2M1[codes.int()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_of_a_table_are_decoded_to_its_values_rounded_once(dtype: str) -> None:
    for codes in all_codes("table"):
        assert torch.equal(decoded("table", dtype, codes), NF4[codes.int()].to(DTYPES[dtype]))


@pytest.mark.parametrize("kind", ENCODINGS)
def test_operands_are_as_many_as_constraints(kind: str) -> None:
    encoding = ENCODINGS[kind]
    assert len(constraints(kind).split(",")) == encoding.parts + encoding.words + 1


@pytest.mark.parametrize("span", [16, 32, 64])
def test_the_words_of_a_tile_follow_the_registers_of_a_tensor_core(span: int) -> None:
    numbers = torch.arange(TILE_ROWS * span, dtype=torch.int16).reshape(TILE_ROWS, 1, 1, span)
    flat = tile_words(numbers)[0, 0, 0]
    for position in range(0, TILE_ROWS * span, 7):
        step, thread, register = position // 1024, position // 8 % 128, position % 8
        warp, lane = divmod(thread, 32)
        pair, row8, half = register & 1, register >> 1 & 1, register >> 2
        row = 16 * warp + 8 * row8 + lane // 4
        column = 16 * step + 8 * half + 2 * (lane % 4) + pair
        assert flat[position] == row * span + column


def test_pairs_of_outputs_return() -> None:
    values = torch.randn(64, 3).half()
    words = pack_pairs(values)
    assert words.shape == (3, 32)
    assert torch.equal(unpack_pairs(words), values)
    assert torch.equal(words[1, 9:10].view(torch.float16), values[[17, 25], 1])
