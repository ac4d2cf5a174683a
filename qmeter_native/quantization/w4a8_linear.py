"""A linear layer of 4-bit weights and 8-bit inputs: QoQ's integers, or integers times FP8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from qmeter_native.kernels.quantized_weight import IntegerWeight, ProgressiveWeight
from qmeter_native.quantization.activation_quantizer import ActivationQuantizer
from qmeter_native.quantization.quant_linear import QuantLinear

__all__ = ["W4A8Linear"]


class W4A8Linear(QuantLinear):
    """W4A8: inputs are rounded token by token, weights are widened to 8 bits on their way into the product.

    Args:
        weight: ``[N, K]``: two levels of scales, one group a row, or groups (with FP8 inputs).
        bias: ``[N]``, or None.
        dtype: Of inputs; any will do.
        quantizer: Of the input.
    """

    kernel = "w4a8"

    def __init__(
        self,
        weight: ProgressiveWeight | IntegerWeight,
        bias: Any | None = None,
        dtype: Any | None = None,
        *,
        quantizer: ActivationQuantizer,
    ) -> None:
        is_plain = isinstance(weight, IntegerWeight) and weight.zeros is None
        super().__init__(_centred(weight) if is_plain and quantizer.number == "int8" else weight, bias, dtype)
        self.quantizer = quantizer

    def rounded_input(self, x: Any) -> Any:
        """See `QuantLinear`."""
        return self.quantizer(x.reshape(-1, self.in_features)).dequantize().reshape(x.shape)

    def _prepare(self, weight: Any) -> Any:
        from qmeter_native.kernels.w4a8 import W4A8Tensor

        return W4A8Tensor.prepare(weight)

    def _multiply(self, x: Any) -> Any:
        from qmeter_native.kernels.w4a8 import w4a8_gemm

        rounded = self.quantizer(x.reshape(-1, self.in_features))
        out = w4a8_gemm(rounded.values, rounded.scales, self.quantized_weight, self.bias, out_dtype=x.dtype)
        return out.reshape(*x.shape[:-1], self.out_features)


def _centred(weight: Any) -> Any:
    """A symmetric `IntegerWeight` with its zero points spelt out, which makes it one for int8 inputs."""
    return replace(weight, zeros=torch.full_like(weight.scales, 1 << (weight.bits - 1), dtype=torch.uint8))
