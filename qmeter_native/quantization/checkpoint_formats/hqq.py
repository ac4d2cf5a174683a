"""Checkpoints of HQQ, with one configuration for all layers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from qmeter_native.kernels.packing.hqq import HqqConfig, pack, quantize, unpack
from qmeter_native.quantization.checkpoint_formats.by_rows import by_rows
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat, rounded_and_packed
from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

__all__ = ["HqqFormat"]

_DESCRIPTION: Final = (
    *("nbits", "group_size", "axis", "packing", "unpack_view_dtype", "compute_dtype", "view_as_float", "quant_scale"),
    *("quant_zero", "offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise", "optimize"),
    "round_zero",
)
"""What a layer says of itself, as tensors."""


class HqqFormat:
    """See `CheckpointFormat`: every layer but the LM head and ``skip_modules``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._fields = HqqConfig.from_dict(config)

    @property
    def stored_config(self) -> dict[str, Any]:
        """See `CheckpointFormat`."""
        return self._fields.to_dict()

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`."""
        if name.endswith("lm_head") or self._fields.of_layer(name) is None:
            return None
        return LayerFormat(
            required=frozenset({"W_q", "scale", "zero", "shape"}),
            optional=frozenset(_DESCRIPTION),
            unpack=partial(unpack, config=self._fields),
            **rounded_and_packed(by_rows(partial(quantize, config=self._fields)), partial(pack, config=self._fields)),
            linear=WeightOnlyLinear,
            check=self._fields.check_layer,
        )
