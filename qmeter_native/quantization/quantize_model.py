"""Quantizes a model in place: one linear layer after the other, rounded to nearest, without calibration data."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from qmeter_native.quantization.checkpoint_formats.families import checkpoint_format
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat
from qmeter_native.quantization.empty_model import initialize
from qmeter_native.quantization.layer_names import is_named
from qmeter_native.quantization.methods import method_named

__all__ = ["linear_layers", "quantize_model", "rounded_config"]


def quantize_model(model: Any, method: str, *, skip: Collection[str] = ("lm_head",), device: Any | None = None) -> Any:
    """Replace the linear layers of a model by quantized ones.

    A layer's own weight is dropped before the next layer is quantized, so that memory holds the model and one layer
    more at most. A layer without memory (torch's ``meta`` device) gets random weights first, as its architecture
    initializes them. What is not quantized stays where it is.

    Args:
        model: A transformers model.
        method: A name of `method_names`.
        skip: Layers to leave as they are, by their names or the last parts of them.
        device: Where layers are quantized and stay; None: where they are.

    Returns:
        ``model``.

    Raises:
        UsageError: No method goes by that name, or a layer's sizes do not suit it; nothing has been replaced then.
    """
    config = rounded_config(method)
    if not config:  # a method for caches only
        return model
    layout = checkpoint_format(config)
    layers = linear_layers(model, skip)
    formats = {name: found for name in layers if (found := layout.layer(name)) is not None}
    for name, found in formats.items():
        found.check(name, layers[name].out_features, layers[name].in_features)
    for name, found in formats.items():
        _quantize_layer(model, name, layers.pop(name), found, device)
    return model


def rounded_config(method: str) -> dict[str, Any]:
    """``quantization_config`` of what `quantize_model` makes: a method's, without the act-order that needs calibration.

    Raises:
        UsageError: No method goes by that name.
    """
    config = dict(method_named(method).config)
    return {**config, "desc_act": False} if config.get("desc_act") else config


def linear_layers(model: Any, skip: Collection[str] = ("lm_head",)) -> dict[str, Any]:
    """The layers that `quantize_model` replaces, by name: ``torch.nn.Linear``, but for those in ``skip``."""
    from torch.nn import Linear

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear) and not is_named(name, skip)
    }


def _quantize_layer(model: Any, name: str, linear: Any, layout: LayerFormat, device: Any | None) -> None:
    import torch

    if linear.weight.is_meta:
        initialize(model, linear, device)
    with torch.no_grad():
        weight = linear.weight.to(device or linear.weight.device)
        bias = None if linear.bias is None else linear.bias.to(weight.device)
        layer = layout.linear(layout.quantize(weight), bias, weight.dtype)
    model.set_submodule(name, layer.train(linear.training))
