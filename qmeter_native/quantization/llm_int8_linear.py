"""A linear layer of LLM.int8(): 8-bit products, but for the few inputs with outliers, which stay in floating point."""

from __future__ import annotations

from typing import Any, Final

import torch

from qmeter_native.kernels.quantized_weight import ScaledWeight
from qmeter_native.quantization.activation_quantizer import ActivationQuantizer
from qmeter_native.quantization.quant_linear import QuantLinear

__all__ = ["OUTLIER_THRESHOLD", "LlmInt8Linear"]

OUTLIER_THRESHOLD: Final = 6.0
"""Magnitude from which an input is an outlier (Dettmers et al. 2022, section 3.2)."""

_QUANTIZER: Final = ActivationQuantizer("int8")


class LlmInt8Linear(QuantLinear):
    """W8A8 with outliers apart: an input column in which any token is at or above the threshold is multiplied as it is.

    Which columns these are is known only when the input is, so a CUDA graph cannot hold this layer.

    Args:
        weight: int8 ``[N, K]``, one scale an output.
        bias: ``[N]``, or None.
        dtype: Of inputs; any will do.
        threshold: Magnitude of an outlier; 0: there are none.
    """

    kernel = "scaled"
    is_capturable = False

    def __init__(
        self,
        weight: ScaledWeight,
        bias: Any | None = None,
        dtype: Any | None = None,
        *,
        threshold: float = OUTLIER_THRESHOLD,
    ) -> None:
        super().__init__(weight, bias, dtype)
        self.threshold = threshold

    def rounded_input(self, x: Any) -> Any:
        """See `QuantLinear`."""
        rows = x.reshape(-1, self.in_features)
        is_outlier = self._outliers(rows)
        regular = _QUANTIZER(rows.masked_fill(is_outlier, 0)).dequantize()
        return torch.where(is_outlier, rows, regular).reshape(x.shape)

    def _outliers(self, rows: Any) -> Any:
        """Of type bool ``[K]``: the inputs in which some token of ``[M, K]`` is an outlier."""
        if self.threshold <= 0:
            return torch.zeros(self.in_features, dtype=torch.bool, device=rows.device)
        return (rows.abs() >= self.threshold).any(0)

    def _prepare(self, weight: Any) -> Any:
        from qmeter_native.kernels.scaled import ScaledTensor

        return ScaledTensor.prepare(weight)

    def _multiply(self, x: Any) -> Any:
        from qmeter_native.kernels.scaled import scaled_gemm

        rows = x.reshape(-1, self.in_features)
        is_outlier = self._outliers(rows)
        rounded = _QUANTIZER(rows.masked_fill(is_outlier, 0))
        weight = self.quantized_weight
        out = scaled_gemm(rounded.values, rounded.scales, weight, self.bias, out_dtype=x.dtype)
        columns = is_outlier.nonzero().squeeze(1)
        if len(columns):
            values = weight.values[:, columns].float() * weight.scales.reshape(-1, 1)
            out = out + rows[:, columns] @ values.to(x.dtype).T
        return out.reshape(*x.shape[:-1], self.out_features)
