"""A linear layer with a quantized weight: one class a computation, this is what they share."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch.nn import Module, Parameter
from torch.nn.functional import linear

from qmeter_native.errors import EngineError
from qmeter_native.kernels.quantized_weight import QuantizedWeight

__all__ = ["QuantLinear"]


class QuantLinear(Module):  # type: ignore[misc]  # torch is not checked
    """``x @ w.T + bias`` with a weight of few bits: our Triton kernels on a GPU, plain torch on a CPU.

    On a CPU the weight is kept by its meaning and dequantized at each call, in float32: nothing but the quantized
    weight stays in memory. On a GPU it is prepared for its kernel when the layer comes there, and its first form is
    dropped; such a layer cannot be moved back.

    All tensors of the weight are buffers. Casts (``.half()``, ``.to(dtype)``) reach the bias only: codes and scales
    stay as their format has them.

    Args:
        weight: ``[N, K]``, on any device.
        bias: ``[N]``, or None.
        dtype: Of inputs on a GPU; None: float16, or bfloat16 if the scales are.
    """

    kernel: str
    """Package of `qmeter_native.kernels` that multiplies on a GPU."""

    is_capturable = True
    """A CUDA graph can hold the layer."""

    bias: Parameter | None

    def __init__(self, weight: QuantizedWeight, bias: Any | None = None, dtype: Any | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight_bytes = packed_bytes(weight)
        self.bias = None if bias is None else Parameter(bias.detach(), requires_grad=False)
        self._dtype = dtype
        self._hold(weight)
        if self.device.type == "cuda":
            self.prepare()

    @property
    def quantized_weight(self) -> Any:
        """The weight: by its meaning on a CPU, as its kernel reads it on a GPU."""
        return self._weight_type(**self._constants, **{name: getattr(self, name) for name in self._tensor_names})

    @property
    def device(self) -> Any:
        """Where the weight is."""
        return getattr(self, self._tensor_names[0]).device

    def forward(self, x: Any) -> Any:
        """``[..., K]`` to ``[..., N]``, in the type of ``x``.

        Raises:
            UsageError: The kernel refuses ``x``.
            EngineError: The layer was on a GPU and is on a CPU now.
        """
        if self.is_prepared:
            if x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
                raise EngineError("a quantized layer came from a GPU to a CPU", "Load the model again, on the CPU.")
            return self._multiply(x)
        bias = None if self.bias is None else self.bias.float()
        weight = self.quantized_weight.dequantize(torch.float32)
        return linear(self.rounded_input(x.float()), weight, bias).to(x.dtype)

    @property
    def is_prepared(self) -> bool:
        """The weight is in the form that its kernel reads."""
        return not issubclass(self._weight_type, QuantizedWeight)

    def prepare(self) -> None:
        """Put the weight into the form that its kernel reads, and drop the other. Layers on a GPU have done so; on a
        CPU it serves Triton's interpreter.

        Raises:
            UsageError: The kernel does not take such weights.
        """
        if self.is_prepared:
            return
        prepared = self._prepare(self.quantized_weight)
        for name in self._tensor_names:
            delattr(self, name)
        self._hold(prepared)

    def rounded_input(self, x: Any) -> Any:
        """What the product really reads, as ``x``: the layer's input after its quantization, float32 ``[..., K]``."""
        return x

    @abstractmethod
    def _prepare(self, weight: Any) -> Any:
        """The kernel's own form of the weight, a dataclass."""

    @abstractmethod
    def _multiply(self, x: Any) -> Any:
        """The product by the kernel, on a GPU."""

    def extra_repr(self) -> str:
        """As ``print(model)`` shows it."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self._weight_type.__name__}"

    def _hold(self, weight: Any) -> None:
        """Keep a weight, a dataclass: its tensors as buffers, all else as constants."""
        values = {field.name: getattr(weight, field.name) for field in fields(weight)}
        self._weight_type = type(weight)
        self._constants = {name: value for name, value in values.items() if not isinstance(value, torch.Tensor)}
        self._tensor_names = tuple(name for name in values if name not in self._constants)
        for name in self._tensor_names:
            self.register_buffer(name, values[name])

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> QuantLinear:
        """Moves and casts: a buffer follows to a device, and keeps its type."""

        def moved(tensor: Any) -> Any:
            if isinstance(tensor, Parameter):
                return fn(tensor)
            return tensor.to(fn(torch.empty(0, dtype=torch.uint8, device=tensor.device)).device)

        super()._apply(moved, recurse)
        if self.device.type == "cuda":
            self.prepare()
        return self


def packed_bytes(weight: QuantizedWeight) -> int:
    """Bytes of a weight whose codes are packed as densely as its bits allow, scales and zero points included."""
    bits = getattr(weight, "bits", 4)
    total = 0.0
    for field in fields(weight):
        tensor = getattr(weight, field.name)
        if not isinstance(tensor, torch.Tensor):
            continue
        is_code = field.name == "codes" or (field.name == "zeros" and not tensor.is_floating_point())
        total += tensor.numel() * (bits / 8 if is_code else tensor.element_size())
    return int(total)
