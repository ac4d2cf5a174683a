"""Checkpoints of AWQ, in AutoAWQ's GEMM layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qmeter_native.kernels.packing.awq import AwqConfig, unpack
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat
from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

__all__ = ["AwqFormat"]


class AwqFormat:
    """See `CheckpointFormat`: every layer but the LM head and ``modules_to_not_convert``."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._config = AwqConfig.from_dict(fields)

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`."""
        if name.endswith("lm_head") or self._config.of_layer(name) is None:
            return None
        return LayerFormat(frozenset({"qweight", "qzeros", "scales"}), self._build)

    def _build(self, tensors: Mapping[str, Any], bias: Any | None) -> Any:
        return WeightOnlyLinear(unpack(tensors, self._config), bias)
