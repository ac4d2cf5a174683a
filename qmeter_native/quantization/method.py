"""A quantization method: how weights are rounded, how inputs are, and which kernel multiplies them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qmeter_native.quantization.activation_quantizer import ActivationQuantizer
from qmeter_native.work.scheme import WeightLayout

__all__ = ["Method"]


@dataclass(frozen=True, slots=True)
class Method:
    """A row of `qmeter_native.quantization.methods`.

    Attributes:
        name: As ``--quantization`` spells it.
        scheme: Label of its format, as `qmeter_native.kernels.catalog` has it.
        rounding: Name of `qmeter_native.quantization.weight_rounding` that rounds a weight to nearest.
        linear: The layer's computation: ``weight_only``, ``scaled``, ``w4a8`` or ``llm_int8``.
        config: ``quantization_config`` of a checkpoint that holds such weights.
        quantizer: Of a layer's input; None: it stays as it is.
        group_size: Inputs that share a scale; a layer's inputs must be a multiple. 1: any number.
    """

    name: str
    scheme: str
    rounding: str
    linear: Literal["weight_only", "scaled", "w4a8", "llm_int8"]
    config: Mapping[str, Any]
    quantizer: ActivationQuantizer | None = None
    group_size: int = 1

    @property
    def layout(self) -> WeightLayout:
        """How its weights lie in memory, as the work model counts them."""
        from qmeter_native.kernels.catalog import format_named

        return format_named(self.scheme).layout

    def quantize(self, weight: Any) -> Any:
        """The `QuantizedWeight` of a matrix, floating point ``[N, K]``, on its device.

        Raises:
            UsageError: The format cannot hold a matrix of these sizes.
        """
        from qmeter_native.quantization.weight_rounding import ROUNDINGS

        return ROUNDINGS[self.rounding](weight, self.config)

    def layer(self, weight: Any, bias: Any | None) -> Any:
        """A `QuantLinear` of a quantized weight."""
        if self.linear == "weight_only":
            from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

            return WeightOnlyLinear(weight, bias)
        if self.linear == "llm_int8":
            from qmeter_native.quantization.llm_int8_linear import LlmInt8Linear

            return LlmInt8Linear(weight, bias)
        assert self.quantizer is not None
        if self.linear == "scaled":
            from qmeter_native.quantization.scaled_linear import ScaledLinear

            return ScaledLinear(weight, bias, self.quantizer)
        from qmeter_native.quantization.w4a8_linear import W4A8Linear

        return W4A8Linear(weight, bias, self.quantizer)
