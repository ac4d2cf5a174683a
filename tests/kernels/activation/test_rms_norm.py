"""RMS norm with quantized output in Triton's interpreter, against double precision."""

from __future__ import annotations

import pytest
import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.activation import quantize, reference, rms_norm

FP8 = torch.float8_e4m3fn
EPS = 1e-5


def inputs(m: int, k: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(m, k, generator=generator) * torch.logspace(-2, 2, m)[:, None]).half()
    gamma = (1 + 0.2 * torch.randn(k, generator=generator)).half()
    return x, gamma, torch.randn(m, k, generator=generator).half()


def exact(row, gamma):
    wide = row.double()
    return wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + EPS) * gamma.double()


def half_steps(dtype, expected, scales):
    """How far rounding to the code may be, and the float32 sums before it: K steps, here 2^-12 with a wide margin."""
    scales = scales.double()[:, None]
    of_code = scales / 2 if dtype == torch.int8 else 2.0**-4 * expected.abs() + 2.0**-10 * scales
    return of_code + 2.0**-18 * expected.abs()


@pytest.mark.parametrize("k", [1, 100, 4096, 20000])
@pytest.mark.parametrize("dtype", [torch.int8, FP8])
@pytest.mark.parametrize("has_residual", [False, True])
def test_the_norm_is_within_half_a_step_and_the_residual_updated(has_residual: bool, dtype, k: int) -> None:
    x, gamma, residual = inputs(3, k)
    row = x + residual if has_residual else x
    y, scales = rms_norm.rms_norm_quantize(x, gamma, EPS, dtype, residual if has_residual else None)
    expected = exact(row, gamma)
    assert bool(((y.double() * scales.double()[:, None] - expected).abs() <= half_steps(dtype, expected, scales)).all())
    if has_residual:
        assert torch.equal(residual, row)


@pytest.mark.parametrize("k", [100, quantize.LARGEST_BLOCK + 5])
def test_without_quantization_the_output_is_rounded_once(k: int) -> None:
    x, gamma, _ = inputs(3, k)
    y, scales = rms_norm.rms_norm_quantize(x, gamma, EPS, torch.float16)
    expected = exact(x, gamma)
    assert scales is None
    assert bool(((y.double() - expected).abs() <= (2.0**-11 + 2.0**-18) * expected.abs() + 2.0**-25).all())


@pytest.mark.parametrize("dtype", [torch.int8, FP8, torch.float16])
def test_the_reference_is_as_close(dtype) -> None:
    x, gamma, residual = inputs(4, 300)
    expected = exact(x + residual, gamma)
    y, scales = reference.rms_norm_quantize_reference(x, gamma, EPS, dtype, residual)
    if scales is None:
        assert bool(((y.double() - expected).abs() <= 2.0**-10 * expected.abs()).all())
    else:
        error = (y.double() * scales.double()[:, None] - expected).abs()
        assert bool((error <= half_steps(dtype, expected, scales)).all())


def test_a_row_of_zeros_is_quantized_to_zeros() -> None:
    y, scales = rms_norm.rms_norm_quantize(torch.zeros(1, 64).half(), torch.ones(64).half(), EPS)
    assert bool((y == 0).all())
    assert bool((scales > 0).all())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"gamma": torch.ones(63).half()}, "gamma has shape"),
        ({"gamma": torch.ones(64)}, "gamma is float32"),
        ({"eps": 0.0}, "eps"),
        ({"dtype": torch.bfloat16}, "dtype"),
        ({"residual": torch.zeros(3, 64).half()}, "residual has shape"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, name: str) -> None:
    arguments = {"x": torch.zeros(2, 64).half(), "gamma": torch.ones(64).half(), "eps": EPS, **change}
    with pytest.raises(UsageError, match=name):
        rms_norm.rms_norm_quantize(**arguments)
