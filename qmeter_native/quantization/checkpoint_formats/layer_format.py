"""How a checkpoint stores one quantized linear layer, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["CheckpointFormat", "LayerFormat"]


@dataclass(frozen=True, slots=True)
class LayerFormat:
    """The format of one layer.

    Attributes:
        required: Names of its tensors after the layer's own, such as ``qweight``.
        build: Makes a `QuantLinear` of the tensors by those names and of the bias, ``[N]`` or None; raises `UsageError`
            where a tensor has a type, shape or value that the configuration does not allow.
        optional: Further tensors that may be there, the bias left out.
    """

    required: frozenset[str]
    build: Callable[[Mapping[str, Any], Any | None], Any]
    optional: frozenset[str] = frozenset()


class CheckpointFormat(Protocol):
    """The format of a whole checkpoint, made of its ``quantization_config``."""

    def layer(self, name: str) -> LayerFormat | None:
        """The format of the linear layer called ``name``; None: it is not quantized."""
