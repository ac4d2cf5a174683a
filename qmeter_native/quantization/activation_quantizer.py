"""How a linear layer's input is quantized: to which numbers, and which of its elements share a scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["ActivationQuantizer", "QuantizedInput"]


@dataclass(frozen=True, slots=True)
class QuantizedInput:
    """``x[m, k] = (values[m, k] - zeros[m]) * scales[m, k // group_size]``.

    Attributes:
        values: int8 or float8_e4m3fn ``[M, K]``.
        scales: float32 ``[1]`` (the tensor), ``[M]`` (each token) or ``[M, ceil(K / group_size)]``.
        zeros: int32 ``[1]`` or ``[M]``; None is symmetric.
        group_size: Inputs that share a scale; None: all of them.
    """

    values: Any
    scales: Any
    zeros: Any | None = None
    group_size: int | None = None

    def dequantize(self) -> Any:
        """What the values stand for, float32 ``[M, K]``."""
        values = self.values.float()
        if self.zeros is not None:
            values = values - self.zeros.float()[:, None]
        if self.group_size is None:
            return values * self.scales[:, None]
        return values * self.scales.repeat_interleave(self.group_size, 1)[:, : values.shape[1]]


@dataclass(frozen=True, slots=True)
class ActivationQuantizer:
    """Rounds the input of a layer, on the fly or with a scale that a checkpoint gives: by our kernels on a GPU, in
    plain torch on a CPU.

    Attributes:
        number: ``int8`` or ``fp8`` (e4m3).
        group_size: Inputs of a token that share a scale; None: all of them.
        is_symmetric: Without zero points; with them, int8 covers a token's least to its greatest value.
    """

    number: Literal["int8", "fp8"]
    group_size: int | None = None
    is_symmetric: bool = True

    def __call__(self, x: Any) -> QuantizedInput:
        """``x``, floating point ``[M, K]``, with scales of its own."""
        if x.device.type == "cuda":
            from qmeter_native.kernels.activation.quantize import quantize_group, quantize_token
        else:
            from qmeter_native.kernels.activation.reference import quantize_group_reference as quantize_group
            from qmeter_native.kernels.activation.reference import quantize_token_reference as quantize_token
        x = x.contiguous()
        if self.group_size is None:
            return QuantizedInput(*quantize_token(x, self._dtype, self.is_symmetric))
        values, scales = quantize_group(x, self.group_size, self._dtype)
        return QuantizedInput(values, scales, group_size=self.group_size)

    def with_scale(self, x: Any, scale: Any, zero: Any | None = None) -> QuantizedInput:
        """``x``, ``[M, K]``, with a scale for all of it, float32 ``[1]``, and perhaps a zero point, int32 ``[1]``."""
        if zero is not None:  # rare, and has no kernel
            values = ((x.float() / scale).round() + zero).clamp(-128, 127)
            return QuantizedInput(values.to(self._dtype), scale, zero)
        if x.device.type == "cuda":
            from qmeter_native.kernels.activation.quantize import quantize_tensor
        else:
            from qmeter_native.kernels.activation.reference import quantize_tensor_reference as quantize_tensor
        return QuantizedInput(quantize_tensor(x.contiguous(), scale, self._dtype), scale)

    @property
    def _dtype(self) -> Any:
        import torch

        return torch.int8 if self.number == "int8" else torch.float8_e4m3fn
