"""E2M1: its table, its rounding, its bytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.e2m1 import E2M1_TABLE, pack_e2m1, round_to_e2m1, unpack_e2m1


def test_the_table_follows_from_sign_exponent_and_mantissa() -> None:
    for code, value in enumerate(E2M1_TABLE.tolist()):
        sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
        magnitude = 2.0 ** (exponent - 1) * (1 + mantissa / 2) if exponent else mantissa / 2
        assert value == (-magnitude if sign else magnitude)


def test_every_value_of_the_table_rounds_to_its_own_code() -> None:
    assert round_to_e2m1(E2M1_TABLE).tolist() == list(range(16))


def test_ties_go_to_the_even_code() -> None:
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    assert round_to_e2m1(ties).tolist() == [0, 2, 2, 4, 4, 6, 6]
    assert round_to_e2m1(-ties).tolist() == [8, 10, 10, 12, 12, 14, 14]


def test_what_lies_beyond_six_saturates() -> None:
    assert round_to_e2m1(torch.tensor([6.1, 1e30, float("inf"), -7.0])).tolist() == [7, 7, 7, 15]


@settings(max_examples=200, deadline=None)
@given(st.floats(-6, 6, width=32))
def test_no_other_value_of_the_table_is_nearer(value: float) -> None:
    rounded = E2M1_TABLE[round_to_e2m1(torch.tensor([value])).long()].item()
    assert abs(rounded - value) == min(abs(entry - value) for entry in E2M1_TABLE.tolist())


def test_the_even_input_is_the_low_nibble() -> None:
    assert pack_e2m1(torch.tensor([[1, 7]], dtype=torch.uint8)).tolist() == [[0x71]]


def test_bytes_give_their_codes_back() -> None:
    packed = torch.arange(256, dtype=torch.uint8).reshape(2, 128)
    assert torch.equal(pack_e2m1(unpack_e2m1(packed)), packed)


def test_an_odd_number_of_inputs_is_refused() -> None:
    with pytest.raises(UsageError, match="3 inputs"):
        pack_e2m1(torch.zeros(2, 3, dtype=torch.uint8))


def test_it_rounds_as_compressed_tensors() -> None:
    fp4 = pytest.importorskip("compressed_tensors.quantization.utils.fp4_utils")
    values = torch.cat([torch.randn(4096) * 3, torch.arange(-40, 41) / 8])
    expected = fp4.cast_to_fp4(values.clone())
    assert torch.equal(E2M1_TABLE[round_to_e2m1(values).long()], expected)
