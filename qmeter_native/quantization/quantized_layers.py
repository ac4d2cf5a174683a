"""What is quantized in a model: how many layers, through which kernels, in how many bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

__all__ = ["can_be_captured", "parameter_bytes", "parameter_count", "quantized_layers"]


def quantized_layers(model: Any) -> dict[str, int]:
    """Number of layers by the package of `qmeter_native.kernels` that multiplies them on a GPU."""
    return dict(Counter(layer.kernel for layer in _layers(model)))


def parameter_count(model: Any) -> int:
    """Weights of the model, a quantized one counted as one."""
    quantized = sum(int(layer.in_features * layer.out_features) for layer in _layers(model))
    return int(model.num_parameters()) + quantized


def parameter_bytes(model: Any) -> int:
    """Bytes of all weights, quantized ones packed as their format packs them, with scales and zero points."""
    plain = sum(int(weight.numel() * weight.element_size()) for weight in model.parameters())
    return plain + sum(int(layer.weight_bytes) for layer in _layers(model))


def can_be_captured(model: Any) -> bool:
    """Whether a CUDA graph can hold the model."""
    return all(layer.is_capturable for layer in _layers(model))


def _layers(model: Any) -> Iterator[Any]:
    from qmeter_native.quantization.quant_linear import QuantLinear

    return (module for module in model.modules() if isinstance(module, QuantLinear))
