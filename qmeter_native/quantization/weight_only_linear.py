"""A linear layer whose weight alone is quantized: integers of 2 to 8 bits, or a table of 16 numbers, with scales."""

from __future__ import annotations

from typing import Any

from qmeter_native.quantization.quant_linear import QuantLinear

__all__ = ["WeightOnlyLinear"]


class WeightOnlyLinear(QuantLinear):
    """W2/W3/W4/W8 A16: the weight is dequantized on its way into the product."""

    kernel = "weight_only"

    def _prepare(self, weight: Any) -> Any:
        from qmeter_native.kernels.weight_only import WeightOnlyTensor

        return WeightOnlyTensor.prepare(weight, self._dtype)

    def _multiply(self, x: Any) -> Any:
        from qmeter_native.kernels.weight_only import weight_only_linear

        return weight_only_linear(x, self.quantized_weight, self.bias)
