"""What is quantized in a model: how many layers, through which kernels, in how many bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from qmeter_native.work.scheme import read_scheme

__all__ = ["can_be_captured", "parameter_bytes", "parameter_count", "quantized_layers"]


def quantized_layers(model: Any) -> dict[str, int]:
    """Number of layers by the package of `qmeter_native.kernels` that multiplies them on a GPU."""
    return dict(Counter(layer.kernel for layer in _layers(model)))


def parameter_count(model: Any) -> int:
    """Weights of the model, a quantized one counted as one."""
    quantized = sum(int(layer.in_features * layer.out_features) for layer in _layers(model))
    return int(model.num_parameters()) + quantized


def parameter_bytes(model: Any, config: Mapping[str, Any] | None) -> int:
    """Bytes of all weights, quantized ones as the work model counts them: packed, with scales and zero points.

    Args:
        model: transformers' model.
        config: ``quantization_config``. Of one that the work model does not know, layers tell their bytes themselves,
            in which scales may be wider than a checkpoint's.
    """
    scheme, _ = read_scheme(None, config, "float16")
    plain = sum(int(weight.numel() * weight.element_size()) for weight in model.parameters())
    if scheme is None:
        return plain + sum(int(layer.weight_bytes) for layer in _layers(model))
    return plain + sum(scheme.weight.num_bytes(layer.out_features, layer.in_features) for layer in _layers(model))


def can_be_captured(model: Any) -> bool:
    """Whether a CUDA graph can hold the model."""
    return all(layer.is_capturable for layer in _layers(model))


def _layers(model: Any) -> Iterator[Any]:
    from qmeter_native.quantization.quant_linear import QuantLinear

    return (module for module in model.modules() if isinstance(module, QuantLinear))
