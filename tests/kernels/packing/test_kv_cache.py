"""Stored keys and values: golden bytes, round trips within half a step, KIVI's layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import kv_cache
from qmeter_native.kernels.packing.kv_cache import FORMATS, format_named

HEAD_SIZE = 16
heads = st.lists(st.floats(-1000, 1000, width=16), min_size=HEAD_SIZE, max_size=HEAD_SIZE)


def as_signed(words: list[int]) -> list[int]:
    return [word - (1 << 32) if word >> 31 else word for word in words]


def half_step(x: torch.Tensor, scales: torch.Tensor, name: str) -> torch.Tensor:
    """Half the distance of the two stored numbers around each element, from the format."""
    scales = scales.double()
    if name == "int8_per_token_head":
        return scales[..., None] / 2
    if name == "int4_per_token_head":
        scale, minimum = scales.unbind(-1)
        rounded_to_half = 2.0**-11 * (15 * scale + minimum.abs()) + 2.0**-25  # of scale and minimum, at the range's end
        return (scale / 2 + rounded_to_half)[..., None]
    return 2.0**-4 * x.double().abs() + 2.0**-10 * scales[..., None]


def test_four_bit_codes_hold_the_even_element_in_the_low_half() -> None:
    stored, scales = kv_cache.quantize_kv(torch.arange(16.0)[None, None], format_named("int4_per_token_head"))
    assert stored.dtype == torch.uint8
    assert stored.tolist() == [[[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]]]
    assert scales.dtype == torch.float16
    assert scales.tolist() == [[[1.0, 0.0]]]
    assert kv_cache.unpack_int4(stored).tolist() == [[list(range(16))]]


def test_int8_codes_and_scale_of_a_head() -> None:
    stored, scales = kv_cache.quantize_kv(torch.tensor([[[127.0, -63.5, 0.5, -127.0]]]), FORMATS[4])
    assert stored.tolist() == [[[127, -64, 0, -127]]]  # ties to even
    assert scales.tolist() == [[1.0]]


def test_fp8_by_head_takes_given_scales_and_saturates() -> None:
    x = torch.tensor([[[1.0, 1000.0], [1.0, 1000.0]]])
    stored, scales = kv_cache.quantize_kv(x, format_named("fp8"), torch.tensor([1.0, 2.0]))
    assert stored.float().tolist() == [[[1.0, 448.0], [0.5, 448.0]]]
    assert kv_cache.dequantize_kv(stored, scales, format_named("fp8")).tolist() == [[[1.0, 448.0], [1.0, 896.0]]]


@pytest.mark.parametrize("name", ["fp8_per_token_head", "int8_per_token_head", "int4_per_token_head"])
@settings(max_examples=50, deadline=None)
@given(heads)
def test_a_round_trip_is_within_half_a_step(name: str, values: list[float]) -> None:
    x, form = torch.tensor([[values]]), format_named(name)
    stored, scales = kv_cache.quantize_kv(x, form)
    error = (kv_cache.dequantize_kv(stored, scales, form, torch.float64) - x.double()).abs()
    assert bool((error <= half_step(x, scales, name) * (1 + 2.0**-20)).all())


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_what_is_stored_takes_the_bytes_that_the_format_says(form) -> None:
    given_scales = torch.ones(3) if form.scaling == "head" else None
    stored, scales = kv_cache.quantize_kv(torch.randn(5, 3, HEAD_SIZE), form, given_scales)
    num_bytes = stored.nbytes + (scales.nbytes if form.scaling == "token_head" else 0)
    assert stored.dtype == form.dtype
    assert stored.shape == (5, 3, form.stored_size(HEAD_SIZE))
    assert num_bytes == 5 * 3 * form.bytes_per_token_head(HEAD_SIZE)


@pytest.mark.parametrize("name", ["fp8_per_token_head", "int8_per_token_head", "int4_per_token_head"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_head_with_an_infinity_or_nan_dequantizes_to_nan(name: str, bad: float) -> None:
    x, form = torch.ones(2, 1, HEAD_SIZE), format_named(name)
    x[0, 0, 3] = bad
    value = kv_cache.dequantize_kv(*kv_cache.quantize_kv(x, form), form)
    assert bool(value[0].isnan().all())
    assert bool((value[1] - 1).abs().max() < 0.01)


def test_equal_elements_have_scales_above_zero() -> None:
    for form in FORMATS[3:]:
        _, scales = kv_cache.quantize_kv(torch.zeros(1, 1, HEAD_SIZE), form)
        assert bool((scales.flatten()[0] > 0).all())


def test_kivi_words_hold_the_first_code_in_the_lowest_bits() -> None:
    two_bits = kv_cache.quantize_kivi_values(torch.arange(4.0).repeat(8)[None], bits=2, group=32)
    assert two_bits.words.tolist() == [as_signed([0xE4E4E4E4, 0xE4E4E4E4])]
    four_bits = kv_cache.quantize_kivi_values(torch.arange(16.0).repeat(2)[None] - 5, bits=4, group=32)
    assert four_bits.words.tolist() == [as_signed([0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98])]
    assert four_bits.scales.tolist() == [[1.0]]
    assert four_bits.minima.tolist() == [[-5.0]]


def test_kivi_keys_are_packed_along_tokens_and_values_along_channels() -> None:
    x = torch.randn(2, 3, 64, 128, dtype=torch.float16)  # batch, heads, tokens, channels
    keys, values = kv_cache.quantize_kivi_keys(x, 2, 32), kv_cache.quantize_kivi_values(x, 2, 32)
    assert keys.words.shape == (2, 3, 128, 4)
    assert keys.scales.shape == (2, 3, 128, 2)
    assert values.words.shape == (2, 3, 64, 8)
    assert values.scales.shape == (2, 3, 64, 4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_kivi_round_trips_are_within_half_a_step(bits: int, seed: int) -> None:
    x = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(seed))
    keys = kv_cache.quantize_kivi_keys(x, bits, 32)
    error = (kv_cache.dequantize_kivi_keys(keys, torch.float64) - x.double()).abs()
    step = keys.scales.double().repeat_interleave(32, dim=-1).transpose(-1, -2)
    assert bool((error <= step / 2 * (1 + 2.0**-12)).all())  # the quotient is float32 of up to 255 steps
    values = kv_cache.quantize_kivi_values(x, bits, 32)
    error = (kv_cache.dequantize_kivi_values(values, torch.float64) - x.double()).abs()
    assert bool((error <= values.scales.double() / 2 * (1 + 2.0**-12)).all())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: format_named("fp5"), "fp5"),
        (lambda: kv_cache.quantize_kv(torch.ones(1, 1, 4), format_named("fp8")), "needs scales"),
        (lambda: kv_cache.quantize_kv(torch.ones(1, 1, 4), FORMATS[4], torch.ones(1)), "finds its own"),
        (lambda: kv_cache.quantize_kv(torch.ones(1, 1, 5), FORMATS[5]), "5 elements"),
        (lambda: kv_cache.dequantize_kv(torch.ones(1, 1, 4), None, FORMATS[4]), "needs its scales"),
        (lambda: kv_cache.quantize_kivi_keys(torch.ones(33, 4)), "whole groups"),
        (lambda: kv_cache.quantize_kivi_keys(torch.ones(32, 4), bits=3), "bits are 3"),
        (lambda: kv_cache.quantize_kivi_keys(torch.ones(32, 4), bits=2, group=8), "whole words"),
    ],
)
def test_what_cannot_be_stored_is_refused(call, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        call()
