"""A quantized model on a CPU, made fast: each weight is dequantized once instead of at each call."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module
from torch.nn.functional import linear

from qmeter_native.quantization.quant_linear import QuantLinear

__all__ = ["RoundedLinear", "dequantize_once"]


class RoundedLinear(Module):  # type: ignore[misc]  # torch is not checked
    """What a `QuantLinear` computes on a CPU, with its weight dequantized: 4 bytes a weight, as of a float32 model.

    Args:
        layer: On a CPU.
    """

    def __init__(self, layer: QuantLinear) -> None:
        super().__init__()
        self.register_buffer("weight", layer.quantized_weight.dequantize(torch.float32))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.float())
        self._rounded_input = layer.rounded_input

    def forward(self, x: Any) -> Any:
        """``[..., K]`` to ``[..., N]``, in the type of ``x``."""
        return linear(self._rounded_input(x.float()), self.weight, self.bias).to(x.dtype)


def dequantize_once(model: Any) -> bool:
    """Replace a model's quantized layers on a CPU, in place; whether there were any."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}
    on_cpu = {name: module for name, module in found.items() if module.device.type == "cpu"}
    for name, layer in on_cpu.items():
        model.set_submodule(name, RoundedLinear(layer))
    return bool(on_cpu)
