"""Activation quantizers on a GPU: to the bit of their torch references, FP8 by the GPU's own conversions, bfloat16."""

from __future__ import annotations

import pytest
import torch

from qmeter_native.kernels.activation import quantize, reference, rms_norm
from qmeter_native.kernels.activation.rounding import has_fp8_instructions

FP8 = torch.float8_e4m3fn
TYPES = [torch.int8, FP8]
HALVES = [torch.float16, torch.bfloat16]
SHAPES = [(1, 1), (3, 100), (17, 4096), (5, 14336), (2, 28672), (2, 53249), (4099, 512)]
EPS = 1e-5


def rows(m: int, k: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(m, k, generator=generator) * torch.logspace(-3, 2, m)[:, None]).to(dtype).cuda()


def assert_same(ours: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.view(torch.uint8), other.contiguous().view(torch.uint8))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("x_dtype", HALVES)
@pytest.mark.parametrize("dtype", TYPES)
def test_tokens_are_quantized_as_the_reference_does(dtype, x_dtype, shape) -> None:
    x = rows(*shape, x_dtype)
    assert_same(quantize.quantize_token(x, dtype), reference.quantize_token_reference(x, dtype))
    assert_same(
        quantize.quantize_token(x, dtype, power_of_two=True),
        reference.quantize_token_reference(x, dtype, power_of_two=True),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("x_dtype", HALVES)
def test_tokens_are_quantized_with_zero_points_as_the_reference_does(x_dtype, shape) -> None:
    x = rows(*shape, x_dtype) + torch.linspace(-3, 3, shape[0], device="cuda", dtype=x_dtype)[:, None]
    ours = quantize.quantize_token(x, symmetric=False)
    assert_same(ours, reference.quantize_token_reference(x, symmetric=False))


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("group", [32, 64, 128, 256])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_groups_are_quantized_as_the_reference_does(dtype, shape, group: int, power_of_two: bool) -> None:
    x = rows(*shape, torch.bfloat16)
    ours = quantize.quantize_group(x, group, dtype, power_of_two)
    assert_same(ours, reference.quantize_group_reference(x, group, dtype, power_of_two))


@pytest.mark.parametrize("dtype", TYPES)
def test_every_bfloat16_is_rounded_as_the_reference_does(dtype) -> None:
    every = torch.arange(-32768, 32768, dtype=torch.int32, device="cuda").to(torch.int16).view(torch.bfloat16)
    x = every[every.isfinite()].reshape(1, -1)
    scale = torch.tensor([0.37], device="cuda")
    ours = quantize.quantize_tensor(x, scale, dtype)
    assert_same((ours,), (reference.quantize_tensor_reference(x, scale, dtype),))


def test_the_gpu_rounds_to_fp8_as_the_arithmetic_of_older_ones_does(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_fp8_instructions(torch.device("cuda")):
        pytest.skip("FP8 instructions need compute capability 8.9")
    x = rows(64, 1000, torch.float16)
    by_instruction = quantize.quantize_token(x, FP8)
    monkeypatch.setattr(quantize, "has_fp8_instructions", lambda device: False)
    assert_same(by_instruction, quantize.quantize_token(x, FP8))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_row_with_an_infinity_or_nan_dequantizes_to_nan(dtype, bad: float) -> None:
    x = rows(3, 5000, torch.bfloat16)
    x[1, 4321] = bad
    for symmetric in (True, False) if dtype == torch.int8 else (True,):
        codes, scales, *zeros = quantize.quantize_token(x, dtype, symmetric)
        values = (codes.float() - (zeros[0].float()[:, None] if zeros else 0)) * scales[:, None]
        assert bool(values[1].isnan().all())
        assert bool(values[[0, 2]].isfinite().all())


def half_step(dtype, exact: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Of rounding, and 2^-17 for exponentials and sums in float32 (20 steps of the GPU's approximate functions)."""
    of_code = scales / 2 if dtype == torch.int8 else 2.0**-4 * exact.abs() + 2.0**-10 * scales
    return of_code + 2.0**-17 * exact.abs()


@pytest.mark.parametrize("shape", [(3, 100), (17, 14336), (2, 28672)])
@pytest.mark.parametrize("x_dtype", HALVES)
@pytest.mark.parametrize("group", [None, 128])
@pytest.mark.parametrize("dtype", TYPES)
def test_silu_and_mul_is_within_half_a_step(dtype, group, x_dtype, shape) -> None:
    m, k = shape
    x = rows(m, 2 * k, x_dtype)
    codes, scales = quantize.silu_and_mul_quantize(x, dtype, group)
    gate, up = x.double().chunk(2, dim=-1)
    exact = torch.nn.functional.silu(gate) * up
    scales = scales.double()[:, None] if group is None else scales.double().repeat_interleave(group, 1)[:, :k]
    assert bool(((codes.double() * scales - exact).abs() <= half_step(dtype, exact, scales)).all())


@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("shape", [(1, 100), (33, 4096), (7, 8192), (3, 28672)])
@pytest.mark.parametrize("x_dtype", HALVES)
@pytest.mark.parametrize("dtype", [*TYPES, None])
def test_rms_norm_is_within_half_a_step_and_updates_the_residual(dtype, x_dtype, shape, has_residual: bool) -> None:
    x, residual = rows(*shape, x_dtype), rows(*shape, x_dtype, seed=1) if has_residual else None
    gamma = (1 + 0.2 * torch.randn(shape[1])).to(x_dtype).cuda()
    row = x + residual if has_residual else x
    y, scales = rms_norm.rms_norm_quantize(x, gamma, EPS, dtype or x_dtype, residual)
    wide = row.double()
    exact = wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + EPS) * gamma.double()
    if dtype is None:
        step = torch.finfo(x_dtype).eps / 2
        assert bool(((y.double() - exact).abs() <= (step + 2.0**-17) * exact.abs() + 2.0**-25).all())
    else:
        scales = scales.double()[:, None]
        assert bool(((y.double() * scales - exact).abs() <= half_step(dtype, exact, scales)).all())
    if has_residual:
        assert torch.equal(residual, row)
