"""Whether a kernel multiplies right: its product against the one in double precision, before it is timed."""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from qmeter_native.benchmark.contender import Activation
from qmeter_native.kernels.oracle import linear, linear_bound
from qmeter_native.kernels.quantized_weight import QuantizedWeight

__all__ = ["Truth", "truth_of", "why_wrong"]

_ROWS: Final = 48
"""Of the product that are looked at, the first and the last among them: all of 4096 cost 100 ms in double precision."""
_FP8_LOSS: Final = 1e-5
"""Of a row's root mean square, an input: Hopper's tensor cores sum FP8 products with 14 bits. DeepSeek-V3 (section
3.3.2) has 2 % at 4096 inputs, growing with their number; twice that is allowed. Worst cases are far above both."""


class Truth:
    """What some rows of a product must be, and how far a right kernel may be off: all float64 ``[rows, N]``.

    Args:
        rows: Which.
        exact: The product.
        bound: Of a kernel that multiplies what the format has.
        bound_16_bit: Of one that rounds weights and activations to 16 bits first.
    """

    def __init__(self, rows: Any, exact: Any, bound: Any, bound_16_bit: Any) -> None:
        self._rows = rows
        self._exact = exact
        self._bound = bound
        self._bound_16_bit = bound_16_bit

    def error(self, product: Any, is_16_bit: bool = False) -> float:
        """Largest distance over the bound; infinite where the product is no number."""
        bound = self._bound_16_bit if is_16_bit else self._bound
        distance = (product[self._rows].double() - self._exact).abs() / bound
        return float(distance.nan_to_num(math.inf, math.inf).max())


def truth_of(activation: Activation, weight: QuantizedWeight) -> Truth:
    """By the oracle and its bound of the format."""
    m = activation.values.shape[0]
    rows = torch.linspace(0, m - 1, min(m, _ROWS), device=activation.values.device).round().long()
    x = activation.real(rows)
    exact = linear(x, weight)
    rounded = linear_bound(x, weight, activation.out_dtype, activation.out_dtype)
    # quantized activations meet weights that int8 or E4M3 hold exactly; 16-bit ones meet weights rounded to 16 bits
    is_exact = activation.scales is not None
    bound = linear_bound(x, weight, activation.out_dtype, None) if is_exact else rounded
    if activation.values.dtype == torch.float8_e4m3fn:
        bound = bound + _FP8_LOSS * x.shape[1] * exact.square().mean(1, keepdim=True).sqrt()
    # an activation that is rounded as well adds as much as the weight at most
    return Truth(rows, exact, bound, 2 * rounded)


def why_wrong(error: float) -> str | None:
    """In words; None for an error within the bound."""
    if error <= 1:
        return None
    return "wrong: no number" if math.isinf(error) else f"wrong: {error:.3g} times as far off as a right kernel may be"
