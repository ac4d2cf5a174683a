"""All parameters of a model by its configuration alone, and how a method stores each: the plan of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qmeter_native.errors import EngineError
from qmeter_native.quantization.checkpoint_formats.families import checkpoint_format
from qmeter_native.quantization.checkpoint_formats.layer_format import CheckpointFormat, LayerFormat
from qmeter_native.quantization.empty_model import empty_model
from qmeter_native.quantization.method import Method

__all__ = ["Parameter", "format_of", "model_parameters", "num_bytes"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a model.

    Attributes:
        name: As checkpoints have it, such as ``model.layers.0.mlp.up_proj.weight``.
        shape: Of a linear layer ``(N, K)``.
        layer: How its linear layer is stored; None: as it is.
        num_bytes: What it will take, about.
    """

    name: str
    shape: tuple[int, ...]
    layer: LayerFormat | None
    num_bytes: int

    @property
    def prefix(self) -> str:
        """The layer's name."""
        return self.name.removesuffix(".weight")

    def stored(self, value: Any) -> dict[str, Any]:
        """The checkpoint's tensors of its value."""
        if self.layer is None:
            return {self.name: value}
        return {f"{self.prefix}.{suffix}": tensor for suffix, tensor in self.layer.store(value).items()}


def format_of(method: Method) -> CheckpointFormat | None:
    """The format of a method's checkpoints; None where it leaves weights as they are."""
    return checkpoint_format(method.config) if method.config else None


def model_parameters(config: Any, method: Method, dtype: Any) -> list[Parameter]:
    """All parameters in the order of layers, tied ones once.

    Args:
        config: transformers' ``PretrainedConfig``.
        method: Decides which linear layers are quantized.
        dtype: ``torch.dtype`` of all that is not.

    Raises:
        UsageError: The method cannot hold a layer: names it and what does not divide.
        EngineError: The model has layers that are no matrices, such as experts.
    """
    from torch.nn import Linear

    model, layout = empty_model(config, dtype), format_of(method)
    head = model.get_output_embeddings()
    layers: dict[str, LayerFormat] = {}
    for name, module in model.named_modules():
        found = layout.layer(name) if layout and isinstance(module, Linear) and module is not head else None
        if found is not None:
            found.check(name, module.out_features, module.in_features)
            layers[f"{name}.weight"] = found
    return [
        _parameter(name, tuple(each.shape), layers.get(name), method, dtype) for name, each in model.named_parameters()
    ]


def num_bytes(parameters: Sequence[Parameter]) -> int:
    """What a checkpoint of them takes, about."""
    return sum(parameter.num_bytes for parameter in parameters)


def _parameter(name: str, shape: tuple[int, ...], layer: LayerFormat | None, method: Method, dtype: Any) -> Parameter:
    if len(shape) > 2:
        raise EngineError(
            f"{name} has {len(shape)} dimensions: no checkpoint can be written for models with experts yet",
            "Choose a dense model.",
        )
    size = math.prod(shape) * dtype.itemsize if layer is None else method.layout.num_bytes(shape[0], shape[1])
    return Parameter(name, shape, layer, int(size))
