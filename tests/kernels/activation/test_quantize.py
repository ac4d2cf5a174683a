"""Activation quantizers in Triton's interpreter: to the bit of their torch references, which are held to properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.activation import quantize, reference

FP8 = torch.float8_e4m3fn
DTYPES = [torch.int8, FP8]


def rows(m: int, k: int, dtype=torch.float16, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(m, k, generator=generator) * torch.logspace(-3, 2, m)[:, None]).to(dtype)


def assert_same_codes(ours, expected) -> None:
    assert ours.dtype == expected.dtype
    assert torch.equal(ours.view(torch.uint8), expected.view(torch.uint8))


@pytest.mark.parametrize("k", [1, 100, 128, 4096])
@pytest.mark.parametrize("x_dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_and_scales_of_tokens_are_those_of_the_reference(dtype, x_dtype, k: int) -> None:
    x = rows(5, k, x_dtype)
    codes, scales = quantize.quantize_token(x, dtype)
    expected, expected_scales = reference.quantize_token_reference(x, dtype)
    assert_same_codes(codes, expected)
    assert torch.equal(scales, expected_scales)


@pytest.mark.parametrize("k", [1, 77, 4096])
def test_zero_points_of_tokens_are_those_of_the_reference(k: int) -> None:
    x = rows(5, k) + torch.tensor([[-3.0], [0.0], [5.0], [0.0], [100.0]], dtype=torch.float16)
    codes, scales, zeros = quantize.quantize_token(x, symmetric=False)
    expected, expected_scales, expected_zeros = reference.quantize_token_reference(x, symmetric=False)
    assert_same_codes(codes, expected)
    assert torch.equal(scales, expected_scales)
    assert torch.equal(zeros, expected_zeros)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_wider_than_the_largest_block_is_quantized_whole(dtype) -> None:
    x = rows(2, 2 * quantize.LARGEST_BLOCK + 3)
    codes, scales = quantize.quantize_token(x, dtype)
    expected, expected_scales = reference.quantize_token_reference(x, dtype)
    assert_same_codes(codes, expected)
    assert torch.equal(scales, expected_scales)


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize(("k", "group"), [(128, 128), (300, 128), (4096, 128), (96, 32)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_and_scales_of_groups_are_those_of_the_reference(dtype, k: int, group: int, power_of_two: bool) -> None:
    x = rows(3, k)
    codes, scales = quantize.quantize_group(x, group, dtype, power_of_two)
    expected, expected_scales = reference.quantize_group_reference(x, group, dtype, power_of_two)
    assert_same_codes(codes, expected)
    assert torch.equal(scales, expected_scales)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_given_scale_saturates_at_the_limits(dtype) -> None:
    x = torch.tensor([[0.0, 1.0, -1.0, 1000.0, -1000.0, 0.5, 1.5]], dtype=torch.float16)
    codes = quantize.quantize_tensor(x, torch.tensor([1.0]), dtype)
    limits = (127.0, -128.0) if dtype == torch.int8 else (448.0, -448.0)
    halves = (0.0, 2.0) if dtype == torch.int8 else (0.5, 1.5)
    assert codes.float().tolist() == [[0.0, 1.0, -1.0, *limits, *halves]]
    assert_same_codes(codes, reference.quantize_tensor_reference(x, torch.tensor([1.0]), dtype))


def test_every_value_of_half_precision_is_rounded_to_e4m3_as_torch_does() -> None:
    every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(torch.float16)
    finite = every[every.isfinite()].reshape(1, -1)
    codes = quantize.quantize_tensor(finite, torch.tensor([1.0]), FP8)
    assert_same_codes(codes, finite.float().clamp(-448, 448).to(FP8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_zeros_get_a_scale_above_zero(dtype) -> None:
    codes, scales = quantize.quantize_token(torch.zeros(2, 64, dtype=torch.float16), dtype)
    assert bool((codes.float() == 0).all())
    assert bool((scales > 0).all())
    assert bool((1 / scales).isfinite().all())


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_with_an_infinity_or_nan_dequantizes_to_nan_and_spares_the_others(dtype, bad: float) -> None:
    x = rows(3, 64)
    x[1, 7] = bad
    for symmetric in (True, False) if dtype == torch.int8 else (True,):
        codes, scales, *zeros = quantize.quantize_token(x, dtype, symmetric)
        values = (codes.float() - (zeros[0].float()[:, None] if zeros else 0)) * scales[:, None]
        assert bool(values[1].isnan().all())
        assert bool(values[[0, 2]].isfinite().all())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-65504, 65504, width=16), min_size=1, max_size=40), st.booleans())
def test_int8_is_within_half_a_step_of_the_input(values: list[float], symmetric: bool) -> None:
    x = torch.tensor([values], dtype=torch.float16)
    codes, scales, *zeros = quantize.quantize_token(x, symmetric=symmetric)
    value = (codes.double() - (zeros[0].double()[:, None] if zeros else 0)) * scales.double()[:, None]
    float32_slack = 2.0**-22 * x.double().abs().max()  # the scale, its reciprocal and the product, each rounded once
    assert bool(((value - x.double()).abs() <= scales.double() / 2 + float32_slack).all())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-65504, 65504, width=16), min_size=1, max_size=40))
def test_e4m3_is_within_half_a_step_of_the_input(values: list[float]) -> None:
    x = torch.tensor([values], dtype=torch.float16)
    codes, scales = quantize.quantize_token(x, FP8)
    value = codes.double() * scales.double()[:, None]
    half_step = 2.0**-4 * x.double().abs() + 2.0**-10 * scales.double()  # normal numbers; below 2**-6 subnormal ones
    assert bool(((value - x.double()).abs() <= half_step * (1 + 2.0**-20)).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [None, 128])
def test_silu_and_mul_is_within_a_step_of_double_precision(dtype, group: int | None) -> None:
    x = rows(3, 2 * 300)
    codes, scales = quantize.silu_and_mul_quantize(x, dtype, group)
    gate, up = x.double().chunk(2, dim=-1)
    exact = torch.nn.functional.silu(gate) * up
    of_element = scales.double()[:, None] if group is None else scales.double().repeat_interleave(128, 1)[:, :300]
    value = codes.double() * of_element
    half_step = of_element / 2 if dtype == torch.int8 else 2.0**-4 * exact.abs() + 2.0**-10 * of_element
    assert bool(((value - exact).abs() <= half_step + 2.0**-20 * exact.abs()).all())


def test_silu_and_mul_takes_a_given_scale() -> None:
    x, scale = rows(3, 64), torch.tensor([0.05])
    codes, same = quantize.silu_and_mul_quantize(x, FP8, scale=scale)
    expected, _ = reference.silu_and_mul_quantize_reference(x, FP8, scale=scale)
    assert same is scale
    assert bool(((codes.float() - expected.float()).abs() <= 2.0**-3 * expected.float().abs()).all())


def test_leading_dimensions_are_kept() -> None:
    codes, scales = quantize.quantize_group(rows(6, 256).reshape(2, 3, 256))
    assert codes.shape == (2, 3, 256)
    assert scales.shape == (2, 3, 2)


def test_no_tokens_are_no_error() -> None:
    codes, scales = quantize.quantize_token(torch.empty(0, 64, dtype=torch.float16))
    assert codes.shape == (0, 64)
    assert scales.shape == (0,)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: quantize.quantize_token(torch.zeros(2, 4)), "x is float32"),
        (lambda: quantize.quantize_token(rows(4, 4).T), "x has strides"),
        (lambda: quantize.quantize_token(rows(2, 4), torch.int16), "dtype"),
        (lambda: quantize.quantize_token(rows(2, 4), FP8, symmetric=False), "Zero points"),
        (lambda: quantize.quantize_group(rows(2, 4), 100), "group"),
        (lambda: quantize.quantize_tensor(rows(2, 4), torch.ones(2)), "scale has shape"),
        (lambda: quantize.silu_and_mul_quantize(rows(2, 5)), "rows of 5"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        call()
