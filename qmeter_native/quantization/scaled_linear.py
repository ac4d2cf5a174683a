"""A linear layer of 8-bit weights and 8-bit inputs: INT8 and FP8, scaled by tensor, channel, token or block."""

from __future__ import annotations

from typing import Any

from qmeter_native.kernels.quantized_weight import ScaledWeight
from qmeter_native.quantization.activation_quantizer import ActivationQuantizer, QuantizedInput
from qmeter_native.quantization.quant_linear import QuantLinear

__all__ = ["ScaledLinear"]


class ScaledLinear(QuantLinear):
    """W8A8: both sides are rounded, and multiplied as they are.

    Args:
        weight: ``[N, K]``.
        bias: ``[N]``, or None.
        dtype: Of inputs; any will do.
        quantizer: Of the input.
        input_scale: float32 ``[1]``, a scale for every input (static); None: each input has its own (dynamic).
        input_zero: int32 ``[1]``, the zero point beside it; None is symmetric.
    """

    kernel = "scaled"

    def __init__(
        self,
        weight: ScaledWeight,
        bias: Any | None = None,
        dtype: Any | None = None,
        *,
        quantizer: ActivationQuantizer,
        input_scale: Any | None = None,
        input_zero: Any | None = None,
    ) -> None:
        super().__init__(weight, bias, dtype)
        self.quantizer = quantizer
        self.register_buffer("input_scale", input_scale)
        self.register_buffer("input_zero", input_zero)

    def rounded_input(self, x: Any) -> Any:
        """See `QuantLinear`."""
        return self._quantized(x.reshape(-1, self.in_features)).dequantize().reshape(x.shape)

    def _quantized(self, x: Any) -> QuantizedInput:
        if self.input_scale is None:
            return self.quantizer(x)
        return self.quantizer.with_scale(x, self.input_scale, self.input_zero)

    def _prepare(self, weight: Any) -> Any:
        from qmeter_native.kernels.scaled import ScaledTensor

        return ScaledTensor.prepare(weight)

    def _multiply(self, x: Any) -> Any:
        from qmeter_native.kernels.scaled import scaled_gemm

        rounded = self._quantized(x.reshape(-1, self.in_features))
        scales = rounded.scales.squeeze(1) if rounded.scales.shape[1:] == (1,) else rounded.scales  # one group a token
        out = scaled_gemm(
            rounded.values, scales, self.quantized_weight, self.bias, out_dtype=x.dtype, x_zeros=rounded.zeros
        )
        return out.reshape(*x.shape[:-1], self.out_features)
