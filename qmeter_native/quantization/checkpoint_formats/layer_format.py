"""How a checkpoint stores one quantized linear layer, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["CheckpointFormat", "LayerFormat", "no_scales", "rounded_and_packed"]

Tensors = Mapping[str, Any]


def _any_size(name: str, num_outputs: int, num_inputs: int) -> None:
    """Every layer fits."""


def no_scales(tensors: Tensors) -> dict[str, Any]:
    """No scales of inputs are in a checkpoint: each input has its own."""
    return {}


def rounded_and_packed(quantize: Callable[[Any], Any], pack: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """``quantize`` and ``store`` of a `LayerFormat` whose tensors hold exactly what was rounded."""
    return {"quantize": quantize, "store": lambda weight: pack(quantize(weight))}


@dataclass(frozen=True, slots=True)
class LayerFormat:
    """The format of one layer.

    Attributes:
        required: Names of its tensors after the layer's own, such as ``qweight``.
        unpack: Tensors by those names to the `QuantizedWeight`; raises `UsageError` where one has a type, shape or
            value that the configuration does not allow.
        quantize: A weight, floating point ``[N, K]``, rounded to nearest.
        store: The tensors, by those names, of a weight ``[N, K]`` that is so rounded.
        linear: The `QuantLinear` of a weight, a bias ``[N]`` or None, and the type of inputs.
        optional: Further tensors that may be there, the bias left out.
        input_scales: Further arguments of ``linear`` from the tensors: scales of inputs that were found beforehand.
        check: Refuses a layer by its name, N and K, with `UsageError`, where the format cannot hold it.
    """

    required: frozenset[str]
    unpack: Callable[[Tensors], Any]
    quantize: Callable[[Any], Any]
    store: Callable[[Any], dict[str, Any]]
    linear: Callable[..., Any]
    optional: frozenset[str] = frozenset()
    input_scales: Callable[[Tensors], dict[str, Any]] = no_scales
    check: Callable[[str, int, int], None] = _any_size


class CheckpointFormat(Protocol):
    """The format of a whole checkpoint, made of its ``quantization_config``."""

    @property
    def config(self) -> Mapping[str, Any]:
        """``quantization_config`` as it is carried out: it differs from the checkpoint's where our kernels multiply
        with inputs that are wider than it says.
        """

    @property
    def stored_config(self) -> dict[str, Any]:
        """``quantization_config`` with all fields spelt out, as it is written beside the tensors."""

    def layer(self, name: str) -> LayerFormat | None:
        """The format of the linear layer called ``name``; None: it is not quantized."""
