"""Checkpoints of GPTQ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qmeter_native.kernels.packing.gptq import GptqConfig, unpack
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat
from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

__all__ = ["GptqFormat"]


class GptqFormat:
    """See `CheckpointFormat`: every layer but the LM head, unless ``lm_head`` or ``dynamic`` says otherwise."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._config = GptqConfig.from_dict(fields)

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`."""
        if name.endswith("lm_head") and not self._config.lm_head:
            return None
        config = self._config.of_layer(name)
        if config is None:
            return None

        def build(tensors: Mapping[str, Any], bias: Any | None) -> Any:
            return WeightOnlyLinear(unpack(tensors, config), bias)

        required, order = frozenset({"qweight", "qzeros", "scales"}), frozenset({"g_idx"})
        # Without act-order the order of groups goes without saying.
        return LayerFormat(required | order, build) if config.desc_act else LayerFormat(required, build, order)
