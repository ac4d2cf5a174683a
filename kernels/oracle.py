"""What the matrix products must give: the definition in double precision, and how far a right kernel may be from it."""

from __future__ import annotations

from typing import Any

import torch

from qmeter_native.kernels.quantized_weight import QuantizedWeight

__all__ = ["fp8_sum_loss", "linear", "linear_bound", "relative_step"]


def linear(x: Any, weight: QuantizedWeight, bias: Any | None = None) -> Any:
    """``x @ w.T + bias`` in float64: ``[..., K]`` to ``[..., N]``.

    ``x`` is the product's real input: quantized activations are given as what they stand for.
    """
    product = x.double() @ weight.dequantize(torch.float64).T
    return product if bias is None else product + bias.double()


def relative_step(dtype: Any) -> float:
    """Largest relative error of rounding to ``dtype``: half its machine epsilon."""
    return float(torch.finfo(dtype).eps) / 2


def linear_bound(x: Any, weight: QuantizedWeight, out_dtype: Any, weight_dtype: Any | None) -> Any:
    """How far a right kernel may be from `linear`, float64 ``[..., N]``.

    Every product of the sum is off by the rounding of its weight to ``weight_dtype``, once for the decoded value and
    once for its scale (None: weights enter the product exactly); the sum of K products in float32 adds at most K steps
    of float32 on the sum of magnitudes (Higham 2002, eq. 3.5); the result is rounded to ``out_dtype`` once.

    Args:
        x: ``[..., K]``.
        weight: ``[N, K]``.
        out_dtype: Of the product.
        weight_dtype: In which weights are multiplied, float16 or bfloat16; None: exactly.
    """
    magnitude = x.double().abs() @ weight.dequantize(torch.float64).abs().T
    of_weights = 0.0 if weight_dtype is None else 2 * relative_step(weight_dtype)
    of_sum = x.shape[-1] * relative_step(torch.float32)
    exact = linear(x, weight).abs()
    tiny = float(torch.finfo(out_dtype).smallest_normal) * relative_step(out_dtype) * 2
    return (of_weights + of_sum) * magnitude + relative_step(out_dtype) * (exact + magnitude * of_weights) + tiny


def fp8_sum_loss(x: Any, weight: QuantizedWeight, reset: int | None = None) -> Any:
    """How much Hopper's tensor cores may lose while they sum FP8 products, float64 ``[..., N]``; `linear_bound` adds.

    An instruction adds 32 products to the sum so far, cutting each of the 33 addends off at 14 bits below the largest
    one (DeepSeek-V3, section 3.3.2): at 2^-12 of its magnitude, the exponents being those of powers of two. Scales
    that an instruction's inputs share do not change this.

    Args:
        x: ``[..., K]``.
        weight: ``[N, K]``.
        reset: Inputs after which the sum starts anew, a multiple of 32, to be added in float32; None: never.
    """
    inputs, values = x.double(), weight.dequantize(torch.float64)
    k = x.shape[-1]
    loss = inputs.new_zeros(*x.shape[:-1], values.shape[0])
    total = torch.zeros_like(loss)
    for first in range(0, k, 32):
        if reset is not None and first % reset == 0:
            total = torch.zeros_like(loss)
        step_x, step_w = inputs[..., first : first + 32], values[:, first : first + 32]
        largest = step_x.abs().amax(-1, keepdim=True) * step_w.abs().amax(-1)
        loss += 33 * 2.0**-12 * torch.maximum(total.abs(), largest)
        total += step_x @ step_w.T
    return loss
